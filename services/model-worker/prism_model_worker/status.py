"""What a worker says of itself once a second: the seed's status fields, its limit, its batches in flight."""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prism.messages import Heartbeat, Result, RunShare, WorkerState
from prism_model_worker.tasks import BatchTask

RATE_WINDOW_S = 10.0
# What is told of, and what is kept for runs that take turns.
TOLD_RUNS, KEPT_RUNS = 16, 512
# In a row, of one batch: no row fails for them, and whoever looks is told.
MANY_REFUSALS = 10


def now_text() -> str:
    """Return the time of day as it travels."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class _Share:
    """What was done of one run."""

    started_at: str
    rows: int = 0
    failed: int = 0
    calls: int = 0
    tokens: int = 0
    model_seconds: float = 0.0
    last_error: str | None = None

    def told(self) -> RunShare:
        rate = self.tokens / self.model_seconds if self.model_seconds else 0.0
        return RunShare(
            rows=self.rows,
            failed=self.failed,
            calls=self.calls,
            tokens=self.tokens,
            tokens_per_sec=round(rate, 2),
            started_at=self.started_at,
            last_error=self.last_error,
        )


@dataclass(slots=True)
class Status:
    """Counts since the start, and rates over the last seconds."""

    worker_id: str
    session: str
    model: str
    model_server: str
    clock: Callable[[], float]
    started_at: str = field(default_factory=now_text)
    rows: int = 0
    calls: int = 0
    tokens: int = 0
    errors: int = 0
    last_error: str | None = None
    _recent: deque[tuple[float, int, int]] = field(default_factory=deque)
    # By run, the one worked on last at the end.
    _shares: dict[str, _Share] = field(default_factory=dict)

    def begin(self, run_id: str) -> None:
        """Note that rows of a run are in hand."""
        self._share(run_id)

    def count(self, result: Result) -> None:
        """Count an acknowledged result."""
        usage, rows = result.usage, len(result.rows)
        tokens = usage.prompt_tokens + usage.completion_tokens
        share = self._share(result.run_id)
        self.rows += rows
        share.rows += rows
        self.calls += usage.calls
        share.calls += usage.calls
        self.tokens += tokens
        share.tokens += tokens
        share.model_seconds += usage.model_seconds
        failed = [row.reason for row in result.rows if row.reason is not None]
        if failed:
            self.errors += len(failed)
            share.failed += len(failed)
            self.last_error = share.last_error = failed[-1]
        self._recent.append((self.clock(), rows, tokens))

    def _share(self, run_id: str) -> _Share:
        share = self._shares.pop(run_id, None)
        if share is None:
            share = _Share(now_text())
            if len(self._shares) >= KEPT_RUNS:
                del self._shares[next(iter(self._shares))]
        self._shares[run_id] = share
        return share

    def heartbeat(
        self,
        state: WorkerState,
        reason: str | None,
        limit: int,
        in_flight: list[str],
        waiting: dict[str, str],
        partitions: list[int],
        out_of_quota: list[str] | None = None,
    ) -> Heartbeat:
        """Return the message of this second."""
        oldest = self.clock() - RATE_WINDOW_S
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
        rows = sum(one[1] for one in self._recent)
        tokens = sum(one[2] for one in self._recent)
        return Heartbeat(
            worker_id=self.worker_id,
            session=self.session,
            state=state,
            reason=reason,
            model=self.model,
            model_server=self.model_server,
            limit=limit,
            in_flight=in_flight,
            waiting=waiting,
            out_of_quota=out_of_quota or [],
            partitions=partitions,
            started_at=self.started_at,
            updated_at=now_text(),
            rows_processed=self.rows,
            api_calls=self.calls,
            rows_per_sec=round(rows / RATE_WINDOW_S, 2),
            tokens_per_sec=round(tokens / RATE_WINDOW_S, 2),
            avg_tokens_per_row=round(self.tokens / self.rows, 2) if self.rows else 0.0,
            tokens_total=self.tokens,
            runs={run_id: self._shares[run_id].told() for run_id in list(self._shares)[-TOLD_RUNS:]},
            errors=self.errors,
            last_error=self.last_error,
        )


def waiting_runs(tasks: Collection[BatchTask]) -> dict[str, str]:
    """Return the runs of which something gets no answer anywhere, and why. tasks: what is in hand."""
    contexts = {(task.batch.run_id, task.model): task.context for task in tasks}
    reasons = {key: one.servers.closed_reason(one.model) for key, one in contexts.items()}
    waiting = {run_id: reason for (run_id, _), reason in reasons.items() if reason is not None}
    refused = (task.batch.run_id for task in tasks if task.refusals >= MANY_REFUSALS)
    return dict.fromkeys(refused, "the model server refuses a call again and again") | waiting
