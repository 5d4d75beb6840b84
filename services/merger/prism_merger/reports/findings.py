"""What the rows of a run say, as plain data: what all three reports show."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prism.annotation.column import is_nothing
from prism_merger.reports.counting import BoundedCounter, Lengths

OTHERS = "others"
TOP_LABELS = 20
CROSSED_LABELS = 12


class Origin(StrEnum):
    """Where a value comes from."""

    LISTED = "listed"  # the prompt's list
    RULED = "ruled"  # the prompt's rules: not applicable, closed, set by a condition
    ORGANIC = "organic"  # the model's own
    FREE = "free"  # of a column without a list
    OTHERS = "others"  # several values counted together


@dataclass(frozen=True, slots=True)
class Slice:
    """One value and how many rows have it."""

    value: str
    count: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often each value stands in a column, the most frequent first.

    Attributes:
        column: as the output calls it.
        listed: whether the prompt has a list for it.
        slices: every value that was counted; the listed ones also where no row has them.
        total: rows with an answer.
        beyond: how many of them have values that came after the most that are kept apart.
    """

    column: str
    listed: bool
    slices: tuple[Slice, ...]
    total: int
    beyond: int

    def top(self, most: int = TOP_LABELS) -> list[Slice]:
        """Return the most frequent values, the rest counted together: their sum is `total`."""
        shown = list(self.slices[:most])
        rest, values = self.total - sum(one.count for one in shown), len(self.slices) - len(shown)
        if rest:
            several = f"{values:,} {OTHERS}" if values and not self.beyond else OTHERS
            shown.append(Slice(several, rest, Origin.OTHERS))
        return shown


@dataclass(frozen=True, slots=True)
class CrossTable:
    """Rows by the values of two columns; `counts[i][j]`: rows with rows[i] and columns[j]."""

    row_column: str
    column_column: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        return sum(map(sum, self.counts))


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as an example. `row`: its number in the file, from 1; `text`: a message, or what was said."""

    label: str
    row: int
    row_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason, how many rows failed for it, and some of them."""

    reason: str
    count: int
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Organic:
    """A value that the prompt's list does not have, and some rows that got it."""

    column: str
    value: str
    count: int
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretch:
    """How rows fared in equal stretches of one file: rows and failed rows of each; a short file has fewer."""

    label: str
    rows: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Lengths of the texts of one kind, in characters. `group`: a label, or "" for all."""

    column: str
    group: str
    lengths: Lengths


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two models on one column.

    Attributes:
        first, second: the models.
        rows: that both answered; `same`: alike.
        kappa: Cohen's; None where nothing could have differed, or more labels came up than it is made for.
        table: rows by what the one and the other gave; None without rows.
    """

    first: str
    second: str
    rows: int
    same: int
    kappa: float | None
    table: CrossTable | None


@dataclass(frozen=True, slots=True)
class ColumnAgreement:
    """All models on one column.

    Attributes:
        column: as the prompt calls it.
        asked: rows; `rows`: that every model answered; `same`: all alike.
        alpha: Krippendorff's, nominal, of those rows; None as for kappa.
        crowded: whether a measure is left out because too many labels came up.
    """

    column: str
    asked: int
    rows: int
    same: int
    alpha: float | None
    crowded: bool
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """What each of several models gave in one column; nothing where it failed. `differ`: whether two do."""

    column: str
    given: tuple[str, ...]
    differ: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """A row on which models differ. `row`: its number in the file, from 1."""

    label: str
    row: int
    row_id: str
    message: str
    answers: tuple[Answers, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it. `problem`: why the rows could not be counted; then what is counted is left out.

    Of several models side by side: `complete` rows have an answer of each; in `differing` rows two of those
    that answered differ in a column with labels, and `differences` are some of them.
    """

    distributions: tuple[Distribution, ...] = ()
    cross: CrossTable | None = None
    failures: tuple[Failure, ...] = ()
    organic: tuple[Organic, ...] = ()
    organic_values: int = 0
    stretches: tuple[Stretch, ...] = ()
    message_lengths: tuple[TextLengths, ...] = ()
    free_texts: tuple[TextLengths, ...] = ()
    complete: int | None = None
    agreement: tuple[ColumnAgreement, ...] = ()
    differing: int = 0
    differences: tuple[Difference, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may stand in a column: its list, and what the prompt's rules put there, each as it is stored."""

    listed: dict[str, str] = field(default_factory=dict)
    ruled: frozenset[str] = frozenset()

    def origin(self, stored: str) -> Origin:
        """Return where a stored value comes from."""
        if stored in self.listed:
            return Origin.LISTED
        return Origin.RULED if stored in self.ruled or is_nothing(stored) else Origin.ORGANIC

    def shown(self, stored: str) -> str:
        """Return a stored value as the prompt has it."""
        return self.listed.get(stored, stored)


def distribution(column: str, vocabulary: Vocabulary | None, counted: BoundedCounter[str]) -> Distribution:
    """Return a column's distribution; `vocabulary` None for a column without a list."""
    counts = dict(counted.counts)
    if vocabulary is None:
        slices = [Slice(value, count, Origin.FREE) for value, count in counts.items()]
    else:
        counts = dict.fromkeys(vocabulary.listed, 0) | counts
        slices = [
            Slice(vocabulary.shown(value), count, vocabulary.origin(value)) for value, count in counts.items()
        ]
    # Stable: values of one count keep the prompt's order.
    slices.sort(key=lambda one: -one.count)
    return Distribution(column, vocabulary is not None, tuple(slices), counted.total, counted.beyond)


def cross_table(
    names: tuple[str, str],
    vocabularies: tuple[Vocabulary, Vocabulary],
    counted: BoundedCounter[tuple[str, str]],
    most: int = CROSSED_LABELS,
) -> CrossTable | None:
    """Return two columns' common table: their most frequent values, the rest as others; None without rows."""
    if not counted.total:
        return None
    kept = [_most_frequent(counted, side, most) for side in (0, 1)]
    shown = [
        [vocabulary.shown(value) for value in values]
        for vocabulary, values in zip(vocabularies, kept, strict=True)
    ]
    counts = [[0] * (len(kept[1]) + 1) for _ in range(len(kept[0]) + 1)]
    for (first, second), count in counted.counts.items():
        counts[_place(kept[0], first)][_place(kept[1], second)] += count
    counts[-1][-1] += counted.beyond
    if not any(row[-1] for row in counts):
        counts = [row[:-1] for row in counts]
    else:
        shown[1].append(OTHERS)
    if not any(counts[-1]):
        counts.pop()
    else:
        shown[0].append(OTHERS)
    return CrossTable(*names, tuple(shown[0]), tuple(shown[1]), tuple(map(tuple, counts)))


def _most_frequent(counted: BoundedCounter[tuple[str, str]], side: int, most: int) -> list[str]:
    sums: BoundedCounter[str] = BoundedCounter(len(counted.counts))
    for pair, count in counted.counts.items():
        sums.add(pair[side], count)
    return [value for value, _ in sums.counts.most_common(most)]


def _place(values: Sequence[str], value: str) -> int:
    return values.index(value) if value in values else len(values)
