"""The rows of a file that several models did: what each made of a row, in one line.

Each model's rows come as a stream in the input's order, with the row's number. A row that one of them never
got (a run that was broken off) has empty cells and a reason there; a row that none has is not there.
"""

import csv
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from prism.runs.columns import META_COLUMNS
from prism.tables import neutralise, render_line
from prism_merger.rendering import split_lines
from prism_merger.store import RowReader

# Number of the row (0-based, in the run) and its line as one model's file has it.
NumberedLine = tuple[int, bytes]


class Line(NamedTuple):
    """One row's line as it is written, and whether the row has failed."""

    content: bytes
    failed: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the lines that are joined. `width`: columns of the input; `missing`: why a row never came."""

    width: int
    coded: int
    models: tuple[str, ...]
    delimiter: str
    missing: str = ""


def join(shape: Shape, streams: Sequence[Iterable[NumberedLine]]) -> Iterator[Line]:
    """Yield the rows of all streams, one stream for each model in `shape.models`, side by side.

    A line has the input's cells, then of each coded column every model's value, then of every model why it
    failed, then the product's own columns: all models, and the first failure.
    """
    csv.field_size_limit((1 << 31) - 1)
    tagged = (_tagged(number, stream) for number, stream in enumerate(streams))
    for _, group in groupby(heapq.merge(*tagged, key=itemgetter(0, 1)), key=itemgetter(0)):
        yield _joined(shape, {model: line for _, model, line in group})


def _tagged(model: int, stream: Iterable[NumberedLine]) -> Iterator[tuple[int, int, bytes]]:
    for ordinal, line in stream:
        yield ordinal, model, line


def _joined(shape: Shape, lines: dict[int, bytes]) -> Line:
    rows = {model: _cells(shape, line) for model, line in lines.items()}
    base = next(iter(rows.values()))
    meta = base[-len(META_COLUMNS) :]
    nothing = [""] * shape.coded
    values = [
        rows[model][shape.width : shape.width + shape.coded] if model in rows else nothing
        for model in range(len(shape.models))
    ]
    # An answer of another model is not merged: what a line says of its model is what was asked.
    names = [
        rows[model][-len(META_COLUMNS)] if model in rows else neutralise(name)
        for model, name in enumerate(shape.models)
    ]
    errors = [rows[model][-1] if model in rows else shape.missing for model in range(len(shape.models))]
    failure = next((one for one in errors if one), "")
    cells = [
        *base[: shape.width],
        *(of_model[column] for column in range(shape.coded) for of_model in values),
        *errors,
        ", ".join(names),
        *meta[1:-1],
        failure,
    ]
    return Line(render_line(cells, shape.delimiter).encode(), bool(failure))


def _cells(shape: Shape, line: bytes) -> list[str]:
    return next(csv.reader([line.decode()], delimiter=shape.delimiter, strict=True))


def stored_lines(rows: RowReader, file_id: int) -> Iterator[NumberedLine]:
    """Yield a file's merged rows in order."""
    for batch in rows.batches(file_id):
        yield from enumerate(split_lines(batch.lines, batch.lengths), batch.first_row)
