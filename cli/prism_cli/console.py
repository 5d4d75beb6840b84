"""Where words go: data to stdout, everything else to stderr; colours only where a terminal takes them.

Rich looks at NO_COLOR, TERM and whether the stream is a terminal. Text that came from elsewhere (names,
cells, reasons) goes through `printable`, so that nobody's data can move the cursor or forge a line.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A pipe has no width; nothing is folded there.
_PIPE_WIDTH = 240


def output() -> Console:
    """Return the console of stdout: data."""
    return _console(sys.stdout)


def messages() -> Console:
    """Return the console of stderr: progress and messages."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def interactive(console: Console) -> bool:
    """Return whether something that moves may be drawn there."""
    return console.is_terminal and not console.is_dumb_terminal


def say(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def write_json(value: Mapping[str, object]) -> None:
    """Write a JSON object as one line to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Write a line of data to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def printable(text: str, limit: int = 0) -> str:
    """Return text for a screen: newlines as ⏎, what is not printable as ·, cut at `limit` characters."""
    one_line = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " ")
    clean = "".join(one if one.isprintable() else "·" for one in one_line)
    return clean if not limit or len(clean) <= limit else clean[: limit - 1] + "…"


def table(columns: Iterable[tuple[str, str]], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Return a plain table. A column is its title and `left`, `right` or `fold` (left, never cut)."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for title, kind in columns:
        made.add_column(
            title,
            justify="right" if kind == "right" else "left",
            overflow="fold" if kind == "fold" else "ellipsis",
            no_wrap=kind != "fold",
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return made


def count(number: int) -> str:
    """Return a number with thousands set apart."""
    return f"{number:,}"


def files(number: int) -> str:
    """Return how many files, in words."""
    return f"{count(number)} file{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a duration as a person says it."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
