"""The own partitions of `prism.results`, by manual assignment, from the offsets that the store shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from prism.kafka.admin import Ends
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.errors import raise_if_fatal
from prism.kafka.records import Record
from prism.service.logs import get_logger

log = get_logger(__name__)

_OPTIONS: dict[str, object] = {
    "enable.partition.eof": True,
    # Bounds the memory of a backlog; results are up to 16 MiB each.
    "queued.max.messages.kbytes": 8192,
    "fetch.max.bytes": 8 << 20,
    # When the queue is full: look again soon, not after the default second.
    "fetch.queue.backoff.ms": 20,
    "fetch.error.backoff.ms": 100,
}


@dataclass(slots=True)
class Polled:
    """What came: records, and the next offset of each partition that moved."""

    records: list[Record] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)
    # An offset that was passed already came again, or the topic is unknown: look at its id.
    suspicious: bool = False


def own_partitions(count: int, ordinal: int, replicas: int) -> list[int]:
    """Return the partitions that one of several mergers owns."""
    return [one for one in range(count) if one % replicas == ordinal]


def start_offsets(
    stored: Mapping[int, int], same_topic: bool, ends: Ends
) -> tuple[dict[int, int], list[int]]:
    """Return where to read each partition from, and those that are read from their start again.

    From the start where the topic is another one or ends below what is stored; from its low end where
    records were deleted above what is stored.
    """
    offsets: dict[int, int] = {}
    again: list[int] = []
    for one, high in ends.high.items():
        known = stored.get(one)
        if known is not None and (not same_topic or high < known):
            again.append(one)
            known = None
        offsets[one] = max(ends.low[one], known or 0)
    return offsets, again


class ResultsReader:
    """Reads records; of one thread. It never commits: the store holds the offsets."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self.errors = ErrorWatch()
        self._topic = topic
        self._consumer: Consumer = settings.reader(self.errors, **_OPTIONS)
        self._next: dict[int, int] = {}

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets on; what was fetched before is thrown away."""
        self._next = dict(offsets)
        self._consumer.assign([TopicPartition(self._topic, one, at) for one, at in offsets.items()])

    def poll(self, idle_s: float, gather_s: float, most: int) -> Polled:
        """Wait `idle_s` for the first record, then gather for `gather_s`, `most` records at most."""
        polled = Polled()
        first = self._consumer.consume(1, idle_s)
        for message in first:
            self._apply(message, polled)
        if first:
            for message in self._consumer.consume(most, gather_s):
                self._apply(message, polled)
        self.errors.check()
        return polled

    def lag(self) -> dict[int, int]:
        """Return how many records of each own partition are not polled, as far as the client knows."""
        behind = {}
        for one, at in self._next.items():
            try:
                known = self._consumer.get_watermark_offsets(TopicPartition(self._topic, one), cached=True)
            except KafkaException:
                continue
            if known is not None:
                behind[one] = max(0, known[1] - at)
        return behind

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _apply(self, message: Message, polled: Polled) -> None:
        error, record = message.error(), Record.of(message)
        expected = self._next.get(record.partition)
        if error is not None:
            self._note(error, record, expected, polled)
        elif expected is not None:
            polled.suspicious |= record.offset < expected
            self._move(record.partition, record.offset + 1, polled)
            polled.records.append(record)

    def _note(self, error: KafkaError, record: Record, expected: int | None, polled: Polled) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            # The end may lie above the last record: the ones between were deleted.
            if expected is not None and record.offset > expected:
                self._move(record.partition, record.offset, polled)
            return
        raise_if_fatal(error)
        polled.suspicious = True
        log.warning("read_error", partition=record.partition, error=error.str())

    def _move(self, partition: int, offset: int, polled: Polled) -> None:
        self._next[partition] = polled.offsets[partition] = offset
