"""Counters whose memory has an end, whatever is counted."""

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MOST_VALUES = 20_000


@dataclass(slots=True)
class BoundedCounter(Generic[K]):
    """Counts values; of those that come after `most` different ones it knows only how many there were."""

    most: int = MOST_VALUES
    counts: Counter[K] = field(default_factory=Counter)
    beyond: int = 0

    def add(self, value: K, count: int = 1) -> None:
        """Count a value some times."""
        if value in self.counts or len(self.counts) < self.most:
            self.counts[value] += count
        else:
            self.beyond += count

    @property
    def total(self) -> int:
        """How much was counted."""
        return self.counts.total() + self.beyond


# Four steps to a doubling, from 1 to a million: a quantile is at most a fifth off, most often far less.
EDGES = tuple(sorted({math.ceil(2 ** (step / 4)) for step in range(81)}))


@dataclass(slots=True)
class Lengths:
    """Lengths of texts in characters: exact extremes and mean, quantiles from a histogram over EDGES.

    A length belongs to the first bin whose edge is not below it.
    """

    bins: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))
    total: int = 0
    least: int | None = None
    most: int = 0

    @property
    def count(self) -> int:
        return sum(self.bins)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def add(self, bins: list[int], total: int, least: int, most: int) -> None:
        """Take in what some texts' lengths are: how many per bin, their sum and extremes."""
        self.bins = [one + other for one, other in zip(self.bins, bins, strict=True)]
        self.total += total
        self.least = least if self.least is None else min(self.least, least)
        self.most = max(self.most, most)

    def quantile(self, share: float) -> int:
        """Return the length below which about this share of the texts are; 0 without texts."""
        wanted, before = share * self.count, 0
        for number, count in enumerate(self.bins):
            if count and before + count >= wanted:
                lower = max(self.least or 0, EDGES[number - 1] + 1 if number else 0)
                upper = min(self.most, EDGES[number] if number < len(EDGES) else self.most)
                return lower + round((upper - lower) * max(0.0, wanted - before) / count)
            before += count
        return 0
