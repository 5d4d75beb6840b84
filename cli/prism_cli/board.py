"""What the topics say of runs and workers, put together: the source of every screen."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import BadMessage, Heartbeat, Progress, RunRecord, RunState, WorkerState
from prism.messages.fleet import HEARTBEAT_EXPIRY_SECONDS
from prism.runs.table import RunsTable
from prism_cli.connection import Connection
from prism_cli.exits import BROKER_AWAY, CommandFailed
from prism_cli.outputs import local_path

CATCH_UP_S = 20.0
# A worker that was silent for longer is not news any more.
_FORGOTTEN_S = 3600.0


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as a person or a script sees it: the run's record and what the merger has counted."""

    record: RunRecord
    progress: Progress

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def state(self) -> RunState:
        return self.record.state

    @property
    def ended(self) -> bool:
        return self.record.state.ended

    @property
    def reason(self) -> str | None:
        """The typed reason of a refused or failed run, or why nothing moves."""
        return self.record.reason or (None if self.ended else self.record.stalled)

    @property
    def rows_done(self) -> int:
        return self.progress.rows_ok + self.progress.rows_failed

    @property
    def rows_per_s(self) -> float:
        """Over the last seconds; of an ended run its mean."""
        return self.progress.mean_rows_per_s if self.ended else self.progress.rows_per_s

    @property
    def tokens(self) -> int:
        return self.progress.prompt_tokens + self.progress.completion_tokens

    def as_json(self, data_dir: Path | None = None) -> dict[str, Any]:
        """Return what `prism status RUN --json` prints."""
        record, progress = self.record, self.progress
        return {
            "run_id": record.run_id,
            "state": record.state.value,
            "reason": self.reason,
            "rows": {"in": record.rows, "ok": progress.rows_ok, "failed": progress.rows_failed},
            "calls": progress.calls,
            "extra_calls": progress.extra_calls,
            "rows_per_s": round(self.rows_per_s, 2),
            "outputs": [
                {
                    "path": local_path(one, data_dir),
                    "rows": one.rows,
                    "sha256": one.sha256,
                    "label": one.label,
                    "bytes": one.bytes,
                }
                for one in progress.outputs
            ],
            "job": record.job_name,
            "stalled": None if self.ended else record.stalled,
            "detail": record.detail or progress.detail,
            "line": record.line,
            "column": record.column,
            "eta_s": None if self.ended else progress.eta_s,
            "failed_by_reason": progress.failed_by_reason,
            "reused_rows": progress.reused_rows,
            "tokens": {"prompt": progress.prompt_tokens, "completion": progress.completion_tokens},
            "created_at": record.created_at,
            "updated_at": max(record.updated_at, progress.updated_at),
        }


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker's last heartbeat, and how many seconds ago it came."""

    heartbeat: Heartbeat
    silent_s: float

    @property
    def lost(self) -> bool:
        return self.silent_s > HEARTBEAT_EXPIRY_SECONDS

    def as_json(self) -> dict[str, Any]:
        """Return what `prism status --json` prints of a worker."""
        one = self.heartbeat
        return {
            "worker_id": one.worker_id,
            "state": "lost" if self.lost else one.state.value,
            "reason": one.reason,
            "model": one.model,
            "model_server": one.model_server,
            "in_flight": len(one.in_flight),
            "limit": one.limit,
            "rows_per_s": one.rows_per_sec,
            "rows": one.rows_processed,
            "calls": one.api_calls,
            "silent_s": round(self.silent_s, 1),
        }


class Board:
    """The runs, their progress and the workers, as three topics tell them."""

    def __init__(
        self,
        connection: Connection,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self._now = now
        self._clock = clock
        # When each worker was heard while we listened: that does not depend on what its clock says.
        self._heard: dict[str, float] = {}
        # Asked before each look: a fleet of one's own that is gone sends nothing more.
        self.guard: Callable[[], None] = lambda: None
        self._runs = RunsTable()
        self._progress: dict[str, Progress] = {}
        self._workers: dict[str, Heartbeat] = {}
        topics = connection.topics
        self._reader = TableReader(
            connection.kafka,
            {
                topics.runs: self._take_run,
                topics.progress: self._take_progress,
                topics.workers: self._take_worker,
            },
        )

    def refresh(self, timeout_s: float = CATCH_UP_S) -> None:
        """Read all that there is now. Raises CommandFailed (4) when that takes too long."""
        self._reader.expect_end()
        self.catch_up(timeout_s)

    def catch_up(self, timeout_s: float = CATCH_UP_S) -> None:
        """Read to where the topics ended when they were opened or last asked about."""
        read_to_end(self._reader, timeout_s)

    def poll(self, timeout_s: float) -> int:
        """Take in what comes within the time; return how many records. Raises what `guard` raises."""
        self.guard()
        return self._reader.poll(timeout_s)

    @property
    def away(self) -> bool:
        """Whether the broker has not been heard of for some seconds. Known only while somebody polls."""
        return self._reader.broker_away

    def run(self, run_id: str) -> RunView | None:
        """Return a run, None if nobody has accepted or refused one of that id."""
        record = self._runs.runs.get(run_id)
        return None if record is None else self._view(record)

    def runs(self) -> list[RunView]:
        """Return every run, the newest first."""
        newest_first = sorted(self._runs.runs.values(), key=lambda one: one.created_at, reverse=True)
        return [self._view(record) for record in newest_first]

    def workers(self) -> list[WorkerView]:
        """Return the workers that have not stopped in order, by name."""
        views = [WorkerView(one, self._silent_s(key, one)) for key, one in sorted(self._workers.items())]
        return [
            view
            for view in views
            if view.heartbeat.state is not WorkerState.STOPPED and view.silent_s < _FORGOTTEN_S
        ]

    def _silent_s(self, key: str, beat: Heartbeat) -> float:
        if key in self._heard:
            return self._clock() - self._heard[key]
        return _age(beat.updated_at, self._now())

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()

    def _view(self, record: RunRecord) -> RunView:
        return RunView(record, self._progress.get(record.run_id) or Progress(run_id=record.run_id))

    # A message that cannot be read is the services' to report; a screen shows the rest.
    def _take_run(self, record: Record) -> None:
        try:
            self._runs.apply(record.key, record.value)
        except BadMessage:
            return

    def _take_progress(self, record: Record) -> None:
        if record.value is None:
            self._progress.pop(record.key, None)
            return
        try:
            self._progress[record.key] = Progress.parse(record.value)
        except BadMessage:
            return

    def _take_worker(self, record: Record) -> None:
        if record.value is None:
            self._workers.pop(record.key, None)
            self._heard.pop(record.key, None)
            return
        try:
            self._workers[record.key] = Heartbeat.parse(record.value)
        except BadMessage:
            return
        if self._reader.caught_up:
            self._heard[record.key] = self._clock()


def read_to_end(reader: TableReader, timeout_s: float = CATCH_UP_S) -> None:
    """Poll until a reader has caught up. Raises CommandFailed (4) when that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not reader.caught_up:
        # A poll waits its whole time for more than is there: short ones are done sooner.
        reader.poll(0.02)
        if time.monotonic() > deadline:
            raise CommandFailed(
                BROKER_AWAY,
                f"the broker did not send its tables within {timeout_s:.0f} s",
                next="prism doctor",
            )


def _age(moment: str, now: datetime) -> float:
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    return max(0.0, (now - then.replace(tzinfo=then.tzinfo or UTC)).total_seconds())
