"""Producers, consumers and admin clients, configured in one place.

Every producer is idempotent with acks=all and retries without end: a record is either acknowledged
by the broker or still on its way, and nothing upstream is recorded as done before the former.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from prism.kafka.errors import BrokerAway, BrokerFatal, BrokerRefused, is_fatal, refused, said
from prism.messages.topics import FRAMING_BYTES, INTAKE_MAX_BYTES, READER_GROUP

_COMMON: dict[str, str | int | bool] = {
    # Come back soon after a broker's restart; the default waits up to 10 s.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "socket.keepalive.enable": True,
    "log.connection.close": False,
}
# What librdkafka has to say goes through the process's own log, not raw to stderr.
_LOGGER = logging.getLogger("librdkafka")
# A broker that is not heard of for so long is away, whatever its connection says (promise 10: 10 s).
_SILENCE_S = 6.0
# A connection that is lost and found again is no outage.
_BLIP_S = 3.0


class _NotEachAttempt(logging.Filter):
    """Passes one line per client and kind in 30 s: an outage makes twenty a second and client."""

    def __init__(self, every_s: float = 30.0) -> None:
        super().__init__()
        self._every_s = every_s
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        # `FAIL [client#consumer-1] [thrd:…]: …`: kind and client are what stands before the second bracket.
        kind = record.getMessage().split("[thrd:")[0]
        if record.created - self._passed.get(kind, 0.0) < self._every_s:
            return False
        if len(self._passed) > 1000:
            self._passed.clear()
        self._passed[kind] = record.created
        return True


_LOGGER.addFilter(_NotEachAttempt())


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the broker. `properties` are librdkafka's own and win over the defaults here."""

    bootstrap: str
    client_id: str
    properties: Mapping[str, str] = field(default_factory=dict)

    def _config(self, *layers: Mapping[str, object]) -> dict[str, object]:
        config: dict[str, object] = {
            **_COMMON,
            "bootstrap.servers": self.bootstrap,
            "client.id": self.client_id,
            "logger": _LOGGER,
        }
        for layer in layers:
            config.update(layer)
        config.update(self.properties)
        return config

    def producer(self, on_error: Callable[[KafkaError], None], **extra: object) -> Producer:
        """Return an idempotent producer; `on_error` hears of broker outages and fatal errors."""
        defaults = {
            "enable.idempotence": True,
            "acks": "all",
            # Without end: an outage of the broker delays records, it does not lose them.
            "message.timeout.ms": 0,
            "linger.ms": 2,
            "compression.type": "lz4",
            "message.max.bytes": INTAKE_MAX_BYTES + FRAMING_BYTES,
            "retry.backoff.ms": 20,
            "error_cb": on_error,
        }
        return Producer(self._config(defaults, extra))

    def group_consumer(self, group: str, on_error: Callable[[KafkaError], None], **extra: object) -> Consumer:
        """Return a member of a group; offsets are committed by the caller alone."""
        defaults = {
            "group.id": group,
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            # Measured: a SIGKILLed member's work goes on elsewhere after 5 s (DESIGN.md section 7).
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1500,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "error_cb": on_error,
        }
        return Consumer(self._config(defaults, extra))

    def reader(self, on_error: Callable[[KafkaError], None], **extra: object) -> Consumer:
        """Return a consumer for manual assignment that never commits."""
        defaults = {
            # librdkafka wants a group id even where nothing joins a group, and asks for its coordinator:
            # one name for all, so that an ACL can name it.
            "group.id": READER_GROUP,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "error_cb": on_error,
        }
        return Consumer(self._config(defaults, extra))

    def admin(self, **extra: object) -> AdminClient:
        """Return an admin client. Keep the reference until its futures are done."""
        return AdminClient(self._config(extra))  # type: ignore[arg-type]  # its stub is narrower than the client


