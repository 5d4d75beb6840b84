"""The runs as this ingestor writes them: every record carries its epoch and name.

Argument. Of two records of one key the higher (epoch, owner) counts for every reader. A takeover raises
the epoch, so what a stale ingestor still writes is ignored by all. Compaction, though, keeps the last
record of a key whatever its epoch: so whoever sees a stale record after its own writes its own again.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer

from prism.kafka.errors import BrokerFatal, raise_if_fatal
from prism.kafka.records import event_headers
from prism.messages import Cursor, FileCursor, RunRecord, Topics, cursor_key
from prism.messages.run import CURSOR_SUFFIX
from prism.service.logs import get_logger
from prism_ingestor import metrics

log = get_logger(__name__)


def now_text() -> str:
    """Return the time of day as it travels."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Ledger:
    """Writes `prism.runs`. `runs` holds the unended runs as they stand."""

    def __init__(self, producer: Producer, topics: Topics, owner: str) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.epoch = 0
        self.owner = owner
        self._producer = producer
        self._topics = topics
        self._cursors: dict[str, Cursor] = {}
        self._ended: dict[str, RunRecord] = {}

    def take_over(self, epoch: int, runs: list[RunRecord], cursors: dict[str, Cursor]) -> None:
        """Claim the unended runs under a new epoch, durably."""
        self.epoch = epoch
        self.runs, self._ended = {}, {}
        self._cursors = dict(cursors)
        # With no run to claim the epoch would be known to nobody, and the next one would take the same.
        self.write_cursor("", {})
        for record in runs:
            self.write(record)
            if record.run_id in self._cursors:
                self.write_cursor(record.run_id, self._cursors[record.run_id].files)
        self._producer.flush()

    def write(
        self, record: RunRecord, on_acknowledged: Callable[[], None] | None = None, **changes: object
    ) -> RunRecord:
        """Write a run with some changes."""
        changes |= {"epoch": self.epoch, "owner": self.owner, "updated_at": now_text()}
        written = record.model_copy(update=changes)
        if written.state != record.state or record.run_id not in self.runs:
            log.info("run_state", run_id=written.run_id, state=written.state, reason=written.reason)
            metrics.RUNS.labels(state=written.state.value).inc()
        if written.state.ended:
            self.runs.pop(written.run_id, None)
            self._ended[written.run_id] = written
        else:
            self.runs[written.run_id] = written
        self._send(written.run_id, written, on_acknowledged)
        return written

    def known(self, run_id: str) -> RunRecord | None:
        """Return a run as it was last written here; None once a reader of the topic knows as much."""
        return self.runs.get(run_id) or self._ended.get(run_id)

    def change(self, run_id: str, **changes: object) -> RunRecord | None:
        """Write an unended run with some changes, if any of them is one."""
        record = self.runs.get(run_id)
        if record is None or all(getattr(record, name) == value for name, value in changes.items()):
            return record
        return self.write(record, None, **changes)

    def write_cursor(
        self, run_id: str, files: dict[str, FileCursor], on_acknowledged: Callable[[], None] | None = None
    ) -> bool:
        """Write a run's cursor if it has moved; return whether it had."""
        known = self._cursors.get(run_id)
        if known is not None and known.files == files and known.epoch == self.epoch:
            return False
        cursor = Cursor(run_id=run_id, epoch=self.epoch, owner=self.owner, files=files, updated_at=now_text())
        self._cursors[run_id] = cursor
        self._send(cursor_key(run_id), cursor, on_acknowledged)
        return True

    def is_overruled_by(self, record: RunRecord | Cursor) -> bool:
        """Return whether somebody else's record counts more than ours."""
        return (record.epoch, record.owner) > (self.epoch, self.owner)

    def lacks(self, record: RunRecord) -> bool:
        """Return whether this run is unended and not one of ours."""
        return not record.state.ended and record.run_id not in self.runs and record.run_id not in self._ended

    def has_come_round(self, record: RunRecord | Cursor) -> None:
        """Note that a record of ours was read again: now whoever reads the topic knows it too."""
        if isinstance(record, RunRecord) and record.state.ended:
            self._ended.pop(record.run_id, None)

    def write_again(self, key: str, counts: RunRecord | Cursor | None) -> None:
        """Put the record that counts behind a stale one; ours may be newer than what was read."""
        ours: RunRecord | Cursor | None
        if key.endswith(CURSOR_SUFFIX):
            ours = self._cursors.get(key.removesuffix(CURSOR_SUFFIX))
        else:
            ours = self.known(key)
        record = ours or counts
        if record is not None:
            log.warning("stale_record_overwritten", key=key)
            self._send(key, record, None)

    def _send(self, key: str, record: RunRecord | Cursor, on_acknowledged: Callable[[], None] | None) -> None:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            raise_if_fatal(error)
            if error is not None:
                # Delivery is tried without end: what fails all the same fails for good. Sent again it
                # could come behind a newer one.
                raise BrokerFatal(f"the run {key} cannot be written: {error.str()}")
            if on_acknowledged is not None:
                on_acknowledged()

        kind = "run" if isinstance(record, RunRecord) else "cursor"
        self._producer.produce(
            self._topics.runs,
            key=key,
            value=record.to_bytes(),
            headers=event_headers(
                kind,
                f"{key}/{self.epoch}",
                f"/prism/ingestor/{self.owner}",
                record.run_id,
                record.trace if isinstance(record, RunRecord) else None,
            ),
            on_delivery=delivered,
        )
