"""The partitions this worker holds: their frontier, their note, and the epoch that guards commits.

Argument. A task remembers the epoch under which its batch was taken. When its result is acknowledged,
the frontier moves only if the partition is still held under that epoch: after a revocation and a new
assignment the old acknowledgement could otherwise move a frontier that starts elsewhere. The result
itself is produced in any case: the merger deduplicates, and dropping it would make slow calls starve
when partitions move often.
"""

from dataclasses import dataclass, replace

from prism.kafka.commit_note import CAREFUL_AFTER, CommitNote, Suspect
from prism.kafka.frontier import OffsetFrontier


@dataclass(slots=True)
class Holding:
    """One partition while it is held."""

    partition: int
    epoch: int
    frontier: OffsetFrontier
    note: CommitNote
    committed: tuple[int, str] | None = None

    @property
    def careful(self) -> bool:
        """Whether owners were lost here without progress: then one batch at a time, named first."""
        return self.note.losses >= CAREFUL_AFTER or self.frontier.committable < self.note.careful_until

    def suspect(self, suspect: Suspect | None) -> None:
        """Name what is about to be worked on alone, or nothing."""
        self.note = replace(self.note, suspect=suspect)

    def wanted_commit(self, release: bool = False) -> tuple[int, str]:
        """Return offset and metadata as they should be at the broker; `release` gives the partition back."""
        offset = self.frontier.committable
        note = replace(self.note, finished=tuple(self.frontier.finished_above()))
        if release:
            note = replace(note, owner="", suspect=None)
        return offset, note.encode(offset)

    def progressed(self) -> None:
        """Forgive the losses once the frontier has moved past what a lost owner may have had in hand."""
        if self.frontier.committable >= self.note.careful_until:
            self.note = replace(self.note, losses=0, careful_until=0, suspect=None)


class Holdings:
    """All partitions held, by number."""

    def __init__(self) -> None:
        self._held: dict[int, Holding] = {}
        self._epochs: dict[int, int] = {}

    def take(self, partition: int, offset: int, note: CommitNote) -> Holding:
        """Begin to hold a partition from a committed offset."""
        epoch = self._epochs.get(partition, 0) + 1
        self._epochs[partition] = epoch
        held = Holding(partition, epoch, OffsetFrontier(offset, note.finished), replace(note, finished=()))
        self._held[partition] = held
        return held

    def widen(self, span: int) -> None:
        """Note how many offsets of a partition may be in hand, where that is more than before."""
        for held in self._held.values():
            if held.note.span < span:
                held.note = replace(held.note, span=span)

    def drop(self, partition: int) -> None:
        """Stop holding a partition; what is still in flight of it can commit nothing any more."""
        self._held.pop(partition, None)

    def get(self, partition: int, epoch: int | None = None) -> Holding | None:
        """Return the holding, or None if it is not held (under that epoch) any more."""
        held = self._held.get(partition)
        return held if held is None or epoch in (None, held.epoch) else None

    def finish(self, partition: int, epoch: int, offset: int) -> bool:
        """Note that a batch's effect is durable. Return False if the partition has moved on."""
        held = self.get(partition, epoch)
        if held is None:
            return False
        before = held.frontier.committable
        held.frontier.finish(offset)
        if held.frontier.committable > before:
            held.progressed()
        return True

    def all(self) -> list[Holding]:
        """Return every holding."""
        return list(self._held.values())

    def partitions(self) -> list[int]:
        """Return the numbers of the partitions held."""
        return sorted(self._held)
