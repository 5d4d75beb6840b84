"""The unbroken prefix of a partition: what may be committed, while batches finish in any order.

Argument. Offsets are taken in order and finish in any order. The frontier is the lowest offset that
was taken and is not finished, or, when there is none, the offset after the last one taken. Committing
it can lose nothing: every offset below it is finished, that is, its result is acknowledged by the
broker. What is finished above it goes into the commit's metadata, so that the next owner does not pay
for it again. That list is bounded because `has_room` bounds how far above the frontier one may take, or,
further up, in how many pieces: an offset that waits for long (its model server is away) ends one run of
finished ones and begins the next, however many others finish behind it.

Offsets need not be adjacent (transactions and compaction leave gaps): only taken ones count.
"""

from bisect import bisect
from collections import deque
from collections.abc import Iterable, Sequence

# Above the frontier: 1000 alternating single offsets encode in under 4000 bytes (test_frontier).
MAX_SPAN = 1000
# Further above it: so many runs of any length do, and none is left that could make more of them.
MAX_PIECES = 200

Run = tuple[int, int]


class OffsetFrontier:
    """One partition's taken and finished offsets, in one owner's hands.

    Memory and time go by what is unfinished, not by how much was finished above the frontier.
    """

    def __init__(self, start: int, finished: Iterable[Run] = ()) -> None:
        """Start at a committed offset; `finished`: inclusive runs that a former owner finished."""
        # The unfinished ones in their order; some that are finished may still stand among them.
        self._order: deque[int] = deque()
        self._unfinished: set[int] = set()
        # Taken and finished above the frontier.
        self._above: list[Run] = []
        self._position = start
        self._inherited = [run for run in finished if run[1] >= start]

    @property
    def committable(self) -> int:
        """The offset to commit: everything taken below it is finished."""
        return self._order[0] if self._order else self._position

    @property
    def in_flight(self) -> int:
        """How many taken offsets are not finished."""
        return len(self._unfinished)

    @property
    def position(self) -> int:
        """The offset after the last one taken."""
        return self._position

    def has_room(self) -> bool:
        """Whether one more may be taken without overflowing the commit's metadata."""
        if self._position - self.committable < MAX_SPAN:
            return True
        return len(self._unfinished) + len(self._above) < MAX_PIECES

    def was_finished(self, offset: int) -> bool:
        """Return whether a former owner finished this offset."""
        return any(first <= offset <= last for first, last in self._inherited)

    def take(self, offset: int) -> bool:
        """Note that an offset was received. Return False if it is finished already: nothing to do then."""
        if offset < self._position:
            raise ValueError(f"offset {offset} taken after {self._position - 1}")
        self._position = offset + 1
        if self.was_finished(offset):
            self._finished(offset)
            return False
        self._order.append(offset)
        self._unfinished.add(offset)
        return True

    def finish(self, offset: int) -> None:
        """Note that an offset's effect is durable. Finishing twice is harmless."""
        if offset in self._unfinished:
            self._unfinished.remove(offset)
            self._finished(offset)

    def _finished(self, offset: int) -> None:
        place = bisect(self._above, (offset, offset))
        joins_before = place > 0 and self._above[place - 1][1] == offset - 1
        joins_after = place < len(self._above) and self._above[place][0] == offset + 1
        first = self._above[place - 1][0] if joins_before else offset
        last = self._above[place][1] if joins_after else offset
        self._above[place - joins_before : place + joins_after] = [(first, last)]
        self._advance()

    def _advance(self) -> None:
        while self._order and self._order[0] not in self._unfinished:
            self._order.popleft()
        if len(self._order) > 2 * len(self._unfinished) + MAX_SPAN:
            self._order = deque(one for one in self._order if one in self._unfinished)
        frontier = self.committable
        if self._above[0][1] < frontier:
            self._above = [run for run in self._above if run[1] >= frontier]
        self._inherited = [run for run in self._inherited if run[1] >= frontier]

    def finished_above(self) -> list[Run]:
        """Return the finished offsets above the frontier as inclusive runs, inherited ones included."""
        to_come = [(max(first, self._position), last) for first, last in self._inherited]
        return _joined([*self._above, *(run for run in to_come if run[0] <= run[1])])


def _joined(runs: Sequence[Run]) -> list[Run]:
    joined: list[Run] = []
    for first, last in runs:
        if joined and joined[-1][1] >= first - 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
