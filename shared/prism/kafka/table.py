"""Compacted topics read as tables: from the beginning, then as they change.

`caught_up` becomes true once everything that was there at the start has been applied; before that
what the tables show is the past, and nobody may act on it.
"""

from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from prism.kafka.admin import Ends, partition_count, topic_ends
from prism.kafka.clients import ErrorWatch, KafkaSettings, receive
from prism.kafka.errors import TopicAbsent, raise_if_fatal
from prism.kafka.records import Record

Handler = Callable[[Record], None]


class TableReader:
    """Feeds each record of some topics to the topic's handler, in partition order."""

    def __init__(
        self,
        settings: KafkaSettings,
        handlers: Mapping[str, Handler],
        on_error: Callable[[KafkaError], object] = raise_if_fatal,
    ) -> None:
        """`on_error` hears what the broker says instead of records, and may raise."""
        self.errors = ErrorWatch()
        self._on_error = on_error
        self._handlers = dict(handlers)
        self._admin = settings.admin()
        self._consumer: Consumer = settings.reader(
            self.errors,
            **{
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 4096,
                # A fetch is answered as soon as anything comes: a short wait would only cost the broker.
                "fetch.wait.max.ms": 500,
                # It always fetches, so it knows best whether the broker is there.
                "statistics.interval.ms": 1000,
                "stats_cb": self.errors.on_statistics,
            },
        )
        self._pending: dict[tuple[str, int], int] = {}
        self._reached: dict[tuple[str, int], int] = {}
        self._start()

    def _start(self) -> None:
        counts = {name: partition_count(self._admin, name) for name in self._handlers}
        absent = [name for name, count in counts.items() if not count]
        if absent:
            raise TopicAbsent(f"topic {absent[0]} is not there")
        ends = self._expect(counts)
        # By number: "from the beginning" would make librdkafka ask again, half a second later.
        self._consumer.assign(
            [TopicPartition(name, one, low) for name in ends for one, low in ends[name].low.items()]
        )

    def _expect(self, counts: Mapping[str, int]) -> dict[str, Ends]:
        found = {name: topic_ends(self._admin, name, range(count)) for name, count in counts.items()}
        for name, ends in found.items():
            for one, high in ends.high.items():
                if high > max(ends.low[one], self._reached.get((name, one), 0)):
                    self._pending[name, one] = high
        return found

    @property
    def caught_up(self) -> bool:
        """Whether all that was there at the start (or at the last `expect_end`) has been applied."""
        return not self._pending

    def expect_end(self) -> None:
        """Ask where the topics end now: `caught_up` is false until that point is applied."""
        self._expect({name: partition_count(self._admin, name) for name in self._handlers})

    def poll(self, timeout_s: float, most: int = 500) -> int:
        """Apply what has come, waiting at most `timeout_s` for the first; return how many records."""
        applied = 0
        for message in receive(self._consumer, most, timeout_s):
            error, record = message.error(), Record.of(message)
            if error is None:
                self._handlers[record.topic](record)
                self._passed(record, record.offset + 1)
                applied += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Compaction may have taken the very last offsets: reaching the end is what counts.
                self._passed(record, record.offset)
            else:
                self._on_error(error)
        self.errors.check()
        return applied

    def _passed(self, record: Record, position: int) -> None:
        place = (record.topic, record.partition)
        self._reached[place] = position
        if place in self._pending and position >= self._pending[place]:
            del self._pending[place]

    @property
    def broker_away(self) -> bool:
        """Whether no broker has been heard of for some seconds."""
        return self.errors.away is not None

    @property
    def away_reason(self) -> str | None:
        """Why no broker has been heard of; None while one is."""
        return self.errors.away

    def close(self) -> None:
        """Leave."""
        self._consumer.close()
