"""What leaves the merger through the broker: progress, announcements, dead letters."""

from typing import Protocol

from confluent_kafka import KafkaError, Message, Producer

from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.dead_letters import send_dead_letter
from prism.kafka.errors import BrokerAway, failure, raise_if_fatal
from prism.kafka.records import Record, event_headers
from prism.messages import MessageReason, OutputPublished, Progress, Topics, TraceContext
from prism.service import fault, tracing
from prism.service.logs import get_logger

log = get_logger(__name__)

# A broker that is away must not fill the memory with progress that the next message makes stale.
_MOST_QUEUED = 2_000
_SETTLE_S = 5.0


class Outlet(Protocol):
    """Where messages go; a test keeps them."""

    def progress(self, progress: Progress) -> None:
        """Send a run's progress; it may be lost, the next one says the same."""

    def announce(self, event: OutputPublished, parent: tracing.Parent = None) -> None:
        """Send that a file is published; `parent`: what its span belongs under."""

    def dead_letter(self, record: Record, reason: MessageReason, detail: str) -> None:
        """Send what cannot be used."""

    def settle(self) -> None:
        """Wait until the broker has acknowledged everything. Raise BrokerAway if it does not."""


class KafkaOutlet:
    """The producer of one merger; of one thread."""

    def __init__(self, settings: KafkaSettings, topics: Topics, source: str) -> None:
        self.errors = ErrorWatch()
        self._producer: Producer = settings.producer(self.errors)
        self._topics = topics
        self._source = source
        self._sent = 0
        self._refused: KafkaError | None = None

    def progress(self, progress: Progress) -> None:
        """Send a run's progress; it may be lost, the next one says the same."""
        self._producer.poll(0)
        if len(self._producer) > _MOST_QUEUED:
            return
        self._sent += 1
        ce_id = f"{progress.run_id}/progress/{progress.updated_at}/{self._sent}"
        self._produce(
            self._topics.progress, progress.run_id, progress.to_bytes(), "progress", ce_id, progress.run_id,
            passes="merger.after_progress",
        )  # fmt: skip

    def announce(self, event: OutputPublished, parent: tracing.Parent = None) -> None:
        """Send that a file is published, under the id that this file has at every sending."""
        name = f"{event.run_id}/{event.label}/{event.format}"
        span = tracing.send(self._topics.outputs, parent, {"messaging.kafka.message.key": name})
        trace = parent if isinstance(parent, TraceContext) else None
        self._produce(
            self._topics.outputs, name, event.to_bytes(), "output", name, event.run_id,
            trace=span.context or trace, span=span,
        )  # fmt: skip

    def dead_letter(self, record: Record, reason: MessageReason, detail: str) -> None:
        """Send what cannot be used."""
        send_dead_letter(self._producer, self._topics.dead_letter, record, reason, detail)

    def settle(self) -> None:
        """Wait until the broker has acknowledged everything. Raise BrokerAway if it does not."""
        self.errors.check()
        waiting = self._producer.flush(_SETTLE_S)
        self.errors.check()
        if waiting:
            raise BrokerAway(f"{waiting} records are not acknowledged after {_SETTLE_S:.0f} s")
        refused, self._refused = self._refused, None
        if refused is not None:
            raise failure("a record was not accepted", refused)

    def poll(self) -> None:
        """Serve delivery reports. Raise BrokerFatal if the producer cannot go on."""
        self._producer.poll(0)
        self.errors.check()
        raise_if_fatal(self._refused, "write progress or announcements")

    def _produce(
        self,
        topic: str,
        key: str,
        value: bytes,
        kind: str,
        ce_id: str,
        run_id: str,
        passes: str = "",
        trace: TraceContext | None = None,
        span: tracing.Span = tracing.OFF,
    ) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refused = error
                log.error("not_delivered", topic=message.topic(), run=run_id, error=error.str())
                span.fail(error.name())
            elif passes:
                fault.point(passes, run_id)
            span.delivered(message)

        headers = event_headers(kind, ce_id, self._source, run_id, trace)
        self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
