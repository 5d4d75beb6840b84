"""Results made into the lines of the output when they are merged, so that publishing only concatenates.

The lines of a batch depend on nothing but the run and the result: whatever order results come in, and
however often the merger dies, the bytes are the same.
"""

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from prism.messages import Result, ResultRow
from prism.runs.columns import output_columns
from prism.tables import neutralise, render_line

MAX_DETAIL = 300
_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Labels repeat, free text does not: only short cells are worth remembering.
_CACHED_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class FailedRow:
    """One row without values: its 0-based number in the file, and why."""

    ordinal: int
    row_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RenderedBatch:
    """One batch as the store keeps it.

    Attributes:
        first_row: 0-based number of its first row in the file.
        lines: the lines of its rows, joined, UTF-8.
        lengths: bytes of each line, as an array of unsigned 32-bit integers.
        failed: its rows without values.
        ok: how many rows have values.
        values: the model's cells of those rows, as they stand in the lines.
    """

    first_row: int
    lines: bytes
    lengths: bytes
    failed: tuple[FailedRow, ...]
    ok: int
    values: tuple[list[str], ...] = ()

    @property
    def end_row(self) -> int:
        """0-based number of the row behind the last one."""
        return self.first_row + self.ok + len(self.failed)

    def reasons(self) -> Counter[str]:
        """Return how many rows failed, by reason."""
        return Counter(one.reason for one in self.failed)


def split_lines(lines: bytes, lengths: bytes) -> list[bytes]:
    """Return a stored batch's lines, one per row."""
    found, start = [], 0
    for length in array("I", lengths):
        found.append(lines[start : start + length])
        start += length
    return found


@lru_cache(maxsize=8192)
def _neutralise_label(cell: str) -> str:
    return neutralise(cell)


def _harmless(cell: str) -> str:
    return _neutralise_label(cell) if len(cell) <= _CACHED_CHARACTERS else neutralise(cell)


class FileRenderer:
    """Makes one file's lines: the input's cells as they came, the model's made harmless, then ours."""

    def __init__(
        self,
        run_id: str,
        columns: Sequence[str],
        coded: Sequence[str],
        delimiter: str,
        rows: int,
        batches: int,
        models: Sequence[str] = (),
    ) -> None:
        """`models`: which of several answer for its batches, in turn; none: the fleet's own may be any."""
        self._models = tuple(models)
        self._run_id = run_id
        self._width = len(columns)
        self._coded = len(coded)
        self._no_values = [""] * len(coded)
        self._delimiter = delimiter
        self._rows = rows
        self._batches = batches
        self.header = render_line(output_columns(columns, coded), delimiter).encode()

    def objection(self, result: Result) -> str | None:
        """Return why a result cannot be one of this file's, in a few words; None if it can."""
        if not 0 <= result.sequence < self._batches:
            return f"sequence {result.sequence} of {self._batches} batches"
        if not result.rows:
            return "no rows"
        if result.first_row < result.sequence or result.first_row + len(result.rows) > self._rows:
            return f"rows {result.first_row} to {result.first_row + len(result.rows)} of {self._rows}"
        last = result.sequence == self._batches - 1
        if last != (result.first_row + len(result.rows) == self._rows):
            return "the last batch and the last row do not come together"
        if self._models and result.model != self._models[result.sequence % len(self._models)]:
            return f"the answers of {result.model[:100]}, which was not asked"
        for row in result.rows:
            if row.reason is not None:
                if not _REASON.fullmatch(row.reason):
                    return "a reason that is no reason's name"
            elif row.values is None or len(row.values) != self._coded:
                return f"a row without a reason needs {self._coded} values"
        return None

    def render(self, result: Result) -> RenderedBatch:
        """Return the lines of a result to which there is no objection."""
        model, size = _harmless(result.model), str(result.batch_size)
        lengths = array("I")
        lines: list[bytes] = []
        failed: list[FailedRow] = []
        answered: list[list[str]] = []
        for number, row in enumerate(result.rows):
            if row.reason is None:
                values = [_harmless(value) for value in row.values or ()]
                answered.append(values)
            else:
                values = self._no_values
                failed.append(_failed(result.first_row + number, row))
            cells = [*self._fitted(row.cells), *values, model, size, self._run_id, row.reason or ""]
            line = render_line(cells, self._delimiter).encode()
            lengths.append(len(line))
            lines.append(line)
        return RenderedBatch(
            first_row=result.first_row,
            lines=b"".join(lines),
            lengths=lengths.tobytes(),
            failed=tuple(failed),
            ok=len(lines) - len(failed),
            values=tuple(answered),
        )

    def _fitted(self, cells: list[str]) -> list[str]:
        if len(cells) == self._width:
            return cells
        return [*cells[: self._width], *[""] * (self._width - len(cells))]


def _failed(ordinal: int, row: ResultRow) -> FailedRow:
    return FailedRow(ordinal, row.row_id, row.reason or "", (row.detail or "")[:MAX_DETAIL])
