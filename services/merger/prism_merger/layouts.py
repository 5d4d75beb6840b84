"""An output's rows as bytes: CSV, JSON Lines or Parquet, a block at a time.

The rows come as lines of the CSV that the store keeps. What is written depends on them alone, so that an
output that is written again after a death is the same file.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prism.runs.columns import META_COLUMNS
from prism.tables import render_line

# Of a row group: enough to pack well, and no more than memory can hold of long rows.
GROUP_ROWS = 50_000
GROUP_BYTES = 32 << 20
# Of a row group, the piece that is in hand as texts: a divisor of it.
PIECE_ROWS = 1000
PIECE_BYTES = 1 << 20

Blocks = Iterable[list[bytes]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is written of each row.

    Attributes:
        columns: of the lines, all of them: the input's, the coded ones, ours.
        chosen: which are written, by number, in this order.
        delimiter: of the lines, and of the CSV.
        errors: which of the chosen say why a row failed; empty they are null, where there is null.
    """

    columns: tuple[str, ...]
    chosen: tuple[int, ...]
    delimiter: str
    errors: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, columns: Sequence[str], wanted: Sequence[str] | None, delimiter: str, models: int = 0
    ) -> "Layout":
        """Return the layout for the wanted columns, all if None; what there is not is left out.

        `models`: how many have a column of their own that says why they failed.
        """
        names = list(columns)
        there = names if wanted is None else [one for one in wanted if one in names]
        chosen = tuple(names.index(one) for one in there or names)
        meta = len(names) - len(META_COLUMNS)
        said = {len(names) - 1, *range(meta - models, meta)}
        errors = tuple(place for place, number in enumerate(chosen) if number in said)
        return cls(tuple(names), chosen, delimiter, errors)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is written."""
        return tuple(self.columns[number] for number in self.chosen)

    @property
    def is_whole(self) -> bool:
        """Whether every column is written, in its order."""
        return self.chosen == tuple(range(len(self.columns)))

    def place_of(self, meta: str) -> int | None:
        """Return where one of our own columns is written; its name may have been changed by a clash."""
        number = len(self.columns) - len(META_COLUMNS) + META_COLUMNS.index(meta)
        return self.chosen.index(number) if number in self.chosen else None

    def cells(self, lines: list[bytes]) -> Iterator[list[str]]:
        """Yield what is written of each line."""
        csv.field_size_limit((1 << 31) - 1)
        rows = csv.reader((line.decode() for line in lines), delimiter=self.delimiter)
        return rows if self.is_whole else ([row[number] for number in self.chosen] for row in rows)


def csv_chunks(layout: Layout, blocks: Blocks) -> Iterator[bytes]:
    """Yield a CSV."""
    yield render_line(layout.names, layout.delimiter).encode()
    for block in blocks:
        if layout.is_whole:
            yield b"".join(block)
        else:
            yield "".join([render_line(row, layout.delimiter) for row in layout.cells(block)]).encode()


def jsonl_chunks(layout: Layout, blocks: Blocks) -> Iterator[bytes]:
    """Yield JSON Lines: every value a string, but `Batch_Size` a number and an empty error null."""
    names, size_at = layout.names, layout.place_of("Batch_Size")
    dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    for block in blocks:
        lines = []
        for row in layout.cells(block):
            values: list[Any] = list(row)
            if size_at is not None:
                values[size_at] = int(row[size_at])
            for place in layout.errors:
                values[place] = row[place] or None
            lines.append(dump(dict(zip(names, values, strict=True))))
            lines.append("\n")
        yield "".join(lines).encode()


def parquet_chunks(layout: Layout, blocks: Blocks) -> Iterator[bytes]:
    """Yield Parquet: every column a string, but `Batch_Size` an int32 and an empty error null."""
    # Merging should not wait for it, nor hold its memory, where nobody wants Parquet.
    from prism_merger.parquet_file import ParquetFile

    file = ParquetFile(layout.names, layout.place_of("Batch_Size"), layout.errors)
    count = size = 0
    for piece in _pieces(blocks):
        file.add(list(layout.cells(piece)))
        count, size = count + len(piece), size + sum(map(len, piece))
        if count >= GROUP_ROWS or size >= GROUP_BYTES:
            yield file.group()
            count = size = 0
    if count:
        yield file.group()
    yield file.end()


def _pieces(blocks: Blocks) -> Iterator[list[bytes]]:
    """Yield the lines in pieces that do not depend on how they come, each a part of a row group."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        for line in block:
            held.append(line)
            size += len(line)
            if len(held) >= PIECE_ROWS or size >= PIECE_BYTES:
                yield held
                held, size = [], 0
    if held:
        yield held


CHUNKS: dict[str, Callable[[Layout, Blocks], Iterator[bytes]]] = {
    "csv": csv_chunks,
    "jsonl": jsonl_chunks,
    "parquet": parquet_chunks,
}
