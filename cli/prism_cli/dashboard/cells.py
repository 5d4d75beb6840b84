"""Text measured in cells of a terminal: cut, padded, drawn as bars. Nobody's text is wider than its place."""

import re
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from prism_cli.console import printable

# What is less important, on dark and on light.
DIM = "bright_black"
_LONGEST = 400
# Whether an emoji is one or two cells wide after these, each terminal decides for itself.
_SELECTORS = re.compile("[\ufe00-\ufe0f]")
_LEVELS = "▁▂▃▄▅▆▇█"


def clean(text: str) -> str:
    """Return foreign text as one line without anything that moves a cursor."""
    return _SELECTORS.sub("", printable(text, _LONGEST))


def fit(text: str, width: int) -> str:
    """Return foreign text in at most `width` cells, with … where something is left out."""
    shown = clean(text)
    if cell_len(shown) <= width:
        return shown
    return set_cell_size(shown, width - 1).rstrip() + "…" if width > 0 else ""


def fit_id(text: str, width: int) -> str:
    """Return a name in at most `width` cells, cut in its middle: the end tells names apart."""
    shown = clean(text)
    if cell_len(shown) <= width or width < 5:
        return fit(shown, width)
    tail = (width - 1) // 2
    end = next(shown[at:] for at in range(len(shown)) if cell_len(shown[at:]) <= tail)
    return set_cell_size(shown, width - 1 - cell_len(end)).rstrip() + "…" + end


def left(text: str, width: int) -> str:
    """Return text cut or padded to exactly `width` cells."""
    return set_cell_size(fit(text, width), width)


def right(text: str, width: int) -> str:
    """Return text at the right end of `width` cells."""
    shown = fit(text, width)
    return " " * (width - cell_len(shown)) + shown


def folded(text: str, width: int, most: int = 0) -> list[str]:
    """Return foreign text in lines of at most `width` cells, broken at blanks where there are any.

    `most`: lines at most, 0 for all; the last one then says … for the rest.
    """
    lines: list[str] = []
    rest = clean(text).strip()
    width = max(2, width)
    while rest:
        if cell_len(rest) <= width:
            lines.append(rest)
            break
        if most and len(lines) == most - 1:
            lines.append(fit(rest, width))
            break
        piece = _head(rest, width)
        lines.append(piece.rstrip())
        rest = rest[len(piece) :].lstrip()
    return lines


def _head(text: str, width: int) -> str:
    size = taken = 0
    for one in text:
        size += cell_len(one)
        if size > width:
            break
        taken += 1
    if taken < len(text) and text[taken] == " ":
        return text[:taken]
    blank = text.rfind(" ", 0, taken)
    if blank < taken // 2:
        # A path or an address: better broken at its own joints than in a word.
        blank = max(blank, text.rfind("/", 0, taken))
    return text[: blank + 1] if blank > 0 else text[: max(1, taken)]


def line(*pieces: str | tuple[str, str] | Text) -> Text:
    """Return pieces as one line that is never folded."""
    made = Text(no_wrap=True, overflow="crop", end="")
    for piece in pieces:
        if isinstance(piece, tuple):
            made.append(*piece)
        else:
            made.append(piece)
    return made


def both_ends(start: Text, end: Text, width: int) -> Text:
    """Return a line with `end` at its right end; `start` gives way where both do not fit."""
    room = width - end.cell_len - 1
    if start.cell_len > room:
        start = start.copy()
        start.truncate(max(0, room), overflow="ellipsis")
    return line(start, " " * max(0, width - start.cell_len - end.cell_len), end)


def track(share: float, width: int, style: str) -> Text:
    """Return a progress bar; what is missing can be told from what is done without a colour."""
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    if share < 1.0:
        halves = min(halves, width * 2 - 1)
    done = "━" * (halves // 2) + "╸" * (halves % 2)
    return line((done, style), ("─" * (width - len(done)), DIM))


def block(share: float, width: int) -> str:
    """Return a bar of blocks; what is there at all is seen."""
    cells = round(min(1.0, max(0.0, share)) * width)
    return "▇" * min(width, max(1, cells) if share > 0 else 0)


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last values as a row of columns; the highest is full."""
    shown = values[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return ""
    return "".join(_LEVELS[min(7, round(max(0.0, one) / top * 7))] for one in shown)


def widest(texts: Iterable[str], least: int, most: int) -> int:
    """Return the cells of the widest text, within bounds."""
    return max(least, min(most, max((cell_len(clean(one)) for one in texts), default=0)))
