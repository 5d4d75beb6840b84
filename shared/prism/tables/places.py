"""Where in a row something is: only used to explain a refusal, so it may read the row again.

`csv` says neither where a cell starts nor where a quote was opened; this walks a row by the same rules
(RFC 4180; a quote inside an unquoted cell is an ordinary character).
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A row taken apart; all numbers are indexes into its text.

    Attributes:
        fields: where each cell starts, an opening quote included.
        open_quote: the quote that is never closed, or None.
        stray: the character behind a closing quote that should not be there, or None.
    """

    fields: tuple[int, ...]
    open_quote: int | None = None
    stray: int | None = None


def read_record_text(stream: BinaryIO, offset: int, max_bytes: int) -> str:
    """Text from a row's first byte on, at most `max_bytes` of it; damaged characters are replaced."""
    stream.seek(offset)
    pieces = []
    while max_bytes > 0 and (piece := stream.read(max_bytes)):
        pieces.append(piece)
        max_bytes -= len(piece)
    return b"".join(pieces).decode(errors="replace")


def dissect(text: str, delimiter: str) -> Anatomy:
    """Take the first row of `text` apart."""
    stop = re.compile("[\r\n" + re.escape(delimiter) + "]")
    fields: list[int] = []
    at = 0
    while True:
        fields.append(at)
        if text.startswith('"', at):
            end = _closing_quote(text, at)
            if end is None:
                return Anatomy(tuple(fields), open_quote=at)
            at = end + 1
            if at < len(text) and not stop.match(text, at):
                return Anatomy(tuple(fields), stray=at)
        found = stop.search(text, at)
        if found is None or found.group() != delimiter:
            return Anatomy(tuple(fields))
        at = found.end()


def _closing_quote(text: str, opening: int) -> int | None:
    at = text.find('"', opening + 1)
    while at != -1 and text.startswith('"', at + 1):
        at = text.find('"', at + 2)
    return None if at == -1 else at


def line_and_column(text: str, index: int, first_line: int) -> tuple[int, int]:
    """Physical line (`first_line` is the text's first) and character position from 1 of an index."""
    lines, start = 0, 0
    for found in LINE_END.finditer(text, 0, index):
        lines, start = lines + 1, found.end()
    return first_line + lines, index - start + 1
