"""A run's rows with those that failed replaced by what its retries made of them.

Argument. A part holds the lines of a stretch of a file's rows, in the input's order, and all parts of a
file hold all its rows. A retry's source is the failed rows of the run before it in the family, in their
order, so its k-th row is that run's k-th failed row: no RowID is needed to find them again. Counts that do
not agree mean that something else was retried: then nothing is completed. Read as streams, side by side,
they take constant memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism.tables import TableFormat, read_header, read_rows
from prism_merger.joining import Line


class Mismatch(Exception):
    """The rows of a retry are not the failed rows of what it completes."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The part files of one file of one run, in order, each with a header of its own."""

    paths: Sequence[Path]
    delimiter: str
    header: bytes

    def lines(self) -> Iterator[Line]:
        """Yield the rows' lines. Raises OSError for a part that is gone, Mismatch for other columns."""
        fmt = TableFormat(delimiter=self.delimiter, required_columns=(), message_column="")
        for path in self.paths:
            yield from _lines(path, fmt, self.header)


def _lines(path: Path, fmt: TableFormat, wanted: bytes) -> Iterator[Line]:
    header = read_header(path, fmt)
    with path.open("rb") as stream:
        if stream.read(header.end_offset) != wanted:
            raise Mismatch(f"{path.name} has other columns")
        for row in read_rows(path, header, fmt):
            # The last column is `Error`.
            yield Line(stream.read(row.end.offset - row.start.offset), bool(row.cells[-1]))


def completed(first: Iterable[Line], retries: Sequence[Iterable[Line]]) -> Iterator[Line]:
    """Yield a run's lines, the failed ones as its retries have them, one retry after the other.

    Raises Mismatch, at the latest with the last line.
    """
    lines = iter(first)
    for number, retry in enumerate(retries, 1):
        lines = _replaced(lines, iter(retry), number)
    return lines


def _replaced(lines: Iterator[Line], again: Iterator[Line], number: int) -> Iterator[Line]:
    for line in lines:
        if not line.failed:
            yield line
            continue
        found = next(again, None)
        if found is None:
            raise Mismatch(f"retry {number} has fewer rows than failed before it")
        yield found
    if next(again, None) is not None:
        raise Mismatch(f"retry {number} has more rows than failed before it")
