"""A collector of spans in this process's memory, and a trace printed as a tree.

    with Collector() as collector:
        …OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint…
        print(tree(collector.trace(trace_id)))

It takes OTLP over HTTP (protobuf) at /v1/traces, as a real one does. Source: OTLP 1.x, section "OTLP/HTTP".
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from prism.service import tracing
from prism.service.spans import OtlpTracer

_KINDS = ("", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """One span as a collector sees it. Times in ns; `links` are (trace id, span id)."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool
    resource: dict[str, Any] = field(repr=False)
    state: str = ""


def spans_of(request: ExportTraceServiceRequest) -> list[SeenSpan]:
    """Return the spans of an export."""
    found = []
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            found += [_span(resource, one) for one in scope.spans]
    return found


def spans_in(finished: Sequence[ReadableSpan]) -> list[SeenSpan]:
    """Return what an in-memory exporter holds, as a collector would see it."""
    return spans_of(encode_spans(finished))


def _span(resource: dict[str, Any], one: Sent) -> SeenSpan:
    return SeenSpan(
        service=resource.get("service.name", ""),
        name=one.name,
        kind=_KINDS[one.kind],
        trace_id=one.trace_id.hex(),
        span_id=one.span_id.hex(),
        parent_id=one.parent_span_id.hex(),
        began=one.start_time_unix_nano,
        ended=one.end_time_unix_nano,
        attributes=_attributes(one.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in one.links),
        failed=one.status.code == 2,
        resource=resource,
        state=one.trace_state,
    )


def _attributes(found: Iterable[KeyValue]) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in found}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


class Memory:
    """An in-memory exporter: this process's own spans, as long as the block lasts."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> list[SeenSpan]:
        """What has ended, in the order in which it began."""
        return sorted(spans_in(self._exporter.get_finished_spans()), key=lambda one: one.began)

    def __getitem__(self, name: str) -> SeenSpan:
        (found,) = (one for one in self.spans if one.name == name)
        return found

    def __enter__(self) -> Self:
        tracing.use(OtlpTracer(self._provider))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tracing.use(None)


class Collector:
    """Keeps the spans that are sent to it. `down` refuses them, `silent` never answers."""

    def __init__(self) -> None:
        self.down = False
        self.silent = threading.Event()
        self.asked = 0
        self._spans: list[SeenSpan] = []
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._take(self)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)

    @property
    def endpoint(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environ(self) -> dict[str, str]:
        """What a service needs to send here, soon after a span has ended."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    @property
    def spans(self) -> list[SeenSpan]:
        """Everything that came so far."""
        with self._lock:
            return list(self._spans)

    def trace(self, trace_id: str) -> list[SeenSpan]:
        """Return the spans of one trace."""
        return [one for one in self.spans if one.trace_id == trace_id]

    def named(self, name: str) -> list[SeenSpan]:
        """Return the spans of a name."""
        return [one for one in self.spans if one.name == name]

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            self.asked += 1
        if self.silent.is_set():
            threading.Event().wait(60.0)
        if self.down or handler.path != "/v1/traces":
            handler.send_error(503 if self.down else 404)
            return
        found = spans_of(ExportTraceServiceRequest.FromString(body))
        with self._lock:
            self._spans += found
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def tree(spans: Sequence[SeenSpan]) -> str:
    """Return spans as a tree: each under its parent, in the order in which they began."""
    known = {one.span_id for one in spans}
    roots = [one for one in spans if one.parent_id not in known]
    first = min((one.began for one in spans), default=0)
    lines: list[str] = []
    for root in sorted(roots, key=lambda one: one.began):
        if root.parent_id:
            lines.append(f"(a span of the sender's, {root.parent_id})")
        _branch(root, spans, first, "└─ " if root.parent_id else "", "   " if root.parent_id else "", lines)
    return "\n".join(lines)


def _branch(
    span: SeenSpan, spans: Sequence[SeenSpan], first: int, mark: str, indent: str, lines: list[str]
) -> None:
    told = f"{mark}{span.name}"
    who = span.service.removeprefix("prism-")
    links = f"  {len(span.links)} links" if span.links else ""
    began, took = (span.began - first) / 1e6, (span.ended - span.began) / 1e6
    error = f"  error.type={span.attributes.get('error.type')}" if span.failed else ""
    lines.append(f"{told:<44} {who:<12} {began:>8.1f} ms + {took:>7.1f} ms{_what(span)}{links}{error}")
    below = sorted((one for one in spans if one.parent_id == span.span_id), key=lambda one: one.began)
    for number, one in enumerate(below, 1):
        last = number == len(below)
        next_mark, next_indent = ("└─ ", "   ") if last else ("├─ ", "│  ")
        _branch(one, spans, first, indent + next_mark, indent + next_indent, lines)


def _what(span: SeenSpan) -> str:
    shown = (
        "messaging.kafka.message.key",
        "messaging.batch.message_count",
        "gen_ai.usage.output_tokens",
        "prism.rows",
        "prism.first_row",
    )
    found = [
        f"{name.rpartition('.')[2]}={span.attributes[name]}" for name in shown if name in span.attributes
    ]
    return "  " + " ".join(found) if found else ""
