"""The tables that an ingestor reads: runs, progress, workers; kept warm on a stand-by too."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from prism.kafka.clients import KafkaSettings
from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import BadMessage, Cursor, Heartbeat, Progress, RunRecord, Topics, WorkerState
from prism.messages.fleet import HEARTBEAT_EXPIRY_SECONDS
from prism.runs.table import RunsTable
from prism.service.logs import get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    beat: Heartbeat
    at: float


class FleetView:
    """What runs, progress and workers say now.

    `on_progress` hears of each progress message, `on_run` of each record of runs that counts, `on_stale`
    of the key of each one that does not.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        clock: Callable[[], float],
        on_progress: Callable[[Progress], None],
        on_run: Callable[[RunRecord | Cursor], None],
        on_stale: Callable[[str], None],
    ) -> None:
        self.runs = RunsTable()
        self.progress: dict[str, Progress] = {}
        self._workers: dict[str, _Seen] = {}
        self._clock = clock
        self._on_progress = on_progress
        self._on_run = on_run
        self._on_stale = on_stale
        self.reader = TableReader(
            kafka,
            {topics.runs: self._run, topics.progress: self._progress, topics.workers: self._worker},
        )

    def catch_up(self) -> None:
        """Apply everything that is there now."""
        self.reader.expect_end()
        while not self.reader.caught_up:
            self.reader.poll(1.0)

    def _run(self, record: Record) -> None:
        try:
            applied = self.runs.apply(record.key, record.value)
        except BadMessage as error:
            log.warning("run_not_read", key=record.key, error=error)
            return
        if isinstance(applied, RunRecord) and applied.state.ended:
            self.progress.pop(applied.run_id, None)
        if applied is not None:
            self._on_run(applied)
        elif record.value is not None:
            self._on_stale(record.key)

    def _progress(self, record: Record) -> None:
        if record.value is None:
            self.progress.pop(record.key, None)
            return
        try:
            progress = Progress.parse(record.value)
        except BadMessage as error:
            log.warning("progress_not_read", key=record.key, error=error)
            return
        known = self.runs.runs.get(progress.run_id)
        if known is not None and known.state.ended:
            self.progress.pop(progress.run_id, None)  # of an ended run nobody here asks any more
        else:
            self.progress[progress.run_id] = progress
        self._on_progress(progress)

    def _worker(self, record: Record) -> None:
        try:
            beat = Heartbeat.parse(record.value)
        except BadMessage as error:
            log.warning("heartbeat_not_read", key=record.key, error=error)
            return
        # Of what lay there before, when it was sent counts; then the clocks of two machines need not agree.
        age = 0.0 if self.reader.caught_up else max(0.0, wall_clock_ms() - record.timestamp_ms) / 1000
        self._workers[beat.worker_id] = _Seen(beat, self._clock() - age)

    def live_workers(self) -> list[Heartbeat]:
        """Return the last heartbeat of each worker that has sent one lately and has not stopped."""
        oldest = self._clock() - HEARTBEAT_EXPIRY_SECONDS
        self._workers = {name: seen for name, seen in self._workers.items() if seen.at >= oldest}
        return [seen.beat for seen in self._workers.values() if seen.beat.state is not WorkerState.STOPPED]


def wall_clock_ms() -> float:
    """Return the time of day in ms, to compare with records' timestamps."""
    return time.time() * 1000
