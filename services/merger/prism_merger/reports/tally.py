"""Rows are counted with pandas, block by block; what is kept has an end, however many rows there are."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prism.annotation.column import NOT_APPLICABLE, shorten
from prism.runs.columns import META_COLUMNS
from prism.tables import neutralise
from prism_merger.rendering import FailedRow
from prism_merger.reports.blocks import Block, file_blocks, stored_blocks
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
from prism_merger.store import RowReader

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
_ROW_ID, _MESSAGE = "RowID", "Message"


class RowsChanged(Exception):
    """The rows that were read are not those that the merger has counted."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Numbers of the columns that are read, of one file."""

    width: int
    coded: tuple[int, ...]
    error: int
    row_id: int | None
    message: int | None

    @classmethod
    def of(cls, file: FileFacts, coded: int) -> "_Layout":
        count = len(file.columns)
        return cls(
            width=count + coded + len(META_COLUMNS),
            coded=tuple(range(count, count + coded)),
            error=count + coded + len(META_COLUMNS) - 1,
            row_id=file.columns.index(_ROW_ID) if _ROW_ID in file.columns else None,
            message=file.columns.index(_MESSAGE) if _MESSAGE in file.columns else None,
        )

    @property
    def read(self) -> list[int]:
        optional = [one for one in (self.row_id, self.message) if one is not None]
        return sorted({*self.coded, self.error, *optional})


def vocabulary(column: CodedColumn) -> Vocabulary | None:
    """Return what may stand in a column, as the output's cells have it; None for free text."""
    if column.labels is None:
        return None
    listed = {neutralise(one): one for one in column.labels}
    return Vocabulary(listed, frozenset(map(neutralise, [*column.ruled, NOT_APPLICABLE])) - listed.keys())


class Tally:
    """Counts the rows of one run."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._vocabularies = [vocabulary(one) for one in facts.coded]
        listed = [number for number, one in enumerate(self._vocabularies) if one is not None]
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

    def count(self, file: FileFacts, blocks: Iterable[Block], failures: Iterable[FailedRow] | None) -> None:
        """Count a file's rows. `failures`: its failed rows with what was said of them, where that is kept.

        Raises RowsChanged when they are not those that the merger has counted.
        """
        layout = _Layout.of(file, len(self._facts.coded))
        stretches = min(STRETCHES, max(1, file.rows // ROWS_OF_A_STRETCH))
        rows, failed = np.zeros((2, stretches), dtype=np.int64)
        seen = seen_failed = 0
        for block in blocks:
            table = _parse(block, layout, file.delimiter)
            numbers = _numbers(block, len(table), seen)
            bad = (table[layout.error] != "").to_numpy(dtype=bool)
            places = np.minimum(numbers * stretches // max(1, file.rows), stretches - 1)
            rows += np.bincount(places, minlength=stretches)
            failed += np.bincount(places[bad], minlength=stretches)
            self._count_answers(file, table[~bad], numbers[~bad], layout)
            self._count_failures(file, table[bad], numbers[bad], layout, failures is None)
            seen, seen_failed = seen + len(table), seen_failed + int(bad.sum())
        if (seen, seen_failed) != (file.rows_merged, file.rows_failed - file.rows_missing):
            raise RowsChanged(
                f"{file.label}: {seen} rows with {seen_failed} failed were read,"
                f" {file.rows_merged} with {file.rows_failed - file.rows_missing} were merged"
            )
        for one in failures or ():
            self._sample_failure(one.reason, file, one.ordinal, one.row_id, one.detail)
        if seen and len(self._stretches) < MOST_STRETCHED_FILES:
            self._stretches.append(Stretch(file.label, tuple(rows.tolist()), tuple(failed.tolist())))

    def findings(self) -> Findings:
        """Return what was counted; rows that never came back are failures."""
        columns = [
            distribution(column.shown, words, values)
            for column, words, values in zip(self._facts.coded, self._vocabularies, self._values, strict=True)
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
                for column, lengths in zip(self._facts.coded, self._free, strict=True)
                if lengths.count
            ),
        )

    def _count_answers(
        self, file: FileFacts, table: pd.DataFrame, numbers: np.ndarray[Any, Any], layout: _Layout
    ) -> None:
        values = [table[number].str.slice(0, _VALUE_CHARACTERS) for number in layout.coded]
        for column, cells in enumerate(values):
            for value, count in cells.value_counts(sort=False).items():
                self._values[column].add(str(value), int(count))
            if self._vocabularies[column] is None:
                _add_lengths(self._free[column], table[layout.coded[column]])
            else:
                self._sample_organic(file, column, cells, table, numbers, layout)
        if self._crossed is not None:
            first, second = (values[one] for one in self._crossed)
            pairs = pd.DataFrame({"first": first, "second": second}).value_counts(sort=False)
            for (one, other), count in pairs.items():
                self._cross.add((str(one), str(other)), int(count))
        if layout.message is not None:
            groups = values[self._grouped] if self._grouped is not None else None
            self._count_messages(table[layout.message], groups)

    def _sample_organic(
        self, file: FileFacts, column: int, cells: pd.Series, table: pd.DataFrame,
        numbers: np.ndarray[Any, Any], layout: _Layout,
    ) -> None:  # fmt: skip
        words = self._vocabularies[column]
        assert words is not None
        strange = ~cells.isin([*words.listed, *words.ruled]).to_numpy(dtype=bool)
        for index in np.flatnonzero(strange)[:MOST_SAMPLED]:
            value = str(cells.iloc[index])
            kept = self._organic.setdefault((column, value), []) if self._has_room(column, value) else None
            if kept is not None and len(kept) < ORGANIC_SAMPLES:
                row_id, text = _cell(table, index, layout.row_id), _cell(table, index, layout.message)
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
        layout: _Layout,
        sampled: bool,
    ) -> None:
        reasons = table[layout.error]
        for reason, count in reasons.value_counts(sort=False).items():
            self._reasons[str(reason)] += int(count)
        for index in range(min(len(table), MOST_SAMPLED) if sampled else 0):
            row_id = _cell(table, index, layout.row_id)
            self._sample_failure(str(reasons.iloc[index]), file, int(numbers[index]), row_id, "")

    def _sample_failure(self, reason: str, file: FileFacts, ordinal: int, row_id: str, detail: str) -> None:
        kept = self._failure_samples[reason]
        if len(kept) < SAMPLES:
            kept.append(_sample(file, ordinal, row_id, detail))

    def _all_failures(self) -> Iterator[Failure]:
        reasons = self._reasons.copy()
        missing = sum(one.rows_missing for one in self._facts.files)
        if missing:
            reasons[self._facts.missing_reason] += missing
        for reason, count in reasons.most_common():
            yield Failure(reason, count, tuple(self._failure_samples.get(reason, ())))

    def _all_organic(self) -> Iterator[Organic]:
        found = [
            Organic(column.shown, value, count, tuple(self._organic.get((number, value), ())))
            for number, (column, words) in enumerate(zip(self._facts.coded, self._vocabularies, strict=True))
            if words is not None
            for value, count in self._values[number].counts.items()
            if words.origin(value) is Origin.ORGANIC
        ]
        return iter(sorted(found, key=lambda one: -one.count))

    def _cross_table(self) -> CrossTable | None:
        if self._crossed is None:
            return None
        first, second = self._crossed
        names = (self._facts.coded[first].shown, self._facts.coded[second].shown)
        words = (self._vocabularies[first] or Vocabulary(), self._vocabularies[second] or Vocabulary())
        return cross_table(names, words, self._cross)

    def _message_lengths(self) -> Iterator[TextLengths]:
        words = self._vocabularies[self._grouped] if self._grouped is not None else None
        column = self._facts.coded[self._grouped].shown if self._grouped is not None else ""
        everything = self._messages.get("")
        if everything is not None and everything.count:
            yield TextLengths(_MESSAGE, "", everything)
        groups = sorted(self._messages.items(), key=lambda one: -one[1].count)
        for value, lengths in [one for one in groups if one[0] and one[1].count][:GROUPED_LABELS]:
            yield TextLengths(column, words.shown(value) if words else value, lengths)


def _is_enumerated(values: BoundedCounter[str]) -> bool:
    """Whether a column without a list holds labels all the same: few, short, and each several times."""
    few = not values.beyond and 0 < len(values.counts) <= MOST_FREE_VALUES
    return few and values.total >= 3 * len(values.counts) and all(len(one) <= 60 for one in values.counts)


def _parse(block: Block, layout: _Layout, delimiter: str) -> pd.DataFrame:
    # The C parser takes a delimiter of one byte only.
    engine: Any = "c" if len(delimiter.encode()) == 1 else "python"
    return pd.read_csv(
        io.BytesIO(block.lines),
        sep=delimiter,
        header=None,
        names=list(range(layout.width)),
        usecols=layout.read,
        index_col=False,
        dtype=str,
        keep_default_na=False,
        na_filter=False,
        skip_blank_lines=False,
        encoding="utf-8",
        engine=engine,
    )


def _numbers(block: Block, rows: int, before: int) -> np.ndarray[Any, Any]:
    """Return each row's number in the file, from 0."""
    if block.stretches is None:
        return np.arange(before, before + rows, dtype=np.int64)
    firsts, counts = (np.array(one, dtype=np.int64) for one in zip(*block.stretches, strict=True))
    if counts.sum() != rows:
        raise RowsChanged(f"{rows} rows where {counts.sum()} were stored")
    starts = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return np.asarray(starts + np.arange(rows, dtype=np.int64))