class ErrorWatch:
    """Collects what a client's callbacks say, for the thread that owns the client.

    Raising inside a librdkafka callback is lost or worse; `check` raises in the owner's own loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fatal: KafkaError | None = None
        self._heard_at = clock()
        self.last: KafkaError | None = None
        self.all_brokers_down = False
        # What the last connection that failed said.
        self.trouble = ""
        # Why the broker does not let us in; None while it does, or is merely away.
        self.refusal: str | None = None

    def __call__(self, error: KafkaError) -> None:
        self.last = error
        if is_fatal(error):
            self._fatal = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.all_brokers_down = True
        else:
            told = refused("Kafka client", error)
            self.refusal = str(told) if told is not None else self.refusal
            self.trouble = said(error)

    def on_statistics(self, text: str) -> None:
        """Take in librdkafka's statistics: the only place where a broker that came back shows.

        Source: librdkafka STATISTICS.md; `rxidle`: µs since something was received.
        """
        brokers = json.loads(text).get("brokers", {}).values()
        up = [one["rxidle"] / 1e6 for one in brokers if one.get("state") == "UP" and one["rxidle"] >= 0]
        silence_s = min(up, default=_SILENCE_S)
        self.all_brokers_down = silence_s >= _SILENCE_S
        if not self.all_brokers_down:
            self._heard_at = max(self._heard_at, self._clock() - silence_s)
            self.refusal = None

    @property
    def away(self) -> str | None:
        """Why nothing comes from the broker; None while something does."""
        if not self.all_brokers_down or self._clock() - self._heard_at < _BLIP_S:
            return None
        return self.refusal or "no Kafka broker answers"

    def check(self) -> None:
        """Raise BrokerFatal if the client cannot go on."""
        if self._fatal is not None:
            raise BrokerFatal(f"Kafka client: {self._fatal.str()}")


def receive(consumer: Consumer, most: int, timeout_s: float) -> list[Message]:
    """Return what has come, waiting at most `timeout_s` for the first message.

    `consume(n, t)` alone waits for all n of them, or for the whole time.
    """
    try:
        first = consumer.poll(timeout_s)
        if first is None:
            return []
        return [first, *consumer.consume(most - 1, 0)] if most > 1 else [first]
    except SystemError:
        # Ctrl-C while a callback runs: confluent-kafka 2.16 loses the exception and says just that.
        raise KeyboardInterrupt from None


def first_contact(
    settings: KafkaSettings, timeout_s: float, on_refusal: Callable[[str], None] = lambda _: None
) -> str:
    """Return the cluster's id.

    Raise BrokerAway if nobody answers within the time, BrokerRefused if one does not let us in. That takes a
    second refusal, since a broker that is starting or stopping breaks handshakes off, too; `on_refusal` hears
    of the first.
    """
    watch = ErrorWatch()
    admin = settings.admin(error_cb=watch)
    deadline, patience_s, before = time.monotonic() + timeout_s, 1.0, False
    while True:
        left_s = deadline - time.monotonic()
        try:
            return str(admin.list_topics(timeout=max(0.1, min(patience_s, left_s))).cluster_id or "")
        except KafkaException as error:
            admin.poll(0)
            if watch.refusal is not None:
                if before:
                    raise BrokerRefused(f"{settings.bootstrap}: {watch.refusal}") from None
                on_refusal(watch.refusal)
            if left_s <= patience_s:
                raise BrokerAway(_no_answer(settings.bootstrap, error.args[0], watch)) from None
        before, patience_s = watch.refusal is not None, patience_s * 2


def _no_answer(bootstrap: str, error: KafkaError, watch: ErrorWatch) -> str:
    # A plain client at a TLS port is hung up on, and told nothing.
    cause = watch.refusal or watch.trouble or f"{error.str()}; does it want TLS? KAFKA_SECURITY_PROTOCOL"
    # A TLS client at a plain port is hung up on, as by a broker that stops: librdkafka guesses.
    cause += "; does it speak TLS there? KAFKA_SECURITY_PROTOCOL" if "PLAINTEXT" in cause else ""
    return f"no Kafka broker answers at {bootstrap}: {cause}"
