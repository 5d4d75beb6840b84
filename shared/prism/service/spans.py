"""OpenTelemetry behind `tracing`: imported only where spans are sent.

Sampling, resource, queue and exporter are the SDK's own, set by the standard OTEL_ variables.
"""

import logging
import threading
from collections.abc import Sequence
from importlib import metadata
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from prism.messages.trace import TraceContext
from prism.service.logs import get_logger
from prism.service.tracing import Attributes, Delivered, Kind, Parent, Span, place_of

log = get_logger(__name__)

_KINDS = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.CLIENT: SpanKind.CLIENT,
    Kind.PRODUCER: SpanKind.PRODUCER,
    Kind.CONSUMER: SpanKind.CONSUMER,
}
# Of a collector that is away `_Outbox` speaks once; of a sender's bad `tracestate` they would with each one,
# and of a header that is none they would tell the token.
_SILENT = ("opentelemetry.exporter", "opentelemetry.trace.span", "opentelemetry.util.re")
_NOBODY = trace.set_span_in_context(trace.INVALID_SPAN)


class OtlpSpan(Span):
    """One span of OpenTelemetry's."""

    __slots__ = ("recording", "span")

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self.recording = span.is_recording()

    @property
    def context(self) -> TraceContext | None:
        found = self.span.get_span_context()
        parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags & 1:02x}"
        return TraceContext(parent, found.trace_state.to_header() or None)

    def set(self, attributes: Attributes) -> None:
        self.span.set_attributes(attributes)

    def link(self, other: Span) -> None:
        if isinstance(other, OtlpSpan):
            self.span.add_link(other.span.get_span_context())

    def fail(self, kind: str) -> None:
        self.span.set_attribute("error.type", kind)
        self.span.set_status(Status(StatusCode.ERROR))

    def end(self, attributes: Attributes | None = None) -> None:
        if self.span.is_recording():
            if attributes:
                self.span.set_attributes(attributes)
            self.span.end()

    def delivered(self, message: Delivered) -> None:
        self.end(place_of(message.partition(), message.offset()))


class OtlpTracer:
    """Makes spans by a provider of the SDK's."""

    def __init__(self, provider: TracerProvider, outbox: "_Outbox | None" = None) -> None:
        self._provider = provider
        self._outbox = outbox
        self._tracer = provider.get_tracer("prism")

    @classmethod
    def to_collector(cls, service: str, instance: str, endpoint: str) -> Self:
        """Return what sends to the collector that the environment names; `endpoint`: how the log calls it."""
        for name in _SILENT:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        provider = TracerProvider(resource=resource_of(service, instance), shutdown_on_exit=False)
        outbox = _Outbox(OTLPSpanExporter(), endpoint)
        provider.add_span_processor(BatchSpanProcessor(outbox))
        return cls(provider, outbox)

    def start(
        self,
        name: str,
        kind: Kind,
        parent: Parent,
        attributes: Attributes,
        links: Sequence[Span | TraceContext] = (),
    ) -> Span:
        contexts = [_context(one) for one in links]
        # Without a context of ours the SDK would look for one of the thread's.
        within = _NOBODY if parent is None else _within(parent)
        made = self._tracer.start_span(
            name,
            within,
            _KINDS[kind],
            attributes,
            links=[Link(one) for one in contexts if one is not None],
            record_exception=False,
        )
        return OtlpSpan(made)

    def close(self, timeout_s: float) -> None:
        ended = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        ended.start()
        ended.join(timeout_s)
        if ended.is_alive():
            log.warning("last_spans_not_sent", waited_s=timeout_s)
            if self._outbox is not None:
                self._outbox.closed = True  # nobody is there any more to hear of it


class _Outbox(SpanExporter):
    """An exporter that says when its collector is away and when it is back, and nothing in between."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = 0
        self.closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            done = self._exporter.export(spans)
        except Exception as error:  # whatever a collector answers, it stops nothing here
            done = SpanExportResult.FAILURE
            log.debug("spans_not_sent", error=error)
        if done is not SpanExportResult.SUCCESS:
            if not self._lost and not self.closed:
                log.warning("spans_not_sent", endpoint=self._endpoint, spans=len(spans), next="look after it")
            self._lost += len(spans)
        elif self._lost:
            log.info("spans_sent_again", endpoint=self._endpoint, lost=self._lost)
            self._lost = 0
        return done

    def shutdown(self) -> None:
        self._exporter.shutdown()


def resource_of(service: str, instance: str) -> Resource:
    """Return who makes the spans; what the environment says of it goes before."""
    try:
        version = metadata.version(service)
    except metadata.PackageNotFoundError:
        version = "unknown"
    ours = {
        "service.name": service,
        "service.namespace": "prism",
        "service.instance.id": instance,
        "service.version": version,
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _context(one: Span | TraceContext) -> SpanContext | None:
    if isinstance(one, OtlpSpan):
        return one.span.get_span_context()
    if not isinstance(one, TraceContext):
        return None
    _, trace_id, span_id, flags = one.parent.split("-")
    state = TraceState.from_header([one.state]) if one.state else TraceState()
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)


def _within(parent: Span | TraceContext) -> Context:
    if isinstance(parent, OtlpSpan):
        return trace.set_span_in_context(parent.span, _NOBODY)
    found = _context(parent)
    return _NOBODY if found is None else trace.set_span_in_context(trace.NonRecordingSpan(found), _NOBODY)
