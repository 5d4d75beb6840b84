"""The unbroken prefix of a partition: what may be committed, while batches finish in any order.

Argument. Offsets are taken in order and finish in any order. The frontier is the lowest offset that
was taken and is not finished, or, when there is none, the offset after the last one taken. Committing
it can lose nothing: every offset below it is finished, that is, its result is acknowledged by the
broker. What is finished above it goes into the commit's metadata, so that the next owner does not pay
for it again. That list is bounded because `has_room` bounds how far above the frontier one may take.

Offsets need not be adjacent (transactions and compaction leave gaps): only taken ones count.
"""

from collections import deque
from collections.abc import Iterable, Sequence

# Above the frontier: 1000 alternating single offsets encode in under 4000 bytes (test_frontier).
MAX_SPAN = 1000

Run = tuple[int, int]


class OffsetFrontier:
    """One partition's taken and finished offsets, in one owner's hands."""

    def __init__(self, start: int, finished: Iterable[Run] = ()) -> None:
        """Start at a committed offset; `finished`: inclusive runs that a former owner finished."""
        self._taken: deque[int] = deque()
        self._unfinished: set[int] = set()
        self._position = start
        self._inherited = [run for run in finished if run[1] >= start]

    @property
    def committable(self) -> int:
        """The offset to commit: everything taken below it is finished."""
        return self._taken[0] if self._taken else self._position

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
        return self._position - self.committable < MAX_SPAN

    def was_finished(self, offset: int) -> bool:
        """Return whether a former owner finished this offset."""
        return any(first <= offset <= last for first, last in self._inherited)

    def take(self, offset: int) -> bool:
        """Note that an offset was received. Return False if it is finished already: nothing to do then."""
        if offset < self._position:
            raise ValueError(f"offset {offset} taken after {self._position - 1}")
        self._position = offset + 1
        self._taken.append(offset)
        if self.was_finished(offset):
            self._advance()
            return False
        self._unfinished.add(offset)
        return True

    def finish(self, offset: int) -> None:
        """Note that an offset's effect is durable. Finishing twice is harmless."""
        self._unfinished.discard(offset)
        self._advance()

    def _advance(self) -> None:
        while self._taken and self._taken[0] not in self._unfinished:
            self._taken.popleft()
        self._inherited = [run for run in self._inherited if run[1] >= self.committable]

    def finished_above(self) -> list[Run]:
        """Return the finished offsets above the frontier as inclusive runs, inherited ones included."""
        runs: list[Run] = []
        for offset in self._taken:
            if offset in self._unfinished:
                continue
            if runs and runs[-1][1] == offset - 1:
                runs[-1] = (runs[-1][0], offset)
            else:
                runs.append((offset, offset))
        for first, last in self._inherited:
            if last >= self._position:
                runs.append((max(first, self._position), last))
        return _joined(runs)


def _joined(runs: Sequence[Run]) -> list[Run]:
    joined: list[Run] = []
    for first, last in runs:
        if joined and joined[-1][1] >= first - 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
