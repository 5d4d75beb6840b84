"""How long a server asks to be left alone: by its Retry-After header, else by its error's text."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# No account's limit lasts longer than a month.
LONGEST_S = 31 * 24 * 3600.0
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_UNIT = r"(?:ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hrs?|hours?|d|days?|w|weeks?)(?![a-z])"
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}
_PIECE = re.compile(rf"({_NUMBER})\s?({_UNIT})", re.I)
_SAYS = r"\b(?:resets?|again|retry|available|wait|until)\b[^.;]{0,24}?\s"
_IN = re.compile(rf"{_SAYS}(?:in|after|for)?\s?((?:{_NUMBER}\s?{_UNIT}(?:,|\sand)?\s?)+)", re.I)
_AT = re.compile(
    rf"{_SAYS}(\d{{4}}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s?(Z|UTC|[+-]\d\d:?\d\d)?)?", re.I
)


def seconds_to_wait(retry_after: str | None, text: str, now: datetime) -> float | None:
    """Return the seconds to wait, at most a month; None where neither says it.

    retry_after: the header's value (RFC 9110: seconds or a date). text: an error's, such as `try again
    in 6m0s`, `resets in 3h 12m` or `try again at 2026-11-21T10:00:00Z` (without a zone it is UTC).
    """
    seconds = _of_header(retry_after, now)
    if seconds is None:
        seconds = _of_text(text, now)
    return None if seconds is None else min(max(seconds, 0.0), LONGEST_S)


def _of_header(value: str | None, now: datetime) -> float | None:
    if value is None:
        return None
    try:
        return float(value) if value.strip().isdecimal() else _until(parsedate_to_datetime(value), now)
    except (ValueError, OverflowError):
        return None


def _of_text(text: str, now: datetime) -> float | None:
    duration, moment = _IN.search(text), _AT.search(text)
    if duration:
        return sum(float(number) * _seconds(unit.lower()) for number, unit in _PIECE.findall(duration[1]))
    if not moment:
        return None
    date, time, zone = moment.groups(default="")
    zone = "" if zone.upper() in ("Z", "UTC") else zone
    try:
        return _until(datetime.fromisoformat(f"{date}T{time or '00:00'}{zone}"), now)
    except ValueError:
        return None


def _seconds(unit: str) -> float:
    return 0.001 if unit.startswith(("ms", "milli")) else _UNIT_S[unit[0]]


def _until(moment: datetime, now: datetime) -> float:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.timestamp() - now.timestamp()
