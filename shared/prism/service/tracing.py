"""Spans, by OpenTelemetry's conventions; none, and at no cost, unless a collector is named.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318

What a service knows of tracing is here and needs no OpenTelemetry; what does is in `spans`, and is imported
only where an endpoint is set. A service begins a span at its edges (a record that came, a record that goes, a
call, a slow step), never for a row, and hands it on with the work; contexts are passed, not looked up.

Argument. No work waits for its spans, and none fails for them. A span that ends goes into a queue that has an
end, and beyond it is dropped; one daemon thread sends. A collector that is away costs that thread its time
alone. At the end of the process what is left has CLOSE_S seconds, within the drain.

Sources: OpenTelemetry semantic conventions for messaging (spans, Kafka) and for generative AI (client spans).
No text of a row, a prompt, a request or an answer is an attribute, nor who asked.
"""

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values

from prism.messages.trace import TraceContext
from prism.service.logs import get_logger

log = get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
# Of what is no such pair the SDK would log the value, and that is a token.
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+\s*=.*", re.ASCII)
# For the spans that are left at the end: a collector that answers takes them in a fraction of it.
CLOSE_S = 2.0
# Of a run's batches so many, evenly spread, are in the run's own trace; each other one has its own.
BATCHES_IN_RUN = 100

Attributes = Mapping[str, str | int | float | bool]


class Kind(Enum):
    """What a span is to those before and behind it."""

    INTERNAL = "internal"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span:
    """A span that is under way. This one is none: everybody's, while nothing is traced.

    recording: whether it will be seen; if not, nothing need be found out for it. context: what goes into a
    record's headers; None while nothing is traced.
    """

    __slots__ = ()
    recording = False

    @property
    def context(self) -> TraceContext | None:
        return None

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def link(self, other: "Span") -> None:
        """Say that another span has to do with this one and is not its parent."""

    def fail(self, kind: str) -> None:
        """Say that it went wrong: `kind` is a typed reason, never a text from outside."""

    def end(self, attributes: Attributes | None = None) -> None:
        """End it. Only the first call counts."""

    def delivered(self, message: "Delivered") -> None:
        """End the span of a record that was sent, now that the broker has it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__.lstrip("_"))
        self.end()


OFF = Span()
Parent = Span | TraceContext | None


class Tracer(Protocol):
    """What makes spans; any thread may ask it."""

    def start(
        self,
        name: str,
        kind: Kind,
        parent: Parent,
        attributes: Attributes,
        links: Sequence[Span | TraceContext] = (),
    ) -> Span:
        """Return a span that has begun. Without a parent it begins a trace."""
        ...

    def close(self, timeout_s: float) -> None:
        """Send what is left, for so many seconds at most."""
        ...


class Received(Protocol):
    """A record that came, as far as a span shows it."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...


class Delivered(Protocol):
    """A record that the broker has."""

    def partition(self) -> int | None: ...

    def offset(self) -> int | None: ...


_tracer: Tracer | None = None


def is_on() -> bool:
    """Return whether there are spans: whoever has to find something out for one asks first."""
    return _tracer is not None


def use(tracer: Tracer | None) -> None:
    """Trace with `tracer` from now on; None: no more."""
    global _tracer
    _tracer = tracer


def configure(service: str, instance: str, environ: MutableMapping[str, str] | None = None) -> None:
    """Begin to trace if the environment (or `./.env`, below it) names an endpoint.

    service: `service.name` unless the environment says another. What hinders tracing is one line in the log.
    """
    if environ is None:
        environ = os.environ
        _take_from_file(environ, Path(".env"))
    endpoint = _endpoint(environ)
    if endpoint is None:
        return
    reason = _objection(endpoint, environ)
    if reason is None:
        try:
            from prism.service.spans import OtlpTracer

            tracer = OtlpTracer.to_collector(service, instance, _shown(endpoint))
        except ImportError as error:
            reason = f"{error}: install the extra `tracing` (prism-{service.removeprefix('prism-')}[tracing])"
        except Exception as error:  # an OTEL_ variable that the SDK refuses, at its import or later
            reason = str(error)
        else:
            use(tracer)
            log.info("tracing_on", endpoint=_shown(endpoint))
            return
    log.warning("tracing_off", endpoint=_shown(endpoint), reason=reason)


def close(timeout_s: float = CLOSE_S) -> None:
    """Send what is left, within so many seconds, and trace no more."""
    tracer = _tracer
    use(None)
    if tracer is not None:
        tracer.close(timeout_s)


