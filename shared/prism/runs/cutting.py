"""Rows cut into batches. A sequence names a fixed row range: the same rows give the same cuts, always.

What decides a cut is in the file and the job alone (rows, bytes as they lie in the file), never in
timing, so that any process that cuts again, from any batch's position, gets the same batches.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prism.messages import BatchRow, CutPosition
from prism.tables import Position, Row

MAX_BATCH_BYTES = 512_000


@dataclass(frozen=True, slots=True)
class Cut:
    """One batch's rows, and where the next batch begins."""

    start: CutPosition
    end: CutPosition
    rows: tuple[Row, ...]

    def batch_rows(self) -> list[BatchRow]:
        """Return the rows as they travel."""
        return [
            BatchRow.model_construct(row_id=row.row_id, cells=list(row.cells), rejected=row.problem)
            for row in self.rows
        ]


def row_position(cut: CutPosition) -> Position | None:
    """Return where to read on; None is the first row."""
    if cut.offset == 0:
        return None
    return Position(ordinal=cut.ordinal + cut.skipped, offset=cut.offset, line=cut.line)


def cut_rows(
    rows: Iterable[Row], batch_size: int, start: CutPosition, max_bytes: int = MAX_BATCH_BYTES
) -> Iterator[Cut]:
    """Cut rows, the first of which stands at `start` or is the first taken behind it, into batches."""
    held: list[Row] = []
    size = 0
    for row in rows:
        bytes_of_row = row.end.offset - row.start.offset
        if held and (len(held) == batch_size or size + bytes_of_row > max_bytes):
            cut = _close(start, held)
            yield cut
            start, held, size = cut.end, [], 0
        held.append(row)
        size += bytes_of_row
    if held:
        yield _close(start, held)


def _close(start: CutPosition, held: list[Row]) -> Cut:
    end = held[-1].end
    ordinal = start.ordinal + len(held)
    after = CutPosition(
        sequence=start.sequence + 1,
        ordinal=ordinal,
        skipped=end.ordinal - ordinal,
        offset=end.offset,
        line=end.line,
    )
    return Cut(start=start, end=after, rows=tuple(held))
