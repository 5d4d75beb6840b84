"""The dead-letter topic: the original bytes and headers, and why they could not be used."""

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from prism.kafka.errors import BrokerFatal, raise_if_fatal
from prism.kafka.records import Headers, Record
from prism.messages.fleet import DEAD_DETAIL, DEAD_OFFSET, DEAD_PARTITION, DEAD_REASON, DEAD_TOPIC
from prism.messages.reasons import MessageReason

_MAX_DETAIL = 1000
# An original may have 16 MiB, and waits in memory for its acknowledgement.
_CROWDED_BYTES = 32 * 1024 * 1024

Delivered = Callable[[KafkaError | None, Message], None]


class DeadLetters:
    """Buries records through a service's own producer, without waiting for the broker.

    Argument. A buried record counts as done once the broker has acknowledged its letter: `done` is called
    then, from within the producer's `poll` or `flush`, and not before may the record's offset be committed.
    A process that dies in between leaves a record that is read and buried once more; none is lost.
    """

    def __init__(
        self,
        producer: Producer,
        topic: str,
        count: Callable[[MessageReason], None],
        warn: Callable[..., None],
        bear: Callable[[KafkaError, str], object] = raise_if_fatal,
    ) -> None:
        """`count(reason)` and `warn(action, **values)` hear of each letter: a metric and a log.

        `bear(error, what)` hears why one cannot be written: true where it may be later, see `send_again`.
        """
        # Letters that are not acknowledged.
        self.waiting = 0
        self._bear = bear
        self._unsent: list[Callable[[], None]] = []
        self._bytes = 0
        self._producer = producer
        self._topic = topic
        self._count = count
        self._warn = warn

    @property
    def crowded(self) -> bool:
        """Whether so much waits that its reader should read no more for now."""
        return self._bytes > _CROWDED_BYTES

    def send(self, record: Record, reason: MessageReason, detail: str, done: Callable[[], object]) -> None:
        """Bury a record; `done` is called once that is durable.

        Where the broker refuses the letter for good, this or the callback raises BrokerFatal.
        """
        place, size = f"{record.topic}/{record.partition}/{record.offset}", len(record.value or b"")
        why = _why(record, reason, detail)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                # What the client let pass may be too large for the broker once it is packed.
                self._producer.produce(self._topic, headers=why, on_delivery=settled)
            else:
                settled(error, message)

        def settled(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                not_written(error)
                return
            self.waiting -= 1
            self._bytes -= size
            done()

        def not_written(error: KafkaError) -> None:
            if not self._bear(error, f"write the dead letter of {place}"):
                # Delivery is tried without end: what fails all the same fails for good.
                raise BrokerFatal(f"the dead letter of {place} cannot be written: {error.str()}") from None
            self._unsent.append(write)

        def write() -> None:
            try:
                send_dead_letter(self._producer, self._topic, record, reason, detail, delivered)
            except KafkaException as error:
                not_written(error.args[0])

        self._count(reason)
        self._warn(
            "dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=reason,
            detail=detail,
        )
        self.waiting += 1
        self._bytes += size
        write()

    def send_again(self) -> None:
        """Send what was refused, now that it may be allowed again."""
        unsent, self._unsent = self._unsent, []
        for write in unsent:
            write()


def send_dead_letter(
    producer: Producer,
    topic: str,
    record: Record,
    reason: MessageReason,
    detail: str,
    on_delivery: Delivered | None = None,
) -> None:
    """Produce the record's original with its reason; its offset must not be committed before it is there.

    Of an original that no record can carry (packed, it could be larger) only the reason and the place go.
    """
    why = _why(record, reason, detail)
    headers = [*(record.headers_as_sent or []), *why]
    try:
        _produce(producer, topic, record.message.key(), record.value, headers, on_delivery)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
            raise
        _produce(producer, topic, None, None, why, on_delivery)


def _why(record: Record, reason: MessageReason, detail: str) -> Headers:
    return [
        (DEAD_REASON, reason.value.encode()),
        (DEAD_DETAIL, detail[:_MAX_DETAIL].encode("utf-8", "replace")),
        (DEAD_TOPIC, record.topic.encode()),
        (DEAD_PARTITION, str(record.partition).encode()),
        (DEAD_OFFSET, str(record.offset).encode()),
    ]


def _produce(
    producer: Producer,
    topic: str,
    key: str | bytes | None,
    value: bytes | None,
    headers: Headers,
    on_delivery: Delivered | None,
) -> None:
    while True:
        try:
            producer.produce(topic, key=key, value=value, headers=headers, on_delivery=on_delivery)
            return
        except BufferError:
            producer.poll(0.1)
