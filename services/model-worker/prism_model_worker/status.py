"""What a worker says of itself once a second: the seed's status fields, its limit, its batches in flight."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prism.messages import Heartbeat, Result, WorkerState

RATE_WINDOW_S = 10.0


def now_text() -> str:
    """Return the time of day as it travels."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


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

    def count(self, result: Result) -> None:
        """Count an acknowledged result."""
        tokens = result.usage.prompt_tokens + result.usage.completion_tokens
        self.rows += len(result.rows)
        self.calls += result.usage.calls
        self.tokens += tokens
        failed = [row for row in result.rows if row.reason is not None]
        self.errors += len(failed)
        if failed:
            self.last_error = failed[-1].reason
        self._recent.append((self.clock(), len(result.rows), tokens))

    def heartbeat(
        self,
        state: WorkerState,
        reason: str | None,
        limit: int,
        in_flight: list[str],
        waiting: dict[str, str],
        partitions: list[int],
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
            partitions=partitions,
            started_at=self.started_at,
            updated_at=now_text(),
            rows_processed=self.rows,
            api_calls=self.calls,
            rows_per_sec=round(rows / RATE_WINDOW_S, 2),
            tokens_per_sec=round(tokens / RATE_WINDOW_S, 2),
            avg_tokens_per_row=round(self.tokens / self.rows, 2) if self.rows else 0.0,
            tokens_total=self.tokens,
            errors=self.errors,
            last_error=self.last_error,
        )