def _add_lengths(lengths: Lengths, texts: pd.Series) -> None:
    if not len(texts):
        return
    found = texts.str.len().to_numpy(dtype=np.int64)
    bins = np.bincount(np.searchsorted(EDGES, found, side="left"), minlength=len(EDGES) + 1)
    lengths.add(bins.tolist(), int(found.sum()), int(found.min()), int(found.max()))


def _cell(table: pd.DataFrame, index: int, column: int | None) -> str:
    return "" if column is None else str(table[column].iloc[index])


def _sample(file: FileFacts, ordinal: int, row_id: str, text: str) -> Sample:
    return Sample(file.label, file.number(ordinal), shorten(row_id, 40), shorten(text, _TEXT_CHARACTERS))


def count_rows(facts: Facts) -> Findings:
    """Read all rows of a run where they are, and return what they say."""
    tally, problem = Tally(facts), ""
    rows = RowReader(Path(facts.store)) if any(one.file_id is not None for one in facts.files) else None
    try:
        for file in facts.files:
            if file.file_id is not None and rows is not None:
                tally.count(file, stored_blocks(rows, file.file_id), rows.failures(file.file_id))
            elif file.csv is not None:
                tally.count(file, file_blocks(Path(file.csv)), None)
            elif file.rows_merged:
                problem = "the rows are not in the store any more, and no published CSV has them all"
    except (RowsChanged, FileNotFoundError, pd.errors.ParserError) as error:
        problem = str(error)
    finally:
        if rows is not None:
            rows.close()
    return Findings(problem=problem, failures=_known_failures(facts)) if problem else tally.findings()


def _known_failures(facts: Facts) -> tuple[Failure, ...]:
    counted: Sequence[tuple[str, int]] = Counter(facts.manifest.get("failed_by_reason", {})).most_common()
    return tuple(Failure(reason, count) for reason, count in counted)
