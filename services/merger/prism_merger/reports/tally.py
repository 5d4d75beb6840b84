"""Rows are counted with pandas, block by block; what is kept has an end, however many rows there are."""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prism.annotation.column import NOT_APPLICABLE, shorten
from prism.tables import neutralise
from prism_merger.joining import Shape
from prism_merger.rendering import FailedRow
from prism_merger.reports.blocks import Block, file_blocks, joined_blocks, stored_blocks
from prism_merger.reports.comparison import Comparison
from prism_merger.reports.counting import EDGES, BoundedCounter, Lengths
from prism_merger.reports.facts import CodedColumn, Facts, FileFacts
from prism_merger.reports.findings import (
    CrossTable,
    Failure,
    Findings,
    Organic,
    Origin,
    Sample,
    Stretch,
    TextLengths,
    Vocabulary,
    cross_table,
    distribution,
)
from prism_merger.reports.rows import MESSAGE, Layout, RowsChanged, cell, parse, row_numbers
from prism_merger.store import RowReader
from prism_merger.volume import replace_file

STRETCHES = 100
ROWS_OF_A_STRETCH = 10
MOST_STRETCHED_FILES = 20
SAMPLES = 5
ORGANIC_SAMPLES = 3
MOST_SAMPLED = 500
MOST_ORGANIC = 200
# A column without a list is free text as soon as it has more values than that.
MOST_FREE_VALUES = 30
GROUPED_LABELS = 12
_VALUE_CHARACTERS = 200
_TEXT_CHARACTERS = 120


def vocabulary(column: CodedColumn) -> Vocabulary | None:
    """Return what may stand in a column, as the output's cells have it; None for free text."""
    if column.labels is None:
        return None
    listed = {neutralise(one): one for one in column.labels}
    return Vocabulary(listed, frozenset(map(neutralise, [*column.ruled, NOT_APPLICABLE])) - listed.keys())


