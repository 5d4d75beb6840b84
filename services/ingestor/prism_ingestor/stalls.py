"""Why a run does not move: asked only when it has not moved for a while."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from prism.messages import Heartbeat, Progress, WorkerState

QUIET_S = 10.0


class StallCause(StrEnum):
    """What has to be looked at."""

    NO_MERGER = "no_merger"
    MERGER = "merger"
    NO_WORKER = "no_worker"
    MODEL_SERVER = "model_server"
    QUOTA = "quota"
    BUDGET = "budget"
    SOURCE = "source"
    UNKNOWN = "unknown"


class Stall(NamedTuple):
    """A cause for metrics, and a sentence for people."""

    cause: StallCause
    reason: str


def stall_of(
    run_id: str, quiet_s: float, workers: Sequence[Heartbeat], progress: Progress | None
) -> Stall | None:
    """Return why nothing of a run was merged for `quiet_s` seconds; None while it moves or is worked on."""
    if quiet_s < QUIET_S:
        return None
    if progress is None:
        return Stall(StallCause.NO_MERGER, "no merger: nothing says what is merged; start one")
    if progress.detail:
        return Stall(StallCause.MERGER, progress.detail)
    if not workers:
        return Stall(StallCause.NO_WORKER, "no worker: start a model worker")
    return _of_workers(run_id, workers)


def _of_workers(run_id: str, workers: Sequence[Heartbeat]) -> Stall | None:
    waiting = [one for one in workers if one.state is WorkerState.WAITING]
    if len(waiting) == len(workers):
        return Stall(_cause(run_id, waiting), f"every worker waits: {waiting[0].reason}")
    holders = [one for one in workers if any(batch.startswith(f"{run_id}/") for batch in one.in_flight)]
    if any(one.state is not WorkerState.WAITING and run_id not in one.waiting for one in holders):
        return None  # a slow model is no stall
    if holders:
        reason = holders[0].waiting.get(run_id, holders[0].reason)
        return Stall(_cause(run_id, holders), f"the worker that has its batches waits: {reason}")
    if _spent(run_id, workers):
        return Stall(StallCause.QUOTA, "the quota of its model is used up, as every worker says")
    # No number in it: each change of the reason is a record.
    return Stall(
        StallCause.UNKNOWN, "nothing is merged any more, and no worker has a batch of this run in hand"
    )


def _cause(run_id: str, waiting: Sequence[Heartbeat]) -> StallCause:
    return StallCause.QUOTA if _spent(run_id, waiting) else StallCause.MODEL_SERVER


def _spent(run_id: str, workers: Sequence[Heartbeat]) -> bool:
    """Return whether at each of the workers nothing is wrong but an account."""
    return all(run_id in one.out_of_quota for one in workers)
