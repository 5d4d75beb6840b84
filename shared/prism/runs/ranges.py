"""Row ranges: which rows of a file a run takes, and back from a taken row to its number in the file.

A range is a pair (first, last) of row numbers from 1, both included. No range at all means every row.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

from prism.runs.job import Job
from prism.tables import Row

RowRanges: TypeAlias = list[tuple[int, int]]


class RangesRefused(ValueError):
    """Ranges that name no rows, or a row twice."""


def ordered(ranges: Iterable[tuple[int, int]]) -> RowRanges:
    """Return ranges in the file's order. Raise RangesRefused."""
    found = sorted(ranges)
    for first, last in found:
        if not 1 <= first <= last:
            raise RangesRefused(f"the row range {first}-{last} names no rows: from 1, the lower number first")
    for (_, last), (first, _) in pairwise(found):
        if first <= last:
            raise RangesRefused(f"row {first} stands in two ranges")
    return found


def ranges_of(job: Job) -> RowRanges:
    """Return the rows that a job takes of each of its files."""
    if job.parallelization.split_strategy != "manual":
        return []
    return ordered((one.start, one.end) for one in job.parallelization.manual_ranges)


def taken(rows: Iterable[Row], ranges: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Yield the rows that lie in the ranges; what lies behind the last range is not read."""
    if not ranges:
        yield from rows
        return
    left = iter(ranges)
    first, last = next(left)
    for row in rows:
        number = row.ordinal + 1
        while number > last:
            found = next(left, None)
            if found is None:
                return
            first, last = found
        if number >= first:
            yield row


class RowNumbers:
    """From the number of a taken row, from 0, back to its number in the file, from 1."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = ranges
        self._ends = list(accumulate(last - first + 1 for first, last in ranges))

    def __getitem__(self, ordinal: int) -> int:
        if not self._ranges:
            return ordinal + 1
        index = min(bisect_right(self._ends, ordinal), len(self._ranges) - 1)
        before = self._ends[index - 1] if index else 0
        return self._ranges[index][0] + ordinal - before

    def stretches(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the taken rows [first, end) as stretches of the same that lie together in the file."""
        edges = [one for one in self._ends if first < one < end]
        yield from pairwise([first, *edges, end])
