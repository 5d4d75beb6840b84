"""Which sequences of a file are merged: a frontier, and run lengths above it.

The memory is that of the gaps, not of the rows: at most a credit window's worth. Each stretch knows its
rows too, so that a result whose rows would overlap its neighbours', or leave a hole, is found at once.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Stretch:
    """Merged sequences `first` … `last`, which hold the rows `first_row` … `end_row` - 1."""

    first: int
    last: int
    first_row: int
    end_row: int


@dataclass(slots=True)
class MergedSequences:
    """Every sequence below `through` (and row below `rows`) is merged, and so is what lies in `above`."""

    through: int = 0
    rows: int = 0
    above: list[Stretch] = field(default_factory=list)

    def __contains__(self, sequence: int) -> bool:
        if sequence < self.through:
            return True
        index = self._index(sequence)
        return index >= 0 and sequence <= self.above[index].last

    def fits(self, sequence: int, first_row: int, end_row: int) -> bool:
        """Return whether a sequence that is not merged can have these rows, as far as its neighbours tell."""
        index = self._index(sequence)
        before_last, before_row = (
            (self.above[index].last, self.above[index].end_row)
            if index >= 0
            else (self.through - 1, self.rows)
        )
        if first_row < before_row or (before_last == sequence - 1 and first_row != before_row):
            return False
        if index + 1 == len(self.above):
            return True
        after = self.above[index + 1]
        return end_row <= after.first_row and (after.first != sequence + 1 or end_row == after.first_row)

    def add(self, sequence: int, first_row: int, end_row: int) -> None:
        """Note a sequence that is not merged yet and that fits."""
        if sequence == self.through:
            self.through, self.rows = sequence + 1, end_row
            if self.above and self.above[0].first == self.through:
                found = self.above.pop(0)
                self.through, self.rows = found.last + 1, found.end_row
            return
        index = self._index(sequence)
        after = self.above[index + 1] if index + 1 < len(self.above) else None
        joins_after = after is not None and after.first == sequence + 1
        if index >= 0 and self.above[index].last == sequence - 1:
            before = self.above[index]
            before.last, before.end_row = sequence, end_row
            if after is not None and joins_after:
                before.last, before.end_row = after.last, after.end_row
                del self.above[index + 1]
        elif after is not None and joins_after:
            after.first, after.first_row = sequence, first_row
        else:
            self.above.insert(index + 1, Stretch(sequence, sequence, first_row, end_row))

    @property
    def waiting(self) -> int:
        """How many sequences wait above the frontier for an earlier one."""
        return sum(one.last - one.first + 1 for one in self.above)

    def gaps(self, rows: int) -> list[tuple[int, int]]:
        """Return the row ranges [first, end) of a file of `rows` rows that are not merged."""
        edges = [(self.rows, self.rows), *((one.first_row, one.end_row) for one in self.above), (rows, rows)]
        return [(end, start) for (_, end), (start, _) in pairwise(edges) if end < start]

    def as_lists(self) -> list[list[int]]:
        """Return the stretches as they are stored."""
        return [[one.first, one.last, one.first_row, one.end_row] for one in self.above]

    def _index(self, sequence: int) -> int:
        """Return the last stretch that begins at or before the sequence; -1 for none."""
        return bisect_right(self.above, sequence, key=_first) - 1


def _first(stretch: Stretch) -> int:
    return stretch.first
