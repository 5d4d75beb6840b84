"""Everything that lies in topics at this moment, for tests that ask again and again.

A read goes to the end that the broker names when it begins. A poll of some milliseconds is not enough: a
reader that has just connected finds nothing in them, on a slow machine, and "nothing" passes for an answer.
"""

import contextlib
import time
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from prism.kafka.records import Record

_END_S = 2.0
_READ_S = 10.0


class TopicReaders:
    """One reader for each topic, made when it is asked for."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._readers: dict[str, _Reader] = {}

    def records(self, topic: str) -> list[Record]:
        """Return every record of a topic so far, those of a partition in their order."""
        if topic not in self._readers:
            self._readers[topic] = _Reader(self._bootstrap, topic)
        return self._readers[topic].records()

    def close(self) -> None:
        """Close every reader."""
        for reader in self._readers.values():
            reader.close()


class _Reader:
    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "test-reader",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        self._topic = topic
        self._partitions: list[TopicPartition] = []
        self._next: dict[int, int] = {}
        self._seen: list[Record] = []

    def _find(self) -> None:
        """Begin with the topic once the broker knows of it: one that was just made has nothing yet."""
        known: Any = self._consumer.list_topics(self._topic, 10).topics[self._topic].partitions
        self._partitions = [TopicPartition(self._topic, one, 0) for one in known]
        self._next = {one.partition: 0 for one in self._partitions}
        self._consumer.assign(self._partitions)

    def records(self) -> list[Record]:
        if not self._partitions:
            self._find()
        ends = self._ends()
        deadline = time.monotonic() + _READ_S
        self._read()
        while any(self._next[one] < end for one, end in ends.items()) and time.monotonic() < deadline:
            self._read()
        return self._seen

    def _ends(self) -> dict[int, int]:
        """The end of each partition that holds anything; none of them while the broker is away."""
        ends = {}
        with contextlib.suppress(KafkaException):
            for one in self._partitions:
                low, high = self._consumer.get_watermark_offsets(one, _END_S)
                if low < high:
                    ends[one.partition] = high
        return ends

    def _read(self) -> None:
        for message in self._consumer.consume(1000, 0.02):
            if message.error() is None:
                record = Record.of(message)
                self._next[record.partition] = record.offset + 1
                self._seen.append(record)

    def close(self) -> None:
        self._consumer.close()
