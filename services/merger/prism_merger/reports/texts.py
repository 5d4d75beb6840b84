"""Numbers, bars and tables as text. What comes from rows stands in code spans: data, never mark-up."""

import re
import unicodedata
from collections.abc import Sequence

from prism.annotation.column import shorten

SHOWN_CHARACTERS = 80
_BAR_CELLS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_PIPE = re.compile(r"(\\*)\|")


def number(value: float | int | str) -> str:
    """Return a number for people: thousands apart, and no more places than say something."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    places = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:,.{places}f}"


def percent(part: int, whole: int) -> str:
    """Return a share; a small one is not shown as none, nor a large one as all."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"


def measure(value: float | None) -> str:
    """Return a measure of agreement for people."""
    return "–" if value is None else f"{value:z.3f}"


def duration(seconds: float | None) -> str:
    """Return a time span for people."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    hours, minutes = divmod(whole // 60, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h {minutes:02} min" if days else f"{hours} h {minutes:02} min"


def moment(text: str) -> str:
    """Return an ISO time for people: to the second, in UTC."""
    return f"{text[:19].replace('T', ' ')} UTC" if text else "–"


def one_line(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Return any text as one printable line."""
    return shorten(text, most)


def code(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """Return any text as a Markdown code span that also a table's cell can hold."""
    line = one_line(text, most)
    if not line:
        return "*(empty)*"
    # A pipe ends a cell even in code; after an odd number of backslashes no backslash can save it.
    line = _PIPE.sub(lambda found: found[1] + ("¦" if len(found[1]) % 2 else "\\|"), line)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def bar(part: int, whole: int) -> str:
    """Return a share as a bar of block characters, an eighth of a cell exact."""
    eighths = round(8 * _BAR_CELLS * part / whole) if whole else 0
    if part and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Return a Markdown table whose columns also stand in line as plain text.

    `align`: a character for each column, `r` for right.
    """
    cells = [list(header), *map(list, rows)]
    sides = [align[number : number + 1] == "r" for number in range(len(header))]
    widths = [max(3, *(width(row[number]) for row in cells)) for number in range(len(header))]
    rule = [
        ("-" * (size - 1) + ":") if right else "-" * size for size, right in zip(widths, sides, strict=True)
    ]
    lines = [_line(cells[0], widths, sides), "| " + " | ".join(rule) + " |"]
    return "\n".join([*lines, *(_line(row, widths, sides) for row in cells[1:])])


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _line(row: Sequence[str], widths: Sequence[int], sides: Sequence[bool]) -> str:
    padded = [
        " " * (size - width(cell)) + cell if right else cell + " " * (size - width(cell))
        for cell, size, right in zip(row, widths, sides, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"