def process(record: Received, parent: Parent, attributes: Attributes | None = None) -> Span:
    """Begin the span of a record that came: until what it asks for is durable."""
    if _tracer is None:
        return OFF
    about: dict[str, str | int | float | bool] = {
        **_messaging(record.topic, "process", "process"),
        **place_of(record.partition, record.offset),
    }
    return _tracer.start(f"process {record.topic}", Kind.CONSUMER, parent, {**about, **(attributes or {})})


def send(
    topic: str,
    parent: Parent,
    attributes: Attributes | None = None,
    links: Sequence[Span | TraceContext] = (),
) -> Span:
    """Begin the span of a record that goes out, until the broker has it; its context goes along."""
    if _tracer is None:
        return OFF
    about = {**_messaging(topic, "send", "send"), **(attributes or {})}
    return _tracer.start(f"send {topic}", Kind.PRODUCER, parent, about, links)


def commit(topic: str, parent: Parent, attributes: Attributes, links: Sequence[Span | TraceContext]) -> Span:
    """Begin the span in which several records become durable together."""
    if _tracer is None:
        return OFF
    about = {**_messaging(topic, "commit", "settle"), **attributes}
    return _tracer.start(f"commit {topic}", Kind.INTERNAL, parent, about, links)


def chat(parent: Span, provider: str, model: str, address: str, attributes: Attributes) -> Span:
    """Begin the span of a call to a model. Nobody asks for one without a parent that is seen."""
    if _tracer is None or not parent.recording:
        return OFF
    found = urlsplit(address)
    about: dict[str, str | int | float | bool] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "server.address": found.hostname or "",
        **({"server.port": found.port} if found.port else {}),
    }
    return _tracer.start(f"chat {model}", Kind.CLIENT, parent, {**about, **attributes})


def step(name: str, parent: Parent, attributes: Attributes | None = None) -> Span:
    """Begin the span of a step of PRISM's own, which `name` names."""
    if _tracer is None:
        return OFF
    return _tracer.start(name, Kind.INTERNAL, parent, attributes or {})


def in_run(number: int, batches: int) -> bool:
    """Return whether a batch is in its run's trace: the one of this number, from 0, of so many.

    It follows from the run alone, so that whoever feeds a batch, or feeds it again, says the same.
    """
    return number % max(1, -(-batches // BATCHES_IN_RUN)) == 0


def place_of(partition: int | None, offset: int | None) -> Attributes:
    """Return where the broker has a record."""
    return {
        "messaging.destination.partition.id": str(-1 if partition is None else partition),
        "messaging.kafka.offset": -1 if offset is None else offset,
    }


def _messaging(topic: str, name: str, kind: str) -> dict[str, str | int | float | bool]:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }


def _take_from_file(environ: MutableMapping[str, str], path: Path) -> None:
    """Let `.env` say what it says of a service's own settings; a broken file is their reader's to report."""
    try:
        found = dotenv_values(path, interpolate=False) if path.is_file() else {}
    except (OSError, UnicodeDecodeError):
        return
    for name, value in found.items():
        if name.startswith("OTEL_") and value:
            environ.setdefault(name, value)


def _endpoint(environ: Mapping[str, str]) -> str | None:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    return next((value for name in ENDPOINTS if (value := environ.get(name, "").strip())), None)


def _objection(endpoint: str, environ: Mapping[str, str]) -> str | None:
    """Return why spans cannot go to an endpoint."""
    if not endpoint.lower().startswith(("http://", "https://")) or not _shown(endpoint):
        return f"{ENDPOINTS[1]}: allowed: http://host:4318 or https://…"
    protocol = next((value for name in PROTOCOLS if (value := environ.get(name, "").strip())), "")
    if protocol not in ("", "http/protobuf"):
        return f"{PROTOCOLS[1]}={protocol[:40]}: only http/protobuf is spoken here, usually at port 4318"
    wrong = next((name for name in HEADERS if not _are_headers(environ.get(name, ""))), None)
    return f"{wrong}: allowed: name=value, several with commas" if wrong else None


def _are_headers(text: str) -> bool:
    return all(_HEADER.fullmatch(one.strip()) for one in text.split(",") if one.strip())


def _shown(endpoint: str) -> str:
    """Return an endpoint's host and port: what stands before may be a password, what behind a token."""
    try:
        found = urlsplit(endpoint)
        port = f":{found.port}" if found.port else ""
    except ValueError:
        return ""
    return f"{found.hostname}{port}" if found.hostname else ""
