"""Faults that the embedded model server shows on purpose, for tests and benchmarks.

A specification is a list such as `http_500=0.05,hang=0.01,text:BOOM=http_500`: a rate between 0 and 1 per
fault, and texts whose rows always meet a fault. Whether a call meets a fault by rate is a pure function of
the seed, the fault, the rows asked about and how often they have been asked before, so a run with the same
seed meets the same faults, in whatever order its calls come.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prism_embedded.answers import Reply, to_json
from prism_embedded.errors import EmbeddedError

# Status and text. The texts are those of Ollama, where it has one.
HTTP_FAULTS = {
    "http_400": (400, "invalid options on purpose"),
    "http_401": (401, "unauthorized"),
    "http_403": (403, "this model requires a subscription, upgrade for access"),
    "http_404": (404, "model not found, try pulling it first"),
    "http_429": (429, "too many requests"),
    "http_500": (500, "an internal error on purpose"),
    "http_502": (502, "bad gateway"),
    "http_503": (503, "server busy, please try again.  maximum pending requests exceeded"),
    "quota": (429, "you have reached your hourly usage limit, please upgrade to continue"),
}
TRANSPORT_FAULTS = ("hang", "drip", "html", "error_200", "disconnect", "reset")
# The answer is well-formed, and was given to a prompt without its beginning.
PROMPT_FAULTS = ("shortened",)
# The text of a reply around and instead of what it says.
_FRAMES = {
    "prose": "Sure! Here is the classification:\n\n{0}\n\nLet me know if you need more.",
    "fences": "```json\n{0}\n```",
    "empty": "",
    "thoughts_only": "<think>\nLet me see. My first draft:\n{0}\n</think>\n",
    "thoughts_first": "<think>\nLet me see. My first draft:\n{0}\n</think>\n\n{0}",
}
# What stands where the first item has its first value: JSON that no careful reader takes, and a label.
_VALUES = {
    "nan": "NaN",
    "brackets": "[" * 50_000 + "]" * 50_000,
    "long_number": "9" * 5000,
    "surrogate": '"\\ud800"',
    "wrong_label": '"no label of any list"',
}
CONTENT_FAULTS = (
    *_FRAMES,
    *_VALUES,
    "truncated_json",
    "length",
    "duplicate_keys",
    "too_few",
    "too_many",
    "swapped",
    "wrong_identity",
    "missing_key",
    "extra_key",
)
FAULTS = (*HTTP_FAULTS, *TRANSPORT_FAULTS, *PROMPT_FAULTS, *CONTENT_FAULTS)
# Nobody can see these in a reply: it is valid, and what another model might have said.
OPINIONS = ("rotated",)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Which calls meet which fault; the empty plan has none."""

    rates: tuple[tuple[str, float], ...] = ()
    markers: tuple[tuple[str, str], ...] = ()
    seed: int = 0

    def pick(self, texts: Sequence[str], content: str, before: int) -> str | None:
        """The fault of a call, or None.

        :param texts: the texts of its rows.
        :param content: names the rows (a hash).
        :param before: how many calls have asked about the same rows before.
        """
        for marker, fault in self.markers:
            if any(marker in text for text in texts):
                return fault
        for fault, rate in self.rates:
            if draw(self.seed, fault, content, before) < rate:
                return fault
        return None


def parse_faults(specification: str, seed: int = 0) -> FaultPlan:
    """Read `fault=rate,…` and `text:MARKER=fault,…`.

    :raises EmbeddedError: an unknown fault, or a rate that is not between 0 and 1.
    """
    rates, markers = [], []
    for part in filter(None, map(str.strip, specification.split(","))):
        name, _, value = part.rpartition("=")
        if name.startswith("text:") and name != "text:":
            markers.append((name.removeprefix("text:"), _known(value)))
        else:
            rates.append((_known(name or value), _rate(part, value if name else "")))
    return FaultPlan(tuple(rates), tuple(markers), seed)


def draw(seed: int, purpose: str, content: str, before: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}\x1f{purpose}\x1f{content}\x1f{before}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def spoil(reply: Reply, fault: str) -> str:
    """The text of a reply after a fault of `CONTENT_FAULTS` or `OPINIONS`."""
    text = reply.text
    if fault in _FRAMES:
        return _FRAMES[fault].format(text)
    if fault in _VALUES:
        return _with_first_value(reply, _VALUES[fault], duplicate=False)
    match fault:
        case "truncated_json":
            return text[: len(text) * 3 // 5]
        case "length":
            return text[: len(text) // 2]
        case "duplicate_keys":
            return _with_first_value(reply, '"another"', duplicate=True)
    return to_json(_with_items(reply, _spoilt_items(reply.items, fault)))


def _known(fault: str) -> str:
    if fault not in (*FAULTS, *OPINIONS):
        raise EmbeddedError(f"unknown fault {fault!r}; known are {', '.join((*FAULTS, *OPINIONS))}")
    return fault


def _rate(part: str, value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise EmbeddedError(f"fault {part!r} needs a rate between 0 and 1, as in http_500=0.05")
    return rate


def _spoilt_items(items: list[dict[str, Any]], fault: str) -> list[dict[str, Any]]:
    match fault:
        case "too_few":
            return items[:-1]
        case "too_many":
            return [*items, *items[-1:]]
        case "swapped":
            return items[::-1]
        case "rotated":
            # Valid, and wrong: each row has the answer of the next.
            others = [*items[1:], *items[:1]]
            return [
                other | {name: value for name, value in item.items() if name.lower() == "rowid"}
                for item, other in zip(items, others, strict=True)
            ]
        case "wrong_identity" if items:
            first = items[0]
            other = items[1].get("RowID") if len(items) > 1 else f"not-{first.get('RowID')}"
            return [first | {"RowID": other}, *items[1:]]
        case "missing_key" if items:
            lost = _first_key(items[0])
            return [{name: value for name, value in items[0].items() if name != lost}, *items[1:]]
        case "extra_key" if items:
            return [items[0] | {"Remark": "a key that nobody asked for"}, *items[1:]]
    return items


def _first_key(item: dict[str, Any]) -> str:
    """The key of the item's first value that is not its RowID."""
    return next((name for name in item if name.lower() != "rowid"), "Sentiment")


def _with_items(reply: Reply, items: list[dict[str, Any]]) -> Any:
    """The reply's whole with other items: in their array, or, for a single row, instead of the object."""
    if not reply.items:
        return reply.whole
    if reply.whole is reply.items:
        return items
    if reply.whole is reply.items[0]:
        return items[0] if len(items) == 1 else {"mentions": items} if items else {}
    return {name: items if value is reply.items else value for name, value in reply.whole.items()}


def _with_first_value(reply: Reply, value: str, duplicate: bool) -> str:
    """The reply's text with the value after the RowID of its first item spoilt; JSON of no Python value."""
    if not reply.items:
        return reply.text
    item = reply.items[0]
    name = _first_key(item)
    pair = to_json({name: item.get(name)})[1:-1]
    spoilt = f"{to_json(name)}:{value}"
    return reply.text.replace(pair, f"{pair},{spoilt}" if duplicate else spoilt, 1)
