"""The plain CSV that another format is turned into: counted, hashed and bounded while it is written."""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from prism.messages.reasons import FileReason
from prism.tables import TableRefused, render_line

# What unfolds to more than this may do so so many times at most: repetition packs well, a bomb packs better.
MAX_RATIO = 1000
RATIO_FREE_BYTES = 64 * 1024 * 1024
_BLOCK_ROWS = 500


@dataclass(frozen=True, slots=True)
class Terms:
    """How the CSV is written, and how large it may be.

    Attributes:
        delimiter: one character between cells.
        max_bytes: of the whole CSV.
        scarce: `max_bytes` is what the disk has left, not what the operator allows.
        max_row_bytes: of one row; a longer one refuses the file.
        max_columns: more refuse the file.
    """

    delimiter: str = ","
    max_bytes: int = 1 << 40
    scarce: bool = False
    max_row_bytes: int = 8 << 20
    max_columns: int = 4096


@dataclass(frozen=True, slots=True)
class Converted:
    """What came out: rows under the header, bytes, and the SHA-256 of the CSV."""

    rows: int
    bytes: int
    sha256: str


class PlainCsv:
    """Writes a header and rows; raises TableRefused for what breaks its terms."""

    def __init__(self, stream: BinaryIO, source_bytes: int, terms: Terms) -> None:
        self._stream = stream
        self._source_bytes = source_bytes
        self._terms = terms
        self.rows = 0
        self._bytes = 0
        self._digest = hashlib.sha256()

    def begin(self, names: Sequence[str]) -> None:
        """Write the header, over all that was written before."""
        if not any(names):
            raise TableRefused(FileReason.NO_HEADER, "there is no column with a name; name them")
        if len(names) > self._terms.max_columns:
            raise TableRefused(
                FileReason.TOO_LARGE,
                f"{len(names)} columns, at most {self._terms.max_columns} are allowed; remove some",
            )
        self._stream.seek(0)
        self._stream.truncate()
        self.rows = self._bytes = 0
        self._digest = hashlib.sha256()
        self._put(render_line(names, self._terms.delimiter).encode())

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        """Write rows, each with a cell for every column."""
        remaining = iter(rows)
        while block := list(islice(remaining, _BLOCK_ROWS)):
            data = self._rendered(block)
            if len(data) > self._terms.max_row_bytes:
                self._refuse_long_row(block)
            self._put(data)
            self.rows += len(block)

    def end(self) -> Converted:
        """Return what was written."""
        self._stream.flush()
        return Converted(self.rows, self._bytes, self._digest.hexdigest())

    def _rendered(self, block: Sequence[Sequence[str]]) -> bytes:
        # As `render_line` quotes, but in C; CRLF makes it quote both of the two.
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._terms.delimiter, lineterminator="\r\n").writerows(block)
        return text.getvalue().encode()

    def _refuse_long_row(self, block: Sequence[Sequence[str]]) -> None:
        most = self._terms.max_row_bytes
        for number, cells in enumerate(block, self.rows + 1):
            size = len(self._rendered([cells]))
            if size > most:
                detail = f"row {number} takes {size} bytes, at most {most} are allowed; shorten it"
                raise TableRefused(FileReason.TOO_LARGE, detail)

    def _put(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._terms.max_bytes:
            raise self._too_large()
        if self._bytes > max(RATIO_FREE_BYTES, self._source_bytes * MAX_RATIO):
            detail = (
                f"unfolds to more than {MAX_RATIO} times its size, which no real table does; send it as CSV"
            )
            raise TableRefused(FileReason.TOO_LARGE, detail)
        self._digest.update(data)
        self._stream.write(data)

    def _too_large(self) -> TableRefused:
        if self._terms.scarce:
            return TableRefused(
                FileReason.NO_SPACE, "no disk space left for the file as CSV; free some and send it again"
            )
        return TableRefused(
            FileReason.TOO_LARGE, f"more than {self._terms.max_bytes} bytes as CSV; split the file"
        )
