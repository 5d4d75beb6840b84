"""The dead-letter topic: the original bytes and headers, and why they could not be used."""

from confluent_kafka import KafkaError, KafkaException, Producer

from prism.kafka.records import Headers, Record
from prism.messages.fleet import DEAD_DETAIL, DEAD_OFFSET, DEAD_PARTITION, DEAD_REASON, DEAD_TOPIC
from prism.messages.reasons import MessageReason

_MAX_DETAIL = 1000


def send_dead_letter(
    producer: Producer, topic: str, record: Record, reason: MessageReason, detail: str
) -> None:
    """Produce the record's original with its reason; the caller flushes before it commits.

    Of an original that no record can carry (packed, it could be larger) only the reason and the place go.
    """
    why: Headers = [
        (DEAD_REASON, reason.value.encode()),
        (DEAD_DETAIL, detail[:_MAX_DETAIL].encode("utf-8", "replace")),
        (DEAD_TOPIC, record.topic.encode()),
        (DEAD_PARTITION, str(record.partition).encode()),
        (DEAD_OFFSET, str(record.offset).encode()),
    ]
    try:
        _produce(producer, topic, record.message.key(), record.value, [*(record.headers_as_sent or []), *why])
    except KafkaException as error:
        if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
            raise
        _produce(producer, topic, None, None, why)


def _produce(
    producer: Producer, topic: str, key: str | bytes | None, value: bytes | None, headers: Headers
) -> None:
    while True:
        try:
            producer.produce(topic, key=key, value=value, headers=headers)
            return
        except BufferError:
            producer.poll(0.1)
