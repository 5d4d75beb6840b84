"""`prism.intake` as the active ingestor reads it: every partition, and a commit behind what is accepted.

The offset of a record is committed once the run that it makes is acknowledged in `prism.runs` (or once it
is buried); an incomplete chunked file holds the commit back to its first chunk. Reading a record again
makes the same run id, hence the same run.
"""

import threading

from confluent_kafka import Consumer, KafkaException, TopicPartition

from prism.kafka.admin import partition_count
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.errors import BrokerAway, failure, raise_if_fatal
from prism.kafka.frontier import OffsetFrontier
from prism.kafka.records import Record
from prism.messages import intake
from prism.service import fault
from prism.service.logs import get_logger

log = get_logger(__name__)

_TIMEOUT_S = 10.0
# One record may have 16 MiB: keep few of them in memory.
_PREFETCH_KIB = 20_480


class IntakeTopic:
    """Reads intake by manual assignment under a group of its own, for its committed offsets."""

    def __init__(self, kafka: KafkaSettings, group: str, topic: str) -> None:
        self.errors = ErrorWatch()
        self.topic = topic
        self.group = intake.reading_group(group)
        self._frontiers: dict[int, OffsetFrontier] = {}
        self._committed: dict[int, int] = {}
        self._admin = kafka.admin()
        self._consumer: Consumer = kafka.reader(
            self.errors,
            **{
                "group.id": self.group,
                "queued.max.messages.kbytes": _PREFETCH_KIB,
                "queued.min.messages": 1,
                # One record fills the queue: look again soon, not after the default second.
                "fetch.queue.backoff.ms": 20,
                "fetch.message.max.bytes": 1_048_576,
            },
        )

    def open(self) -> None:
        """Begin at what is committed. Raises BrokerAway."""
        partitions = [
            TopicPartition(self.topic, one) for one in range(partition_count(self._admin, self.topic))
        ]
        starts = []
        try:
            for place in self._consumer.committed(partitions, timeout=_TIMEOUT_S):
                low, high = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
                start = place.offset if low <= place.offset <= high else low
                self._frontiers[place.partition] = OffsetFrontier(start)
                self._committed[place.partition] = place.offset
                starts.append(TopicPartition(self.topic, place.partition, start))
        except KafkaException as error:
            raise failure(f"find the place in {self.topic}", error.args[0]) from None
        self._consumer.assign(starts)

    def shut(self) -> None:
        """Stop reading, as a stand-by does."""
        self._consumer.unassign()
        self._frontiers = {}

    def poll(self) -> Record | None:
        """Return the next record, if one has come."""
        if not self._frontiers:
            return None
        message = self._consumer.poll(0)
        self.errors.check()
        if message is None:
            return None
        error = message.error()
        if error is not None:
            raise_if_fatal(error)
            return None
        record = Record.of(message)
        frontier = self._frontiers.get(record.partition)
        if frontier is None or record.offset < frontier.position:
            return None
        frontier.take(record.offset)
        return record

    def finish(self, partition: int, offsets: list[int]) -> None:
        """Note that what these records ask for is durable."""
        frontier = self._frontiers.get(partition)
        if frontier is not None:
            for offset in offsets:
                frontier.finish(offset)

    def commit(self) -> None:
        """Commit what has moved."""
        changed = [
            TopicPartition(self.topic, one, frontier.committable)
            for one, frontier in self._frontiers.items()
            if frontier.committable != self._committed.get(one) and frontier.committable > 0
        ]
        if not changed:
            return
        fault.point("ingestor.before_intake_commit")
        try:
            self._consumer.commit(offsets=changed, asynchronous=False)
        except KafkaException as error:
            raise_if_fatal(error.args[0])
            log.warning("intake_commit_refused", error=error.args[0].str())
            return
        for place in changed:
            self._committed[place.partition] = place.offset

    def committable(self) -> dict[int, int]:
        """Return by partition the offset below which nothing has to be read again for its run to be known."""
        return {one: frontier.committable for one, frontier in self._frontiers.items()}

    def close(self) -> None:
        """Close."""
        self._consumer.close()


class MessageFetcher:
    """Reads single intake records again, by partition and offset; for one thread at a time."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._errors = ErrorWatch()
        self._consumer: Consumer = kafka.reader(
            self._errors,
            **{
                "queued.max.messages.kbytes": _PREFETCH_KIB,
                "queued.min.messages": 1,
                "fetch.queue.backoff.ms": 20,
            },
        )

    def __call__(self, partition: int, offset: int) -> bytes | None:
        """Return a record's value, None if it is not there any more. Raises BrokerAway."""
        with self._lock:
            return self._fetch(partition, offset)

    def _fetch(self, partition: int, offset: int) -> bytes | None:
        place = TopicPartition(self._topic, partition, offset)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise failure(f"read {place} again", error.args[0]) from None
        if not low <= offset < high:
            return None
        self._consumer.assign([place])
        message = self._consumer.poll(_TIMEOUT_S)
        self._errors.check()
        if message is None or message.error() is not None:
            raise BrokerAway(f"{place} was not read in {_TIMEOUT_S:.0f} s")
        record = Record.of(message)
        self._consumer.unassign()
        return record.value if record.offset == offset else None
