"""What an earlier ingestor has fed and the workers have not finished, read from `prism.batches` itself."""

import re

from confluent_kafka import KafkaError, TopicPartition

from prism.kafka.clients import ErrorWatch, KafkaSettings, receive
from prism.kafka.errors import BrokerAway, raise_if_fatal
from prism.kafka.records import Record
from prism.runs.tracker import BrokerView, Place

_SILENCE_S = 10.0
_SEQUENCE = re.compile(r"[0-9]{1,15}")

Found = dict[str, dict[str, dict[int, Place]]]


def fed_batches(kafka: KafkaSettings, topic: str, view: BrokerView) -> Found:
    """Return run → label → sequence → place of every batch above what the workers have committed.

    Bounded by the credit windows of the unended runs. Raises BrokerAway.
    """
    starts = {
        one: max(view.low.get(one, 0), min(view.committed.get(one, 0), high))
        for one, high in view.high.items()
    }
    open_ends = {one: high for one, high in view.high.items() if starts[one] < high}
    found: Found = {}
    if not open_ends:
        return found
    errors = ErrorWatch()
    consumer = kafka.reader(errors, **{"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, one, starts[one]) for one in open_ends])
        while open_ends:
            messages = receive(consumer, 500, _SILENCE_S)
            if not messages:
                raise BrokerAway(f"{topic} was not read to its end")
            for message in messages:
                error = message.error()
                raise_if_fatal(error)
                if error is None:
                    _note(found, open_ends, Record.of(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    # The last offsets may be no records (a foreign transaction's marks).
                    open_ends.pop(Record.of(message).partition, None)
    finally:
        consumer.close()
    return found


def _note(found: Found, open_ends: dict[int, int], record: Record) -> None:
    run_id, _, rest = record.key.partition("/")
    label, _, sequence = rest.partition("/")
    if _SEQUENCE.fullmatch(sequence):
        found.setdefault(run_id, {}).setdefault(label, {})[int(sequence)] = (record.partition, record.offset)
    if record.offset + 1 >= open_ends.get(record.partition, 0):
        open_ends.pop(record.partition, None)
