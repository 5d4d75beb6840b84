"""How a run went on: its absolute counts at moments that lie further apart the longer it lasts."""

from dataclasses import dataclass, field
from typing import NamedTuple

MOST_MOMENTS = 120


class Moment(NamedTuple):
    """Counts so far, `seconds` after the run's first result."""

    seconds: float
    rows: int
    failed: int
    tokens: int


@dataclass(slots=True)
class Timeline:
    """At most MOST_MOMENTS; when there are more, every other one goes, and they come half as often."""

    every_s: float = 1.0
    moments: list[Moment] = field(default_factory=list)

    def is_due(self, seconds: float) -> bool:
        """Whether a moment is wanted now."""
        return not self.moments or seconds - self.moments[-1].seconds >= self.every_s

    def note(self, moment: Moment) -> None:
        """Keep a moment that is not before the last."""
        self.moments.append(moment)
        if len(self.moments) > MOST_MOMENTS:
            self.moments = self.moments[::2]
            self.every_s *= 2
