"""What a limit of calls at once did while it was held still, and how two of them compare.

A round follows the calls that begin in it, each to its end. Its mean latency so does not see bursts: a round
takes in at least as many calls as run at once, hence every phase of a server that answers in step once. By
Little's law, X = L ÷ W, latency and mean in flight are the throughput, far less noisily than counted answers.
"""

import math
from dataclasses import dataclass, field
from enum import Enum

# Least calls of a round, and how many it takes in at most for precision: so many, or turns of the limit.
ROUND_CALLS, NOISY_CALLS, NOISY_TURNS = 8, 60, 3
# Standard error of e that a round of noisy calls aims at.
PRECISION = 0.2
# Share of the limit that must be in flight for a round to tell anything.
FILLED = 0.9
# Share of a round's calls that may be left behind when it ends: stragglers.
STRAGGLERS = 0.1


@dataclass(slots=True)
class Sample:
    """What a limit did: the mean in flight, and a least-squares line of seconds over work."""

    area: float = 0.0
    span: float = 0.0
    n: float = 0.0
    work: float = 0.0
    seconds: float = 0.0
    work2: float = 0.0
    both: float = 0.0
    seconds2: float = 0.0

    def add(self, seconds: float, work: float) -> None:
        """Count one call."""
        self.n += 1
        self.work += work
        self.seconds += seconds
        self.work2 += work * work
        self.both += work * seconds
        self.seconds2 += seconds * seconds

    def merge(self, other: "Sample", most: float) -> None:
        """Count another sample of the same limit; older ones fade so that `n` stays below twice `most`."""
        fade = 0.5 if self.n > most else 1.0
        for name in self.__slots__:
            setattr(self, name, fade * getattr(self, name) + getattr(other, name))

    @property
    def in_flight(self) -> float:
        """Mean calls in flight."""
        return self.area / self.span if self.span else 0.0

    @property
    def mean_work(self) -> float:
        """Mean work of a call."""
        return self.work / self.n

    @property
    def mean_seconds(self) -> float:
        """Mean latency."""
        return self.seconds / self.n

    @property
    def slope(self) -> float:
        """Seconds per unit of work; 0 where the work did not differ."""
        spread = self.work2 - self.work**2 / self.n
        if spread <= 1e-9 * self.work2:
            return 0.0
        return max(0.0, (self.both - self.work * self.seconds / self.n) / spread)

    def latency(self, work: float) -> float:
        """Seconds of a call with so much work; no line is trusted to less than a tenth of the mean."""
        line = self.mean_seconds + self.slope * (work - self.mean_work)
        return max(1e-6, self.mean_seconds / 10, line)

    @property
    def noise(self) -> float:
        """Standard deviation of a call's seconds from the line, relative to their mean."""
        spread = self.seconds2 - self.seconds**2 / self.n
        explained = self.slope * (self.both - self.work * self.seconds / self.n)
        return math.sqrt(max(0.0, spread - explained) / self.n) / max(1e-6, self.mean_seconds)

    @property
    def error(self) -> float:
        """Standard error of ln(latency)."""
        return self.noise / math.sqrt(self.n)


def change(before: Sample, after: Sample) -> tuple[float, float]:
    """Return the change of ln(latency) for the same work, and its standard error."""
    work = after.mean_work
    return math.log(after.latency(work) / before.latency(work)), math.hypot(before.error, after.error)


def elasticity(low: Sample, high: Sample) -> tuple[float, float]:
    """Return e between two limits, and its standard error."""
    span = math.log(high.in_flight / low.in_flight)
    rise, error = change(low, high)
    return 1 - rise / span, error / span


def most_calls(limit: int) -> int:
    """Return how many calls are worth their time, however noisy."""
    return max(NOISY_CALLS, NOISY_TURNS * limit)


def calls_for(base: Sample, factor: float, limit: int) -> int:
    """Return how many calls on either side tell the elasticity between two limits."""
    needed = 2 * (base.noise / (PRECISION * math.log(factor))) ** 2
    return math.ceil(min(needed, most_calls(limit)))


class Kind(Enum):
    """What a round is for."""

    REST = "rest"
    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class Round:
    """A limit held still until `wanted` calls have begun under it, and nearly all of them have ended."""

    number: int
    kind: Kind
    target: int
    wanted: int
    begun: float
    opened: bool = False
    started: int = 0
    open: int = 0
    sample: Sample = field(default_factory=Sample)

    @property
    def collecting(self) -> bool:
        """Whether calls that begin now count."""
        return self.opened and self.started < self.wanted

    @property
    def complete(self) -> bool:
        """Whether what can be known is known."""
        return self.started >= self.wanted and self.open <= max(1, STRAGGLERS * self.wanted)

    def telling(self, kept: int) -> bool:
        """Whether the limit, less what was `kept` free, was made use of, and half of the calls ended well."""
        return 2 * self.sample.n >= self.wanted and self.sample.in_flight >= FILLED * (self.target - kept)