class Tally:
    """Counts the rows of one run."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._vocabularies = [vocabulary(one) for one in facts.coded]
        # Of several models the first one's columns are set against each other.
        listed = [
            number
            for number, one in enumerate(self._vocabularies)
            if one is not None and facts.coded[number].model == facts.coded[0].model
        ]
        self._crossed = (listed[0], listed[1]) if len(listed) > 1 else None
        self._grouped = listed[0] if listed else None
        self._values = [
            BoundedCounter[str]() if one is not None else BoundedCounter[str](MOST_FREE_VALUES)
            for one in self._vocabularies
        ]
        self._cross: BoundedCounter[tuple[str, str]] = BoundedCounter()
        self._free = [Lengths() for _ in facts.coded]
        self._messages: dict[str, Lengths] = {}
        self._organic: dict[tuple[int, str], list[Sample]] = {}
        self._reasons: Counter[str] = Counter()
        self._failure_samples: dict[str, list[Sample]] = defaultdict(list)
        self._stretches: list[Stretch] = []
        self._missing = 0
        self._comparison = Comparison(facts, self._vocabularies)

    def header(self) -> bytes:
        """Return the first line of what `count` yields."""
        return self._comparison.header()

    def count(
        self, file: FileFacts, blocks: Iterable[Block], failures: Iterable[FailedRow] | None
    ) -> Iterator[bytes]:
        """Count a file's rows; yield a line for each on which its models differ.

        `failures`: its failed rows with what was said of them, where that is kept.
        Raises RowsChanged when they are not those that the merger has counted.
        """
        layout = Layout.of(file, self.facts.coded)
        stretches = min(STRETCHES, max(1, file.rows // ROWS_OF_A_STRETCH))
        rows, failed = np.zeros((2, stretches), dtype=np.int64)
        seen = seen_ok = 0
        for block in blocks:
            table = parse(block, layout, file.delimiter)
            numbers = row_numbers(block, len(table), seen)
            bad = (table[layout.error] != "").to_numpy(dtype=bool)
            places = np.minimum(numbers * stretches // max(1, file.rows), stretches - 1)
            rows += np.bincount(places, minlength=stretches)
            failed += np.bincount(places[bad], minlength=stretches)
            seen, seen_ok = seen + len(table), seen_ok + self._count_models(file, table, numbers, layout)
            self._count_failures(file, table, numbers, layout, failures is None)
            if file.models:
                cells = {one: table[place].str.slice(0, _VALUE_CHARACTERS)
                         for one, place in layout.coded.items()}  # fmt: skip
                yield from self._comparison.take(file, table, numbers, layout, cells)
        self._check(file, seen * len(layout.errors), seen_ok)
        for one in failures or ():
            self._sample_failure(one.reason, file, one.ordinal, one.row_id, one.detail)
        if seen and len(self._stretches) < MOST_STRETCHED_FILES:
            self._stretches.append(Stretch(file.label, tuple(rows.tolist()), tuple(failed.tolist())))

    def count_missing(self, file: FileFacts) -> None:
        """Count a file of which no row has come back."""
        self._missing += file.rows_missing

    def _check(self, file: FileFacts, seen: int, seen_ok: int) -> None:
        """Raise RowsChanged unless what was read, in answers, is what the merger has counted."""
        # A row that one model never got is there when another has it; one that nobody got is not.
        most = file.asked if file.models else file.rows_merged
        if seen_ok != file.rows_ok or not file.rows_merged <= seen <= most:
            raise RowsChanged(
                f"{file.label}: {seen} rows with {seen - seen_ok} failed were read,"
                f" {file.rows_merged} with {file.rows_failed - file.rows_missing} were merged"
            )
        self._missing += file.asked - seen if file.models else file.rows_missing

    def findings(self) -> Findings:
        """Return what was counted; rows that never came back are failures."""
        columns = [
            distribution(column.shown, words, values)
            for column, words, values in zip(self.facts.coded, self._vocabularies, self._values, strict=True)
            if words is not None or _is_enumerated(values)
        ]
        organic = list(self._all_organic())
        return Findings(
            distributions=tuple(columns),
            cross=self._cross_table(),
            failures=tuple(self._all_failures()),
            organic=tuple(organic[:MOST_ORGANIC]),
            organic_values=len(organic),
            stretches=tuple(self._stretches),
            message_lengths=tuple(self._message_lengths()),
            free_texts=tuple(
                TextLengths(column.shown, "", lengths)
                for column, lengths in zip(self.facts.coded, self._free, strict=True)
                if lengths.count
            ),
            complete=self._comparison.complete,
            agreement=tuple(self._comparison.results()),
            differing=self._comparison.differing,
            differences=tuple(self._comparison.differences),
        )

    def _count_models(
        self, file: FileFacts, table: pd.DataFrame, numbers: np.ndarray[Any, Any], layout: Layout
    ) -> int:
        """Count each model's answers to a block's rows; return how many there are."""
        total = 0
        for model, error in enumerate(layout.errors):
            ok = (table[error] == "").to_numpy(dtype=bool)
            self._count_answers(file, table[ok], numbers[ok], layout, model)
            total += int(ok.sum())
        return total

    def _count_answers(
        self, file: FileFacts, table: pd.DataFrame, numbers: np.ndarray[Any, Any], layout: Layout, model: int
    ) -> None:
        values = {
            one: table[place].str.slice(0, _VALUE_CHARACTERS)
            for one, place in layout.coded.items()
            if layout.answerers[one] == model
        }
        for column, cells in values.items():
            for value, count in cells.value_counts(sort=False).items():
                self._values[column].add(str(value), int(count))
            if self._vocabularies[column] is None:
                _add_lengths(self._free[column], table[layout.coded[column]])
            else:
                self._sample_organic(file, column, cells, table, numbers, layout)
        if self._crossed is not None and self._crossed[0] in values:
            first, second = (values[one] for one in self._crossed)
            pairs = pd.DataFrame({"first": first, "second": second}).value_counts(sort=False)
            for (one, other), count in pairs.items():
                self._cross.add((str(one), str(other)), int(count))
        if layout.message is not None and model == 0:
            groups = values.get(self._grouped) if self._grouped is not None else None
            self._count_messages(table[layout.message], groups)

    def _sample_organic(
        self, file: FileFacts, column: int, cells: pd.Series, table: pd.DataFrame,
        numbers: np.ndarray[Any, Any], layout: Layout,
    ) -> None:  # fmt: skip
        words = self._vocabularies[column]
        assert words is not None
        strange = ~cells.isin([*words.listed, *words.ruled]).to_numpy(dtype=bool)
        for index in np.flatnonzero(strange)[:MOST_SAMPLED]:
            value = str(cells.iloc[index])
            kept = self._organic.setdefault((column, value), []) if self._has_room(column, value) else None
            if kept is not None and len(kept) < ORGANIC_SAMPLES:
                row_id, text = cell(table, index, layout.row_id), cell(table, index, layout.message)
                kept.append(_sample(file, int(numbers[index]), row_id, text))

    def _has_room(self, column: int, value: str) -> bool:
        return (column, value) in self._organic or len(self._organic) < 10 * MOST_ORGANIC

    def _count_messages(self, messages: pd.Series, groups: pd.Series | None) -> None:
        _add_lengths(self._messages.setdefault("", Lengths()), messages)
        words = self._vocabularies[self._grouped] if self._grouped is not None else None
        if groups is None or words is None:
            return
        for value in islice(words.listed, 2 * GROUPED_LABELS):
            _add_lengths(self._messages.setdefault(value, Lengths()), messages[groups == value])

    def _count_failures(
        self,
        file: FileFacts,
        table: pd.DataFrame,
        numbers: np.ndarray[Any, Any],
        layout: Layout,
        sampled: bool,
    ) -> None:
        for model, error in enumerate(layout.errors):
            bad = np.flatnonzero((table[error] != "").to_numpy(dtype=bool))
            for reason, count in table[error].iloc[bad].value_counts(sort=False).items():
                self._reasons[str(reason)] += int(count)
            who = file.models[model] if file.models else file.model
            for index in bad[:MOST_SAMPLED] if sampled else ():
                row_id, reason = cell(table, index, layout.row_id), cell(table, index, error)
                self._sample_failure(reason, file, int(numbers[index]), row_id, who)

    def _sample_failure(self, reason: str, file: FileFacts, ordinal: int, row_id: str, detail: str) -> None:
        kept = self._failure_samples[reason]
        if len(kept) < SAMPLES:
            kept.append(_sample(file, ordinal, row_id, detail))

    def _all_failures(self) -> Iterator[Failure]:
        reasons = self._reasons.copy()
        if self._missing:
            reasons[self.facts.missing_reason] += self._missing
        for reason, count in reasons.most_common():
            yield Failure(reason, count, tuple(self._failure_samples.get(reason, ())))

    def _all_organic(self) -> Iterator[Organic]:
        found = [
            Organic(column.shown, value, count, tuple(self._organic.get((number, value), ())))
            for number, (column, words) in enumerate(zip(self.facts.coded, self._vocabularies, strict=True))
            if words is not None
            for value, count in self._values[number].counts.items()
            if words.origin(value) is Origin.ORGANIC
        ]
        return iter(sorted(found, key=lambda one: -one.count))

    def _cross_table(self) -> CrossTable | None:
        if self._crossed is None:
            return None
        first, second = self._crossed
        names = (self.facts.coded[first].shown, self.facts.coded[second].shown)
        words = (self._vocabularies[first] or Vocabulary(), self._vocabularies[second] or Vocabulary())
        return cross_table(names, words, self._cross)

    def _message_lengths(self) -> Iterator[TextLengths]:
        words = self._vocabularies[self._grouped] if self._grouped is not None else None
        column = self.facts.coded[self._grouped].shown if self._grouped is not None else ""
        everything = self._messages.get("")
        if everything is not None and everything.count:
            yield TextLengths(MESSAGE, "", everything)
        groups = sorted(self._messages.items(), key=lambda one: -one[1].count)
        for value, lengths in [one for one in groups if one[0] and one[1].count][:GROUPED_LABELS]:
            yield TextLengths(column, words.shown(value) if words else value, lengths)


def _is_enumerated(values: BoundedCounter[str]) -> bool:
    """Whether a column without a list holds labels all the same: few, short, and each several times."""
    few = not values.beyond and 0 < len(values.counts) <= MOST_FREE_VALUES
    return few and values.total >= 3 * len(values.counts) and all(len(one) <= 60 for one in values.counts)


def _add_lengths(lengths: Lengths, texts: pd.Series) -> None:
    if not len(texts):
        return
    found = texts.str.len().to_numpy(dtype=np.int64)
    bins = np.bincount(np.searchsorted(EDGES, found, side="left"), minlength=len(EDGES) + 1)
    lengths.add(bins.tolist(), int(found.sum()), int(found.min()), int(found.max()))


def _sample(file: FileFacts, ordinal: int, row_id: str, text: str) -> Sample:
    return Sample(file.label, file.number(ordinal), shorten(row_id, 40), shorten(text, _TEXT_CHARACTERS))


def count_rows(facts: Facts) -> Findings:
    """Read all rows of a run where they are, and return what they say.

    Writes the rows on which models differ, if they are wanted, while it reads. Raises OSError, sqlite3.Error.
    """
    tally = Tally(facts)
    rows = RowReader(Path(facts.store)) if any(one.file_ids for one in facts.files) else None
    lines = chain([tally.header()], chain.from_iterable(_counted(tally, one, rows) for one in facts.files))
    try:
        if facts.disagreements is not None:
            replace_file(Path(facts.disagreements), lines)
        else:
            deque(lines, maxlen=0)
    except (RowsChanged, FileNotFoundError, pd.errors.ParserError) as error:
        return Findings(problem=str(error), failures=_known_failures(facts))
    finally:
        if rows is not None:
            rows.close()
    return tally.findings()


def _counted(tally: Tally, file: FileFacts, rows: RowReader | None) -> Iterator[bytes]:
    """Count a file's rows wherever they are; yield what `Tally.count` does."""
    if file.file_ids and rows is not None:
        yield from tally.count(file, _blocks(tally.facts, file, rows), _failures(file, rows))
    elif file.csv is not None:
        yield from tally.count(file, file_blocks(Path(file.csv)), None)
    elif file.rows_merged:
        raise RowsChanged("the rows are not in the store any more, and no published CSV has them all")
    else:
        tally.count_missing(file)


def _blocks(facts: Facts, file: FileFacts, rows: RowReader) -> Iterator[Block]:
    if not file.models:
        return stored_blocks(rows, file.file_ids[0])
    coded = len(facts.coded) // len(file.models)
    shape = Shape(len(file.columns), coded, tuple(file.models), file.delimiter, facts.missing_reason)
    return joined_blocks(rows, file.file_ids, shape)


def _failures(file: FileFacts, rows: RowReader) -> Iterator[FailedRow]:
    """Yield a file's failed rows, of several models with the name of the one that failed."""
    if not file.models:
        yield from rows.failures(file.file_ids[0])
        return
    tagged = (_said(model, rows.failures(one)) for model, one in zip(file.models, file.file_ids, strict=True))
    yield from heapq.merge(*tagged, key=attrgetter("ordinal"))


def _said(model: str, failures: Iterable[FailedRow]) -> Iterator[FailedRow]:
    return (replace(one, detail=f"{model}: {one.detail}" if one.detail else model) for one in failures)


def _known_failures(facts: Facts) -> tuple[Failure, ...]:
    counted: Sequence[tuple[str, int]] = Counter(facts.manifest.get("failed_by_reason", {})).most_common()
    return tuple(Failure(reason, count) for reason, count in counted)
