"""The compacted topics that the merger reads: runs, workers, outputs."""

import time
from collections.abc import Callable

from prism.kafka.clients import KafkaSettings
from prism.kafka.errors import BrokerAway
from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import BadMessage, OutputPublished, RunRecord, Topics
from prism.runs.table import RunsTable
from prism.service.logs import get_logger
from prism_merger.losses import Workers
from prism_merger.plans import is_broken_off

log = get_logger(__name__)

_CATCH_UP_S = 8.0


class Tables:
    """What `prism.runs`, `prism.workers` and `prism.outputs` say; of one thread.

    `changed` holds the run records that came since it was last emptied, as they came: what the table
    keeps of an ended run has no prompt.
    """

    def __init__(self, settings: KafkaSettings, topics: Topics, wall_clock: Callable[[], float]) -> None:
        self.runs = RunsTable()
        self.workers = Workers(wall_clock)
        self.announced: dict[tuple[str, str, str], OutputPublished] = {}
        self.changed: dict[str, RunRecord] = {}
        self._starting = True
        self._reader = TableReader(
            settings,
            {topics.runs: self._on_run, topics.workers: self._on_worker, topics.outputs: self._on_output},
        )

    def catch_up(self, timeout_s: float) -> bool:
        """Take in what has come; return whether all that was there at the start is in."""
        self._reader.poll(timeout_s)
        return self._reader.caught_up

    def poll(self, timeout_s: float = 0.0) -> int:
        """Take in what has come; return how many records."""
        return self._reader.poll(timeout_s)

    def refresh(self) -> None:
        """Read on to where the topics end now. Raise BrokerAway if that takes too long."""
        self._reader.expect_end()
        until = time.monotonic() + _CATCH_UP_S
        while not self._reader.caught_up:
            self._reader.poll(0.02)
            if time.monotonic() > until:
                raise BrokerAway("the runs topic cannot be read to its end")

    def started(self) -> None:
        """Forget what only a new store needs."""
        self._starting = False
        self.announced = {}

    def close(self) -> None:
        """Leave."""
        self._reader.close()

    def _on_run(self, record: Record) -> None:
        try:
            applied = self.runs.apply(record.key, record.value)
        except BadMessage as error:
            log.warning("run_record_ignored", key=record.key, offset=record.offset, error=error)
            return
        if isinstance(applied, RunRecord):
            # At the start the whole history goes by: what the table keeps is enough, but for prompts.
            if self._starting and not is_broken_off(applied):
                self.changed.pop(applied.run_id, None)
            else:
                self.changed[applied.run_id] = applied

    def _on_worker(self, record: Record) -> None:
        self.workers.apply(record.key, record.value, record.timestamp_ms)

    def _on_output(self, record: Record) -> None:
        if not self._starting or record.value is None:
            return
        try:
            event = OutputPublished.parse(record.value)
        except BadMessage:
            return
        self.announced[event.run_id, event.label, event.format] = event
