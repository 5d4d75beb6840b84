"""One output of one file: what it is made of, written under its temporary name."""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from prism.tables import TableRefused
from prism_merger.accounts import RunAccount, Written
from prism_merger.completion import Mismatch
from prism_merger.families import Family
from prism_merger.joining import Line, Shape, join, stored_lines
from prism_merger.layouts import CHUNKS, Layout
from prism_merger.plans import RunPlan, Unit
from prism_merger.rendering import split_lines
from prism_merger.sorting import sorted_lines
from prism_merger.store import RowReader
from prism_merger.volume import write_temporary

_SORTED_BLOCK = 500


@dataclass(frozen=True, slots=True)
class OutputOrder:
    """What an output is made of. `sort_column` is a column's number, None for the input's order.

    `shape`: of several models' files, whose rows stand side by side. `family`: of a retry, whose output is
    that of a whole run.
    """

    file_ids: tuple[int, ...]
    form: str
    layout: Layout
    sort_column: int | None
    temporary: Path
    scratch: Path
    shape: Shape | None = None
    family: Family | None = None


class NotCompleted(Exception):
    """A retry's rows cannot be put into the output that they belong to."""


def output_order(
    run: RunAccount, plan: RunPlan, unit: Unit, form: str, temporary: Path, scratch: Path
) -> OutputOrder:
    """Return what an output is made of, from the run's own rows. `scratch`: a folder to sort in."""
    columns, wanted = plan.columns(unit), plan.job.merge.sort_by
    file_ids = tuple(run.files[one.label].file_id for one in unit.files if one.label in run.files)
    return OutputOrder(
        file_ids=file_ids,
        form=form,
        layout=Layout.of(columns, plan.job.output.columns, unit.files[0].delimiter, len(unit.models)),
        sort_column=columns.index(wanted) if wanted in columns else None,
        temporary=temporary,
        scratch=scratch / f"sort-{file_ids[0]}.sqlite",
        shape=plan.shape(unit, run.missing_reason) if unit.is_joined else None,
    )


def completed_by(order: OutputOrder, family: Family) -> OutputOrder:
    """Return the order for the whole output that a retry's rows complete."""
    columns, wanted = family.plan.columns(family.unit), family.plan.job.merge.sort_by
    chosen = family.plan.job.output.columns
    return replace(
        order,
        layout=Layout.of(columns, chosen, family.unit.files[0].delimiter, len(family.unit.models)),
        sort_column=columns.index(wanted) if wanted in columns else None,
        family=family,
    )


def write_output(order: OutputOrder, rows: RowReader) -> Written:
    """Write an output under its temporary name, durable, with constant memory. Raise NotCompleted."""
    digest = hashlib.sha256()
    content = _Content(order, rows)
    chunks = CHUNKS[order.form](order.layout, content.blocks())
    try:
        size = write_temporary(order.temporary, chunks, digest.update)
    except (Mismatch, TableRefused, FileNotFoundError) as error:
        if order.family is None:
            raise
        raise NotCompleted(str(error)) from None
    side_by_side = order.shape if order.family is None else order.family.shape
    failed = content.failed if side_by_side is not None else None
    return Written(digest.hexdigest(), size, content.rows, failed)


def failed_rows(file_ids: Sequence[int], family: Family | None, rows: RowReader) -> int:
    """Return how many rows of an output of several models one of them at least has not answered.

    `family`: as in OutputOrder. Constant memory. Raise NotCompleted.
    """
    if family is None:
        ordinals = ((one.ordinal for one in rows.failures(file_id)) for file_id in file_ids)
        return sum(1 for _ in groupby(heapq.merge(*ordinals)))
    try:
        return sum(line.failed for line in family.lines())
    except (Mismatch, TableRefused, FileNotFoundError) as error:
        raise NotCompleted(str(error)) from None


class _Content:
    """An output's lines in their order, and how many went by."""

    def __init__(self, order: OutputOrder, rows: RowReader) -> None:
        self._order = order
        self._reader = rows
        self.rows = 0
        # Counted where rows come with it: see Written.
        self.failed = 0

    def blocks(self) -> Iterator[list[bytes]]:
        for block in self._batches() if self._order.sort_column is None else self._sorted():
            self.rows += len(block)
            yield block

    def _batches(self) -> Iterator[list[bytes]]:
        lines = self._told()
        if lines is None:
            for batch in self._reader.batches(self._order.file_ids[0]):
                yield split_lines(batch.lines, batch.lengths)
            return
        while block := list(islice(lines, _SORTED_BLOCK)):
            self.failed += sum(line.failed for line in block)
            yield [line.content for line in block]

    def _told(self) -> Iterator[Line] | None:
        """Return the lines that have to be made of several files'; None where the store has them ready."""
        order = self._order
        if order.family is not None:
            return order.family.lines()
        if order.shape is not None:
            return join(order.shape, [stored_lines(self._reader, one) for one in order.file_ids])
        return None

    def _sorted(self) -> Iterator[list[bytes]]:
        order = self._order
        assert order.sort_column is not None
        lines = sorted_lines(self._lines, order.sort_column, order.layout.delimiter, order.scratch)
        while block := list(islice(lines, _SORTED_BLOCK)):
            yield block

    def _lines(self) -> Iterator[bytes]:
        for block in self._batches():
            yield from block
