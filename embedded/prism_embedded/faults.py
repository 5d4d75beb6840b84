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

HTTP_FAULTS = {
    "http_500": (500, "an internal error on purpose"),
    "http_429": (429, "too many requests"),
    "http_503": (503, "server busy, please try again.  maximum pending requests exceeded"),
    "quota": (429, "you have reached your hourly usage limit, please upgrade to continue"),
}
TRANSPORT_FAULTS = ("hang", "drip", "html", "disconnect")
CONTENT_FAULTS = (
    "truncated_json",
    "prose",
    "fences",
    "too_few",
    "too_many",
    "swapped",
    "wrong_identity",
    "empty",
    "length",
    "nan",
    "duplicate_keys",
)
FAULTS = (*HTTP_FAULTS, *TRANSPORT_FAULTS, *CONTENT_FAULTS)


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
    """The text of a reply after a fault of `CONTENT_FAULTS`."""
    text = reply.text
    match fault:
        case "truncated_json":
            return text[: len(text) * 3 // 5]
        case "length":
            return text[: len(text) // 2]
        case "prose":
            return f"Sure! Here is the classification:\n\n{text}\n\nLet me know if you need more."
        case "fences":
            return f"```json\n{text}\n```"
        case "empty":
            return ""
        case "nan":
            return _with_first_value(reply, "NaN", duplicate=False)
        case "duplicate_keys":
            return _with_first_value(reply, '"another"', duplicate=True)
    return to_json(_with_items(reply, _spoilt_items(reply.items, fault)))


def _known(fault: str) -> str:
    if fault not in FAULTS:
        raise EmbeddedError(f"unknown fault {fault!r}; known are {', '.join(FAULTS)}")
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
        case "wrong_identity" if items:
            first = items[0]
            other = items[1].get("RowID") if len(items) > 1 else f"not-{first.get('RowID')}"
            return [first | {"RowID": other}, *items[1:]]
    return items


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
    name = next((name for name in item if name.lower() != "rowid"), "Sentiment")
    pair = to_json({name: item.get(name)})[1:-1]
    spoilt = f"{to_json(name)}:{value}"
    return reply.text.replace(pair, f"{pair},{spoilt}" if duplicate else spoilt, 1)
