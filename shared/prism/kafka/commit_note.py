"""What travels in a commit's metadata: finished offsets, who holds the partition, who is suspected.

The note outlives its writer, which is the point: a process that died can say nothing more. An owner
writes its name on taking a partition and clears it on giving it back, so a name found there means
that the last owner died or was stopped: one unclean loss. After two without progress the next owner
is careful: it works on one batch at a time and names it here before it starts.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from prism.kafka.frontier import Run

# The broker refuses 4097 bytes and more (measured; `offset.metadata.max.bytes`).
MAX_BYTES = 4000
# After this many unclean losses without progress an owner is careful.
CAREFUL_AFTER = 2


@dataclass(frozen=True, slots=True)
class Suspect:
    """A batch, or one row of it, that was worked on alone when its owner was lost."""

    offset: int
    row: int | None = None
    deaths: int = 0
    poisoned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitNote:
    """The metadata of one partition's commit."""

    topic: str = ""
    owner: str = ""
    losses: int = 0
    careful_until: int = 0
    suspect: Suspect | None = None
    finished: tuple[Run, ...] = ()
    # How many offsets its owner may have in hand.
    span: int = 0

    def encode(self, committed: int) -> str:
        """Return the text for a commit at `committed`: at most MAX_BYTES, the furthest runs left out."""
        runs = list(self.finished)
        while True:
            text = json.dumps(self._fields(committed, runs), separators=(",", ":"))
            if len(text) <= MAX_BYTES:
                return text
            if not runs:
                return CommitNote(self.topic, self.owner, span=self.span).encode(committed)
            # What is left out is paid for again after a death; it is never lost.
            runs = runs[: max(0, len(runs) * 3 // 4)]

    def _fields(self, committed: int, runs: list[Run]) -> dict[str, object]:
        fields: dict[str, object] = {"t": self.topic, "o": self.owner}
        if runs:
            fields["f"] = _encode_runs(committed, runs)
        if self.losses:
            fields["l"] = self.losses
        if self.careful_until:
            fields["c"] = self.careful_until
        if self.span:
            fields["w"] = self.span
        if self.suspect is not None:
            one = self.suspect
            fields["s"] = [one.offset, one.row, one.deaths, list(one.poisoned)]
        return fields

    @classmethod
    def decode(cls, text: str | None, committed: int) -> "CommitNote":
        """Return the note in a commit's metadata; an empty note for text that is none of ours."""
        try:
            fields = json.loads(text or "")
            suspect = fields.get("s")
            return cls(
                topic=str(fields["t"]),
                owner=str(fields["o"]),
                losses=int(fields.get("l", 0)),
                careful_until=int(fields.get("c", 0)),
                suspect=_decode_suspect(suspect) if suspect else None,
                finished=tuple(_decode_runs(committed, str(fields.get("f", "")))),
                span=int(fields.get("w", 0)),
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return cls()

    def taken_over(self, topic: str, owner: str, committed: int, span: int) -> "CommitNote":
        """Return the note of a new owner.

        `span` is how many offsets the last owner may have had in flight: so far one is careful. With none
        there was nothing here that could have killed it: that is no loss.
        A note about another topic of the same name says nothing.
        """
        if self.topic != topic:
            return CommitNote(topic=topic, owner=owner)
        if self.owner in ("", owner) or span <= 0:
            return replace(self, owner=owner)
        losses = self.losses + 1
        suspect = replace(self.suspect, deaths=self.suspect.deaths + 1) if self.suspect else None
        until = self.careful_until
        if losses >= CAREFUL_AFTER:
            until = max(until, committed + span)
        return replace(self, owner=owner, losses=losses, suspect=suspect, careful_until=until)


def _decode_suspect(fields: list[Any]) -> Suspect:
    row = None if fields[1] is None else int(fields[1])
    return Suspect(int(fields[0]), row, int(fields[2]), tuple(int(one) for one in fields[3]))


def _encode_runs(committed: int, runs: list[Run]) -> str:
    steps: list[str] = []
    place = committed
    for first, last in runs:
        steps.append(f"{first - place:x}" if last == first else f"{first - place:x}+{last - first:x}")
        place = last + 1
    return ".".join(steps)


def _decode_runs(committed: int, text: str) -> list[Run]:
    runs: list[Run] = []
    place = committed
    for step in filter(None, text.split(".")):
        gap, _, length = step.partition("+")
        first = place + int(gap, 16)
        last = first + int(length or "0", 16)
        runs.append((first, last))
        place = last + 1
    return runs
