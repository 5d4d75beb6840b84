"""How far several models agree on a column: counted row by row, in memory that has an end.

Argument. Of a row that every model has answered, Krippendorff's alpha (nominal) needs how many of them gave
the same label, and how often each label was given in all; Cohen's kappa of two models needs how often they
gave each pair of labels. So rows are counted by their division (of three models: 3, 2 + 1 or 1 + 1 + 1),
labels by their frequency, and pairs by their cell: exact, however many rows there are. The libraries do the
rest. A column in which more labels or pairs come up than are kept apart has no measure; its shares are exact.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from prism_merger.reports.counting import BoundedCounter
from prism_merger.reports.findings import (
    CROSSED_LABELS,
    OTHERS,
    ColumnAgreement,
    CrossTable,
    PairAgreement,
    Vocabulary,
)

# Both measures take time that grows with the square of the labels.
MOST_LABELS = 200
MOST_PAIRS = 5_000

# What each model made of a row, in the models' order; None: it failed.
Answers = Sequence[str | None]


@dataclass(slots=True)
class _Pair:
    """Two models. `cells`: rows by what the one and the other gave."""

    rows: int = 0
    same: int = 0
    cells: BoundedCounter[tuple[str, str]] = field(default_factory=lambda: BoundedCounter(MOST_PAIRS))

    @property
    def labels(self) -> list[str]:
        """What the two gave."""
        return sorted({label for cell in self.cells.counts for label in cell})

    @property
    def is_crowded(self) -> bool:
        """Whether more came up than kappa is computed for."""
        return self.cells.beyond > 0 or len(self.labels) > MOST_LABELS

    def add(self, first: str, second: str, count: int) -> None:
        """Count rows in."""
        self.rows += count
        self.same += count * (first == second)
        self.cells.add((first, second), count)


class Agreement:
    """What the models made of one column. `columns`: the column as each model's stands in the output."""

    def __init__(self, models: Sequence[str], columns: Sequence[str]) -> None:
        self._models = tuple(models)
        self._columns = tuple(columns)
        self._asked = self._rows = self._same = 0
        self._divisions: Counter[tuple[int, ...]] = Counter()
        self._labels: BoundedCounter[str] = BoundedCounter(MOST_LABELS)
        self._pairs = {one: _Pair() for one in combinations(range(len(models)), 2)}

    def add(self, answers: Answers, count: int = 1) -> None:
        """Count rows in that all have these answers."""
        self._asked += count
        given = Counter(one for one in answers if one is not None)
        if given.total() == len(self._models):
            self._rows += count
            self._same += count * (len(given) == 1)
            self._divisions[tuple(sorted(given.values()))] += count
            for label, times in given.items():
                self._labels.add(label, times * count)
        for (first, second), pair in self._pairs.items():
            one, other = answers[first], answers[second]
            if one is not None and other is not None:
                pair.add(one, other, count)

    def result(self, column: str, vocabulary: Vocabulary) -> ColumnAgreement:
        """Return what was counted; `vocabulary` says how stored labels are shown, and their order."""
        return ColumnAgreement(
            column=column,
            asked=self._asked,
            rows=self._rows,
            same=self._same,
            alpha=None if self._labels.beyond else krippendorff(self._divisions, self._labels.counts),
            crowded=bool(self._labels.beyond) or any(one.is_crowded for one in self._pairs.values()),
            pairs=tuple(
                self._pair(first, second, pair, vocabulary) for (first, second), pair in self._pairs.items()
            ),
        )

    def _pair(self, first: int, second: int, pair: _Pair, vocabulary: Vocabulary) -> PairAgreement:
        kappa = None if pair.cells.beyond else cohen(pair.cells.counts)
        table = contingency((self._columns[first], self._columns[second]), pair.cells, vocabulary)
        return PairAgreement(self._models[first], self._models[second], pair.rows, pair.same, kappa, table)


def krippendorff(divisions: Mapping[tuple[int, ...], int], labels: Mapping[str, int]) -> float | None:
    """Return the nominal alpha; None where nothing could have differed.

    `divisions`: rows by how many models gave the same label; `labels`: how often each was given in them.
    """
    if not 2 <= len(labels) <= MOST_LABELS:
        return None
    from nltk.metrics.agreement import AnnotationTask
    from nltk.probability import FreqDist

    disagreement = AnnotationTask().Disagreement
    given = sum(labels.values())
    observed = sum(
        rows * sum(one) * disagreement(FreqDist(dict(enumerate(one)))) for one, rows in divisions.items()
    )
    return _finite(1.0 - observed / given / disagreement(FreqDist(labels)))


def cohen(cells: Mapping[tuple[str, str], int]) -> float | None:
    """Return kappa of two models from their contingency table; None where nothing could have differed."""
    labels = sorted({label for pair in cells for label in pair})
    if not 2 <= len(labels) <= MOST_LABELS:
        return None
    from pycm import ConfusionMatrix

    matrix = {
        str(number): {str(place): cells.get((one, other), 0) for place, other in enumerate(labels)}
        for number, one in enumerate(labels)
    }
    return _finite(ConfusionMatrix(matrix=matrix).Kappa)


def _finite(value: object) -> float | None:
    # pycm says "None" of what it cannot compute.
    return float(value) if isinstance(value, float | int) and math.isfinite(value) else None


def contingency(
    names: tuple[str, str],
    counted: BoundedCounter[tuple[str, str]],
    vocabulary: Vocabulary,
    most: int = CROSSED_LABELS,
) -> CrossTable | None:
    """Return two models' common table, both sides with the same labels in the prompt's order, rarer ones as
    others; None without rows."""
    if not counted.total:
        return None
    times: Counter[str] = Counter()
    for pair, count in counted.counts.items():
        for label in pair:
            times[label] += count
    order = {label: place for place, label in enumerate(vocabulary.listed)}
    kept = sorted(
        (label for label, _ in times.most_common(most)), key=lambda one: (order.get(one, len(order)), one)
    )
    places = {label: place for place, label in enumerate(kept)}
    size = len(kept) + (len(times) > len(kept) or counted.beyond > 0)
    counts = [[0] * size for _ in range(size)]
    for (one, other), count in counted.counts.items():
        counts[places.get(one, size - 1)][places.get(other, size - 1)] += count
    if counted.beyond:
        counts[-1][-1] += counted.beyond
    shown = [vocabulary.shown(label) for label in kept] + [OTHERS] * (size - len(kept))
    return CrossTable(*names, tuple(shown), tuple(shown), tuple(map(tuple, counts)))
