"""Replies, in the shape that clients of the original service read.

photo  → `photo-analysis-response`: {"key", "value": {"user_email", "analysis", …copied}}
text   → `gemini-response`:         {"key", "value": {"user_email", "response", "model", …copied}}
error  → the topic of its kind:     {"key", "value": {"user_email", "error": {"code", "message"}, …copied}}

Whom a reply reaches, and under which key, is the request's alone: an answer goes in as one piece of text,
so nothing in it can become a field. What is PRISM's own stands in headers, where it breaks no client.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism.kafka.records import Headers, event_headers
from prism_model_worker.requests.json_text import compact
from prism_model_worker.requests.request import Address, RequestKind

HEADER_MODEL = "prism_model"
HEADER_TIMINGS = "prism_timings"


@dataclass(frozen=True, slots=True)
class ReplyTopics:
    """Where replies go: the original service's names."""

    photo: str = "photo-analysis-response"
    text: str = "gemini-response"

    def of(self, kind: RequestKind) -> str:
        """Return the topic for replies to requests of a kind."""
        return self.photo if kind is RequestKind.PHOTO else self.text


@dataclass(frozen=True, slots=True)
class Reply:
    """A record to produce. Sent again after a crash, it carries the same `ce_id`."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers


class ReplyDesk:
    """Writes replies. `source` is the `ce_source` of each: which worker wrote it."""

    def __init__(self, source: str, topics: ReplyTopics) -> None:
        self._source = source
        self._topics = topics

    def answer(self, address: Address, answer: str, model: str, timings: Mapping[str, float]) -> Reply:
        """Return the reply that carries an answer. `timings` are seconds by name."""
        named = (
            {"analysis": answer}
            if address.kind is RequestKind.PHOTO
            else {"response": answer, "model": model}
        )
        shown = {name: round(seconds, 3) for name, seconds in timings.items()}
        extra: Headers = [
            (HEADER_MODEL, model.encode("utf-8", "replace")),
            (HEADER_TIMINGS, json.dumps(shown, separators=(",", ":")).encode()),
        ]
        return self._reply(address, named, extra)

    def error(self, address: Address, code: str, message: str) -> Reply:
        """Return the reply that carries an error; `message` is for the user."""
        return self._reply(address, {"error": {"code": code, "message": message}}, [])

    def _reply(self, address: Address, named: Mapping[str, Any], extra: Headers) -> Reply:
        value = {"user_email": address.user_email, **named, **address.copied}
        return Reply(
            topic=self._topics.of(address.kind),
            key=address.record_key,
            value=compact({"key": address.key, "value": value}).encode(),
            headers=[*self._event_headers(address), *extra],
        )

    def _event_headers(self, address: Address) -> Headers:
        ce_id = f"{address.request_id}/reply"
        return event_headers("reply", ce_id, self._source, address.request_id, address.trace)
