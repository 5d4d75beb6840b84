"""Several models' answers to the same rows, block by block: who agrees with whom, and where they differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, repeat
from typing import Any

import numpy as np
import pandas as pd

from prism_merger.reports.agreement import Agreement
from prism_merger.reports.disagreements import Listing
from prism_merger.reports.facts import Facts, FileFacts
from prism_merger.reports.findings import Answers, ColumnAgreement, Difference, Vocabulary
from prism_merger.reports.rows import Layout, texts

SAMPLES = 5


@dataclass(frozen=True, slots=True)
class _Column:
    """A coded column with labels: its name in the prompt, and each model's own by number in the facts."""

    name: str
    numbers: tuple[int, ...]
    vocabulary: Vocabulary
    agreement: Agreement


class Comparison:
    """The rows of one run that several models have answered; of any other run it finds nothing."""

    def __init__(self, facts: Facts, vocabularies: Sequence[Vocabulary | None]) -> None:
        self._columns = list(_columns(facts, vocabularies))
        shown = [facts.coded[number].shown for one in self._columns for number in one.numbers]
        self._listing = Listing(facts, shown)
        self.complete: int | None = 0 if facts.models else None
        self.differing = 0
        self.differences: list[Difference] = []

    def header(self) -> bytes:
        """Return the first line of what `take` yields."""
        return self._listing.header()

    def take(
        self,
        file: FileFacts,
        table: pd.DataFrame,
        numbers: np.ndarray[Any, Any],
        layout: Layout,
        cells: Mapping[int, pd.Series],
    ) -> Iterator[bytes]:
        """Count a block's rows; yield a line for each on which models differ. `cells`: by coded column."""
        answered = [(table[error] == "").to_numpy(dtype=bool) for error in layout.errors]
        self.complete = (self.complete or 0) + int(np.logical_and.reduce(answered).sum())
        differ = [self._compared(one, cells, answered) for one in self._columns]
        for found in self._found(file, table, numbers, layout, differ) if differ else ():
            self.differing += 1
            if len(self.differences) < SAMPLES:
                self.differences.append(found)
            yield self._listing.line(found)

    def results(self) -> Iterator[ColumnAgreement]:
        """Yield what each column came to."""
        return (one.agreement.result(one.name, one.vocabulary) for one in self._columns)

    def _compared(
        self, one: _Column, cells: Mapping[int, pd.Series], answered: Sequence[np.ndarray[Any, Any]]
    ) -> np.ndarray[Any, Any]:
        mine = [cells[number] for number in one.numbers]
        for pattern, count in _patterns(mine, answered):
            one.agreement.add(pattern, count)
        return _differ(mine, answered)

    def _found(
        self, file: FileFacts, table: pd.DataFrame, numbers: np.ndarray[Any, Any], layout: Layout,
        differ: Sequence[np.ndarray[Any, Any]],
    ) -> Iterator[Difference]:  # fmt: skip
        """Yield the rows on which models differ. `differ`: for each column, for each row."""
        places = np.flatnonzero(np.logical_or.reduce(differ))
        rows = table.iloc[places]
        answers = []
        for one, which in zip(self._columns, differ, strict=True):
            cells = zip(*(texts(rows, layout.coded[number]) for number in one.numbers), strict=True)
            answers.append(map(Answers, repeat(one.name), cells, which[places].tolist()))
        known = [numbers[places].tolist(), texts(rows, layout.row_id), texts(rows, layout.message)]
        for ordinal, row_id, message, *given in zip(*known, *answers, strict=True):
            yield Difference(file.label, file.number(ordinal), row_id, message, tuple(given))


def _columns(facts: Facts, vocabularies: Sequence[Vocabulary | None]) -> Iterator[_Column]:
    models = facts.models
    found: dict[str, list[int]] = {}
    for number, one in enumerate(facts.coded if models else ()):
        found.setdefault(one.name, []).append(number)
    for name, numbers in found.items():
        words = vocabularies[numbers[0]]
        if words is not None:
            shown = [facts.coded[number].shown for number in numbers]
            yield _Column(name, tuple(numbers), words, Agreement(models, shown))


def _differ(cells: Sequence[pd.Series], answered: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return for each row whether two of those that answered gave different labels."""
    found = np.zeros(len(cells[0]), dtype=bool)
    for (one, has), (other, has_too) in combinations(zip(cells, answered, strict=True), 2):
        found |= (one != other).to_numpy(dtype=bool) & has & has_too
    return found


def _patterns(
    cells: Sequence[pd.Series], answered: Sequence[np.ndarray[Any, Any]]
) -> Iterator[tuple[tuple[str | None, ...], int]]:
    """Yield what the models gave side by side, None where one failed, and how many rows have that."""
    frame = pd.DataFrame(
        {number: one.where(has) for number, (one, has) in enumerate(zip(cells, answered, strict=True))}
    )
    for pattern, count in frame.value_counts(sort=False, dropna=False).items():
        assert isinstance(pattern, tuple)
        yield tuple(value if isinstance(value, str) else None for value in pattern), int(count)
