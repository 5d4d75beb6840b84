"""What is said in the bodies of requests and answers, whichever the server: JSON, counts, errors."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

_MAX_ERROR_CHARS = 300
_MAX_NAME_CHARS = 300
# Up to here every whole number is a float too. No count, and no time in nanoseconds (104 days), is larger.
_LARGEST = 2**53
# An address in an error's text (…/account/billing, …/quotaincrease) says nothing about the error.
_ADDRESS = re.compile(r"https?://\S+")


@dataclass(frozen=True, slots=True)
class Said:
    """An error: its text in one line and cut, its code and type, and its own HTTP status (0: none)."""

    text: str = ""
    kind: str = ""
    status: int = 0

    def __bool__(self) -> bool:
        return bool(self.text)

    @property
    def signs(self) -> str:
        """Everything that tells what kind of error it is."""
        return f"{_ADDRESS.sub(' ', self.text)} {self.kind}"


def encode(body: Mapping[str, Any]) -> bytes:
    """Return compact UTF-8; half a surrogate pair, which UTF-8 cannot say, becomes `?`."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, default=dict)
    return text.encode("utf-8", "replace")


def decode(body: bytes) -> object:
    """Return the JSON value; None for what is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def said(value: object, failed: bool = False) -> Said:
    """Return the error of an answer: empty if it has none. `failed`: its HTTP status is one of an error.

    Seen: `{"error": "…"}` (Ollama, LM Studio), `{"error": {"message", "type", "code"}}` (OpenAI, llama.cpp,
    vLLM), `{"object": "error", "message": …}` (vLLM up to 0.10), `{"detail": …}` (FastAPI).
    """
    if not isinstance(value, dict):
        return Said()
    error = value.get("error")
    if not error and value.get("object") == "error":
        error = value
    if not error and failed:
        error = value.get("detail") or value.get("message")
    return _read(error) if error else Said()


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, cut at 300 characters."""
    line = "".join(c if c.isprintable() else " " for c in text[: _MAX_ERROR_CHARS + 1])
    return line if len(line) <= _MAX_ERROR_CHARS else line[:_MAX_ERROR_CHARS] + "…"


def count(fields: Mapping[str, Any], name: str) -> int:
    """Return a count or a time, at most 2^53; 0 where the server leaves it out or says something absurd."""
    value = fields.get(name)
    return value if _is_moderate(value) and isinstance(value, int) and value > 0 else 0


def text(fields: Mapping[str, Any], name: str, default: str = "") -> str:
    """Return a name of some kind; the default where the server leaves it out or says something absurd."""
    value = fields.get(name)
    short = isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARS and value.isprintable()
    return str(value) if short else default


def logprobs(tokens: object) -> tuple[float, ...]:
    """Return the log probabilities of a reply's tokens, as Ollama and OpenAI list them; empty for none."""
    listed = tokens if isinstance(tokens, list) else []
    values = [token.get("logprob") for token in listed if isinstance(token, dict)]
    return tuple(float(value) for value in values if _is_moderate(value))


def _is_moderate(value: object) -> TypeGuard[int | float]:
    # Compared before it is made a float, for which it may be too large; NaN and Infinity do not pass either.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _read(error: object) -> Said:
    if isinstance(error, str):
        return Said(one_line(error))
    if not isinstance(error, dict):
        return Said(one_line(json.dumps(error)))
    message, code = error.get("message"), error.get("code")
    text = message if isinstance(message, str) and message else json.dumps(error)
    kind = " ".join(one for one in (code, error.get("type")) if isinstance(one, str))
    status = code if isinstance(code, int) and 400 <= code <= 599 else 0
    return Said(one_line(text), one_line(kind), status)
