"""Records' keys and headers: CloudEvents in binary mode and a W3C trace context.

Sources: CloudEvents Kafka protocol binding 1.0.2, section 3.2 (binary content mode: attributes as
`ce_` headers); W3C Trace Context, section 3.2 (`00-<trace id>-<span id>-<flags>`).
Ids are deterministic: a record that is sent again after a crash carries the same `ce_id`.

A record's trace context is that of the span that sent it, or where nothing is traced that of who began it
all, unchanged. Where nobody did, its ids follow from the run's and the record's; no span has those.
"""

import hashlib
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Message

from prism.messages.trace import HEADER_PARENT, HEADER_STATE, TraceContext

Headers = list[tuple[str, str | bytes | None]]

CE_ID = "ce_id"
CE_TYPE_PREFIX = "io.prism."

# confluent-kafka 2.16 returns a list *and* leaves an error behind where a header's name is no UTF-8. A plain
# call, once Python has specialised it, does not look, and the error comes up somewhere else: this one looks.
_ask_headers = operator.methodcaller("headers")


def trace_parent(run_id: str, ce_id: str) -> str:
    """Return the traceparent of a record that nobody traces: one trace per run, one span per record."""
    trace = hashlib.sha256(run_id.encode()).hexdigest()[:32]
    return f"00-{trace}-{_own_span(ce_id)}-01"


def _own_span(ce_id: str) -> str:
    return hashlib.sha256(ce_id.encode()).hexdigest()[:16]


def sent_trace(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the trace context that a record was sent with; None for what stands in where nobody traces."""
    found = TraceContext.from_headers(headers)
    return None if found is None or found.span_id == _own_span(headers.get(CE_ID, "")) else found


def event_headers(
    kind: str, ce_id: str, source: str, run_id: str, trace: TraceContext | None = None
) -> Headers:
    """Return the headers of one record. `kind` is the message's name: `batch`, `result`, …"""
    made: Headers = [
        ("ce_specversion", b"1.0"),
        (CE_ID, ce_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", (CE_TYPE_PREFIX + kind).encode()),
        ("content-type", b"application/json"),
        (HEADER_PARENT, trace_parent(run_id, ce_id).encode()),
    ]
    return made if trace is None else in_trace(made, trace)


def in_trace(headers: Headers, trace: TraceContext) -> Headers:
    """Return a record's headers with another trace context."""
    kept = [one for one in headers if one[0] not in (HEADER_PARENT, HEADER_STATE)]
    state: Headers = [] if trace.state is None else [(HEADER_STATE, trace.state.encode())]
    return [*kept, (HEADER_PARENT, trace.parent.encode()), *state]


def read_headers(headers: Iterable[tuple[str, str | bytes | None]] | None) -> dict[str, str]:
    """Return headers as text, the last of a name winning; bytes that are no UTF-8 become U+FFFD."""
    found: dict[str, str] = {}
    for name, value in headers or ():
        if isinstance(value, bytes):
            found[name.lower()] = value.decode("utf-8", "replace")
        elif value is not None:
            found[name.lower()] = value
    return found


def read_key(key: bytes | str | None) -> str:
    """Return a record's key as text; what is no UTF-8 becomes U+FFFD, none is empty."""
    if key is None:
        return ""
    return key if isinstance(key, str) else key.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Record:
    """One record that was received: a client's message without its `None`s.

    `headers_as_sent` is None where a header's name is no UTF-8, which the client cannot read.
    """

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None
    timestamp_ms: int
    message: Message
    headers_as_sent: Headers | None = None

    @classmethod
    def of(cls, message: Message) -> "Record":
        """Return the record in a message that carries no error."""
        return cls(
            topic=message.topic() or "",
            partition=_number(message.partition()),
            offset=_number(message.offset()),
            key=read_key(message.key()),
            value=_bytes(message.value()),
            timestamp_ms=message.timestamp()[1],
            message=message,
            headers_as_sent=_headers(message),
        )

    @property
    def headers(self) -> dict[str, str]:
        """The headers as text, names in lower case; none where they cannot be read."""
        return read_headers(self.headers_as_sent)


def _headers(message: Message) -> Headers | None:
    try:
        found = _ask_headers(message) or []
    except (SystemError, UnicodeDecodeError):
        # Never ask twice: the second time the client hands out a tuple with a hole in it.
        return None
    return list(found.items() if isinstance(found, dict) else found)


def _number(value: int | None) -> int:
    return -1 if value is None else value


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
