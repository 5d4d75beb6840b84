"""One line per event: a fixed `action` and structured extras, as text on a terminal, else as JSON.

No value can forge a line: whatever is not printable (newlines, escapes, U+2028, direction marks) is escaped.
Built on stdlib logging; what libraries log goes through the same formatter, from WARNING up.
"""

import json
import logging
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, LiteralString, TextIO

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["auto", "text", "json"]

_ROOT = "prism"
# A value is cut here: a log line is for reading, and a whole prompt in it would be a leak.
_MAX_VALUE_CHARS = 2_000
_MAX_TRACEBACK_CHARS = 20_000


class Log:
    """A logger whose lines are an action in snake_case and named values: `log.info("batch_done", rows=10)`.

    An exception as a value (`error=exc`) becomes its type and message; its traceback is added at level DEBUG.
    """

    __slots__ = ("_extras", "_logger")

    def __init__(self, logger: logging.Logger, extras: Mapping[str, object]) -> None:
        self._logger = logger
        self._extras = extras

    def bind(self, **extras: object) -> "Log":
        """Return a logger that adds `extras` to each of its lines."""
        return Log(self._logger, {**self._extras, **extras})

    def debug(self, action: LiteralString, /, **extras: object) -> None:
        self._log(logging.DEBUG, action, extras)

    def info(self, action: LiteralString, /, **extras: object) -> None:
        self._log(logging.INFO, action, extras)

    def warning(self, action: LiteralString, /, **extras: object) -> None:
        self._log(logging.WARNING, action, extras)

    def error(self, action: LiteralString, /, **extras: object) -> None:
        self._log(logging.ERROR, action, extras)

    def _log(self, level: int, action: str, extras: dict[str, object]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        values = {**self._extras, **extras}
        if self._logger.isEnabledFor(logging.DEBUG):
            values |= _traceback_of(values)
        self._logger.log(level, "%s", action, extra={"prism_action": action, "prism_extras": values})


def get_logger(name: str) -> Log:
    """Return the logger of a module (`get_logger(__name__)`)."""
    return Log(logging.getLogger(f"{_ROOT}.{name.removeprefix(_ROOT + '.')}"), {})


def configure(
    level: LogLevel = "INFO",
    format: LogFormat = "auto",
    *,
    service: str,
    instance: str = "",
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process to `stream` (stderr). Calling it again replaces the settings."""
    target = sys.stderr if stream is None else stream
    text = format == "text" or (format == "auto" and target.isatty())
    handler = _Handler(target)
    handler.setFormatter(_TextFormatter(service) if text else _JsonFormatter(service, instance))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger(_ROOT).setLevel(level)
    logging.captureWarnings(True)


def text_of(action: str, extras: Mapping[str, object]) -> str:
    """Return an action and its values as one line of text, which no value can break or forge."""
    return " ".join([_escape(action), *(f"{key}={_text(value)}" for key, value in extras.items())])


class _Handler(logging.StreamHandler[TextIO]):
    """The process's one handler. A stderr that is gone cannot be reported anywhere, least of all there."""

    def handleError(self, record: logging.LogRecord) -> None:
        del record


class _TextFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        action, extras = _event(record)
        return f"{_timestamp(record)} {record.levelname:<7} {self._service} {text_of(action, extras)}"


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._service = service
        self._instance = instance

    def format(self, record: logging.LogRecord) -> str:
        action, extras = _event(record)
        line: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname,
            "service": self._service,
            "instance": self._instance,
            "action": action,
        }
        for key, value in extras.items():
            line[f"{key}_" if key in line else key] = _plain(value)
        return json.dumps(line, separators=(",", ":"), allow_nan=False)


def _event(record: logging.LogRecord) -> tuple[str, Mapping[str, object]]:
    """Return action and extras; a library's line has the action `library` and its text as `message`."""
    action = getattr(record, "prism_action", None)
    if isinstance(action, str):
        extras: Mapping[str, object] = getattr(record, "prism_extras", {})
        return action, extras
    values: dict[str, object] = {"logger": record.name, "message": _message(record)}
    if record.exc_info and record.exc_info[1] is not None:
        values["error"] = record.exc_info[1]
    return "library", values


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's wrong arguments for its own text
        return str(record.msg)


def _traceback_of(values: Mapping[str, object]) -> dict[str, object]:
    for value in values.values():
        if isinstance(value, BaseException) and value.__traceback__ is not None:
            return {"traceback": _Long("".join(traceback.format_exception(value)))}
    return {}


class _Long(str):
    """Text that may be longer than other values."""

    __slots__ = ()


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _plain(value: object) -> object:
    """Return `value` as something JSON can say."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {_cut(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes | bytearray):
        return [_plain(item) for item in value]
    return _cut(_string(value))


def _text(value: object) -> str:
    """Return `value` for a text line: bare if that is unambiguous, else quoted."""
    plain = _plain(value)
    if isinstance(plain, str):
        bare = plain.isprintable() and plain and not any(mark in plain for mark in ' "=\\')
        return plain if bare else f'"{_escape(plain)}"'
    return _escape_controls(json.dumps(plain, ensure_ascii=False, separators=(",", ":")))


def _string(value: object) -> str:
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}" if str(value) else type(value).__name__
    try:
        return value if isinstance(value, str) else str(value)
    except Exception as error:
        # A value that cannot say what it is must not cost the line.
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _cut(text: str) -> str:
    limit = _MAX_TRACEBACK_CHARS if isinstance(text, _Long) else _MAX_VALUE_CHARS
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def _escape(text: str) -> str:
    return _escape_controls(text.replace("\\", "\\\\").replace('"', '\\"'))


def _escape_controls(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
