"""What the topics say: runs, progress, outputs, heartbeats and batches, read as the product reads them.

Read by the caller's own thread, inside the waits: nothing runs in the background.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from prism.kafka.clients import KafkaSettings
from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import (
    Batch,
    Heartbeat,
    OutputPublished,
    Progress,
    RunRecord,
    Topics,
)
from prism.runs.table import RunsTable

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Announcement:
    """One record of `prism.outputs`; `source` says who published: `/prism-merger-0`."""

    ce_id: str
    event: OutputPublished
    source: str = ""


@dataclass(frozen=True, slots=True)
class FedBatch:
    """One record of `prism.batches`, without its rows' text."""

    run_id: str
    sequence: int
    fed: int
    row_ids: tuple[str, ...]


@dataclass(slots=True)
class Seen:
    """Everything that was read so far."""

    runs: RunsTable = field(default_factory=RunsTable)
    stalls: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    progress: dict[str, Progress] = field(default_factory=dict)
    outputs: dict[str, list[Announcement]] = field(default_factory=lambda: defaultdict(list))
    workers: dict[str, Heartbeat] = field(default_factory=dict)
    batches: dict[tuple[int, int], FedBatch] = field(default_factory=dict)


class Watch:
    """Reads the topics from their beginning."""

    def __init__(self, kafka: KafkaSettings, complaint: Callable[[], str]) -> None:
        self.seen = Seen()
        self._complaint = complaint
        topics = Topics()
        self._reader = TableReader(
            kafka,
            {
                topics.runs: self._run,
                topics.progress: self._progress,
                topics.outputs: self._output,
                topics.workers: self._worker,
                topics.batches: self._batch,
            },
        )

    def close(self) -> None:
        """Leave."""
        self._reader.close()

    def wait(self, met: Callable[[Seen], bool], timeout_s: float, what: str) -> float:
        """Read until a condition is met; return the seconds it took. AssertionError after the deadline."""
        began = time.monotonic()
        self._reader.poll(0.0)
        while not met(self.seen):
            if time.monotonic() - began > timeout_s:
                raise AssertionError(f"after {timeout_s:.0f} s: {what}\n{self._complaint()}")
            self._reader.poll(_POLL_S)
        return time.monotonic() - began

    def follow(self, seconds: float) -> None:
        """Read for so long: how long a disturbance lasts, not a way to wait for something."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._reader.poll(_POLL_S)

    def catch_up(self, timeout_s: float = 10.0) -> None:
        """Read everything that is there now."""
        self._reader.expect_end()
        self.wait(lambda _: self._reader.caught_up, timeout_s, "the topics were not read to their end")

    def run(self, run_id: str) -> RunRecord | None:
        """Return a run as `prism.runs` shows it."""
        return self.seen.runs.runs.get(run_id)

    def merged(self, run_id: str) -> int:
        """Return how many rows the merger has counted."""
        progress = self.seen.progress.get(run_id)
        return progress.rows_ok + progress.rows_failed if progress else 0

    def await_merged(self, run_id: str, rows: int, timeout_s: float = 60.0) -> float:
        """Wait until so many rows are merged."""
        return self.wait(lambda _: self.merged(run_id) >= rows, timeout_s, f"{rows} rows of {run_id} merged")

    def await_end(self, run_id: str, timeout_s: float = 120.0) -> RunRecord:
        """Wait until a run has ended; return it."""

        def ended(seen: Seen) -> bool:
            record = seen.runs.runs.get(run_id)
            return record is not None and record.state.ended

        self.wait(ended, timeout_s, f"the end of {run_id}")
        record = self.run(run_id)
        assert record is not None
        return record

    def await_announced(self, run_id: str, timeout_s: float = 30.0) -> None:
        """Wait until an output of the run is announced."""
        self.wait(lambda seen: bool(seen.outputs.get(run_id)), timeout_s, f"the announcement of {run_id}")

    def _run(self, record: Record) -> None:
        run = self.seen.runs.apply(record.key, record.value)
        if isinstance(run, RunRecord) and run.stalled:
            said = self.seen.stalls[run.run_id]
            if run.stalled not in said:
                said.append(run.stalled)

    def _progress(self, record: Record) -> None:
        if record.value is not None:
            progress = Progress.parse(record.value)
            self.seen.progress[progress.run_id] = progress

    def _output(self, record: Record) -> None:
        if record.value is not None:
            event = OutputPublished.parse(record.value)
            ce_id, source = (record.headers.get(name, "") for name in ("ce_id", "ce_source"))
            self.seen.outputs[event.run_id].append(Announcement(ce_id, event, source))

    def _worker(self, record: Record) -> None:
        if record.value is not None:
            beat = Heartbeat.parse(record.value)
            self.seen.workers[beat.worker_id] = beat

    def _batch(self, record: Record) -> None:
        if record.value is not None:
            batch = Batch.parse(record.value)
            rows = tuple(row.row_id for row in batch.rows)
            self.seen.batches[record.partition, record.offset] = FedBatch(
                batch.run_id, batch.sequence, batch.fed, rows
            )
