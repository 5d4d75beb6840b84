"""What of one file is fed and not merged: the cursor's two positions, and what is lost between them.

Argument. Sequences are fed in order, so every sequence below `next` was fed at least once, and every
one below `oldest` is merged. Between them each sequence is either merged (the merger says so) or
outstanding here, with the place in `prism.batches` where it was last put. An outstanding batch is
*passed* when the workers' group has committed past its place: its result was acknowledged before that
commit, so it lies below the end that `prism.results` had after the commit was seen. Once the merger
has read to that end and the sequence is still not merged, its result is gone: it is lost, and is fed
again under the same name. Feeding a batch that was not lost is harmless too (the first result wins);
it only costs a call.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prism.messages import CutPosition, FileCursor, FileProgress

MAX_FEEDINGS = 3

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BrokerView:
    """What the broker said of `prism.batches` and the end of one results partition, in this order.

    It says nothing of a batch that was acknowledged after `asked_at`, when the first question was sent.
    """

    committed: Mapping[int, int]
    low: Mapping[int, int]
    high: Mapping[int, int]
    results_end: Mapping[int, int]
    asked_at: float = math.inf

    def passed(self, place: Place) -> bool:
        """Return whether nobody will work on what was put at this place any more."""
        partition, offset = place
        if offset >= self.high.get(partition, 0):
            return True  # the topic was deleted and made again
        if offset < self.low.get(partition, 0):
            return True  # deleted below it
        return offset < self.committed.get(partition, 0)


@dataclass(slots=True)
class Outstanding:
    """One batch that was fed and is not merged."""

    start: CutPosition
    partition: int = -1
    place: Place | None = None
    acknowledged: bool = False
    acknowledged_at: float = -math.inf
    # By the same clock, of the first feeding; None: another ingestor's.
    fed_at: float | None = None
    feedings: int = 1
    results_end: int | None = None


@dataclass(slots=True)
class FeedTracker:
    """One file's fed and unmerged batches."""

    next: CutPosition = field(default_factory=CutPosition)
    outstanding: dict[int, Outstanding] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)

    @property
    def unmerged(self) -> int:
        """How many batches count against the window."""
        return len(self.outstanding)

    def oldest(self) -> CutPosition:
        """Return where the oldest batch begins that may have to be fed again."""
        if not self.outstanding:
            return self.next
        return self.outstanding[min(self.outstanding)].start

    def cursor(self) -> FileCursor:
        """Return the cursor to write: `next` only counts what the broker has acknowledged."""
        unacknowledged = [seq for seq, one in self.outstanding.items() if not one.acknowledged]
        reached = self.outstanding[min(unacknowledged)].start if unacknowledged else self.next
        return FileCursor(next=reached, oldest=self.oldest(), refed=dict(self.lost))

    def fed(self, start: CutPosition, end: CutPosition, partition: int) -> None:
        """Note that the batch at `start` was handed to the producer for the first time."""
        self.outstanding[start.sequence] = Outstanding(start=start, partition=partition)
        self.next = end

    def found(self, start: CutPosition, end: CutPosition, place: Place | None) -> None:
        """Note a batch that an earlier ingestor fed; no place means the workers have passed it."""
        self.outstanding[start.sequence] = Outstanding(
            start=start,
            partition=place[0] if place else -1,
            place=place,
            acknowledged=True,
            feedings=1 + self.lost.get(start.sequence, 0),
        )
        self.next = end

    def skipped(self, end: CutPosition) -> None:
        """Note a batch that is merged already."""
        self.next = end

    def acknowledged(self, sequence: int, place: Place, now: float) -> None:
        """Note where the broker put a batch, and when it said so."""
        one = self.outstanding.get(sequence)
        if one is not None:
            one.place, one.acknowledged, one.results_end = place, True, None
            one.acknowledged_at = now
            if one.feedings == 1:
                one.fed_at = now

    def merged(self, progress: FileProgress) -> list[Outstanding]:
        """Take in absolute counts; return the batches that this frees."""
        done = [seq for seq in self.outstanding if is_merged(progress, seq)]
        for sequence in done:
            self.lost.pop(sequence, None)
        return [self.outstanding.pop(sequence) for sequence in done]

    def note_view(self, view: BrokerView, results_partition: int) -> None:
        """Mark what the workers have passed with the end of the results as it was after that."""
        end = view.results_end.get(results_partition, 0)
        for one in self.outstanding.values():
            if not one.acknowledged or one.acknowledged_at > view.asked_at:
                continue
            if one.place is not None and not view.passed(one.place):
                continue
            # A lower end means that the topic was made again.
            if one.results_end is None or end < one.results_end:
                one.results_end = end

    def lost_sequences(self, read_to: int) -> list[int]:
        """Return what is passed, and not merged though the merger has read to `read_to`."""
        return [
            seq
            for seq, one in self.outstanding.items()
            if one.results_end is not None and read_to >= one.results_end
        ]

    def fed_again(self, sequence: int, partition: int) -> int:
        """Note that a lost batch was handed to the producer again; return how often it has been fed."""
        one = self.outstanding[sequence]
        one.feedings += 1
        one.partition = partition
        one.place, one.acknowledged, one.results_end = None, False, None
        self.lost[sequence] = one.feedings - 1
        return one.feedings


def is_merged(progress: FileProgress, sequence: int) -> bool:
    """Return whether a sequence is merged."""
    if sequence < progress.merged_through:
        return True
    return any(first <= sequence <= last for first, last in progress.merged_above)


def highest_merged(progress: FileProgress) -> int:
    """Return the highest merged sequence, -1 for none."""
    return max([progress.merged_through - 1, *(last for _, last in progress.merged_above)])


def resume_point(cursor: FileCursor, progress: FileProgress, found: Iterable[int]) -> int:
    """Return the first sequence that was never fed.

    The cursor is a second old at worst; what was fed since lies in `prism.batches` (`found`) or is merged.
    """
    return max([cursor.next.sequence, highest_merged(progress) + 1, *(seq + 1 for seq in found)])
