"""Why a run does not move: asked only when it has not moved for a while."""

from collections.abc import Sequence

from prism.messages import Heartbeat, Progress, WorkerState

QUIET_S = 10.0


def stall_reason(
    run_id: str, quiet_s: float, workers: Sequence[Heartbeat], progress: Progress | None
) -> str | None:
    """Return why nothing of a run was merged for `quiet_s` seconds; None while it moves or is worked on."""
    if quiet_s < QUIET_S:
        return None
    if progress is None:
        return "no merger: nothing says what is merged; start one"
    if progress.detail:
        return progress.detail
    if not workers:
        return "no worker: start a model worker"
    waiting = [one for one in workers if one.state is WorkerState.WAITING]
    if len(waiting) == len(workers):
        return f"every worker waits: {waiting[0].reason}"
    holders = [one for one in workers if any(batch.startswith(f"{run_id}/") for batch in one.in_flight)]
    if any(one.state is not WorkerState.WAITING and run_id not in one.waiting for one in holders):
        return None  # a slow model is no stall
    if holders:
        reason = holders[0].waiting.get(run_id, holders[0].reason)
        return f"the worker that has its batches waits: {reason}"
    # No number in it: each change of the reason is a record.
    return "nothing is merged any more, and no worker has a batch of this run in hand"
