"""Part files: rows [k × interval, (k+1) × interval) of a file, as soon as they are all merged.

A part's bytes depend on the merged rows alone. It appears by a rename, and is noted in the store
afterwards: a death between the two writes the same bytes again.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from prism.service import fault
from prism_merger.places import Places
from prism_merger.rendering import split_lines
from prism_merger.store import RowReader
from prism_merger.volume import replace_file

# The thread that writes parts also writes outputs: it takes turns.
_TURN_S = 0.25


@dataclass(frozen=True, slots=True)
class PartsOrder:
    """What to write of one file: the parts whose rows lie below `rows`.

    `last` asks for the shorter part at the end too. `parts` are written already; the next one's first row
    lies in the batch `sequence`.
    """

    run_id: str
    label: str
    file_id: int
    header: bytes
    interval: int
    rows: int
    last: bool
    parts: int
    sequence: int

    @property
    def due(self) -> bool:
        """Whether there is a part to write."""
        written = self.parts * self.interval
        return self.rows >= written + self.interval or (self.last and self.rows > written)


@dataclass(frozen=True, slots=True)
class PartsWritten:
    """How far the parts are."""

    parts: int
    sequence: int


def write_parts(order: PartsOrder, rows: RowReader, places: Places) -> PartsWritten:
    """Write what is due, for a quarter of a second at most, but one part at least."""
    done = PartsWritten(order.parts, order.sequence)
    until = time.monotonic() + _TURN_S
    while True:
        first = done.parts * order.interval
        end = min(first + order.interval, order.rows)
        if end <= first or (end - first < order.interval and not order.last):
            return done
        chosen = _Chosen(order, rows, done.sequence, first, end)
        path = places.part(order.run_id, order.label, done.parts + 1)
        replace_file(path, chosen.lines())
        fault.point("merger.after_part_written", f"{order.run_id}/{order.label}/{done.parts + 1}")
        done = PartsWritten(done.parts + 1, chosen.next_sequence)
        if time.monotonic() > until:
            return done


def remove_parts(run_id: str, label: str, parts: int, places: Places) -> None:
    """Remove a run's parts, for jobs with `cleanup_after_merge`."""
    for number in range(1, parts + 1):
        places.part(run_id, label, number).unlink(missing_ok=True)


class _Chosen:
    """The lines of the rows [first, end), and the batch in which the next part begins."""

    def __init__(self, order: PartsOrder, rows: RowReader, sequence: int, first: int, end: int) -> None:
        self._order = order
        self._rows = rows
        self._first, self._end = first, end
        self.next_sequence = sequence

    def lines(self) -> Iterator[bytes]:
        yield self._order.header
        for batch in self._rows.batches(self._order.file_id, self.next_sequence):
            lines = split_lines(batch.lines, batch.lengths)
            end_row = batch.first_row + len(lines)
            skipped = max(0, self._first - batch.first_row)
            yield b"".join(lines[skipped : self._end - batch.first_row])
            self.next_sequence = batch.sequence + (end_row <= self._end)
            if end_row >= self._end:
                return
