"""A service's log file: kept small, and asked for its last line when the service has died."""

import json
from pathlib import Path

from prism_cli.console import printable

_KEEP_BYTES = 10 * 1024 * 1024
_TAIL_BYTES = 16 * 1024


def rotate(path: Path) -> None:
    """Set a large log aside as `NAME.log.1`."""
    if path.exists() and path.stat().st_size > _KEEP_BYTES:
        path.replace(path.with_name(path.name + ".1"))


def last_words(path: Path) -> str:
    """Return the last line of a log that says something, and where the log is."""
    for line in reversed(_tail(path)):
        words = _words(line)
        if words:
            return f"{printable(words, 200)} (log: {path})"
    return f"its log is empty (log: {path})"


def _words(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(fields, dict):
        return line.strip()
    said = [
        str(fields[key]) for key in ("what", "where", "error", "reason", "message", "next") if fields.get(key)
    ]
    return f"{fields.get('action', '')}: {'; '.join(said)}" if said else str(fields.get("action", ""))


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return []
