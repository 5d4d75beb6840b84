"""The dead-letter topic: the original bytes and headers, and why they could not be used."""

from confluent_kafka import Producer

from prism.kafka.records import Record
from prism.messages.fleet import DEAD_DETAIL, DEAD_OFFSET, DEAD_PARTITION, DEAD_REASON, DEAD_TOPIC
from prism.messages.reasons import MessageReason


def send_dead_letter(
    producer: Producer, topic: str, record: Record, reason: MessageReason, detail: str
) -> None:
    """Produce the record's original with its reason; the caller flushes before it commits."""
    headers = [
        *record.headers_as_sent,
        (DEAD_REASON, reason.value.encode()),
        (DEAD_DETAIL, detail.encode()),
        (DEAD_TOPIC, record.topic.encode()),
        (DEAD_PARTITION, str(record.partition).encode()),
        (DEAD_OFFSET, str(record.offset).encode()),
    ]
    producer.produce(topic, key=record.message.key(), value=record.value, headers=headers)
