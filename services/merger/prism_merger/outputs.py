"""One output of one file: what it is made of, written under its temporary name."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prism.tables import TableRefused
from prism_merger.accounts import FileAccount
from prism_merger.completion import Mismatch
from prism_merger.families import Family
from prism_merger.layouts import CHUNKS, Layout
from prism_merger.plans import RunPlan
from prism_merger.rendering import split_lines
from prism_merger.shelves import Written
from prism_merger.sorting import sorted_lines
from prism_merger.store import RowReader
from prism_merger.volume import write_temporary

_SORTED_BLOCK = 500


@dataclass(frozen=True, slots=True)
class OutputOrder:
    """What an output is made of. `sort_column` is a column's number, None for the input's order.

    `family`: of a retry, whose output is that of a whole run.
    """

    file_id: int
    form: str
    layout: Layout
    sort_column: int | None
    temporary: Path
    scratch: Path
    family: Family | None = None


class NotCompleted(Exception):
    """A retry's rows cannot be put into the output that they belong to."""


def output_order(
    file: FileAccount, plan: RunPlan, form: str, temporary: Path, scratch: Path, family: Family | None
) -> OutputOrder:
    """Return what a file's output in a format is made of. `scratch`: a folder to sort in."""
    columns, wanted = plan.columns(file.label), plan.job.merge.sort_by
    return OutputOrder(
        file_id=file.file_id,
        form=form,
        layout=Layout.of(columns, plan.job.output.columns, plan.file(file.label).delimiter),
        sort_column=columns.index(wanted) if wanted in columns else None,
        temporary=temporary,
        scratch=scratch / f"sort-{file.file_id}.sqlite",
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
    return Written(digest.hexdigest(), size, content.rows)


class _Content:
    """An output's lines in their order, and how many went by."""

    def __init__(self, order: OutputOrder, rows: RowReader) -> None:
        self._order = order
        self._reader = rows
        self.rows = 0

    def blocks(self) -> Iterator[list[bytes]]:
        for block in self._batches() if self._order.sort_column is None else self._sorted():
            self.rows += len(block)
            yield block

    def _batches(self) -> Iterator[list[bytes]]:
        if self._order.family is not None:
            lines = self._order.family.lines()
            while block := [line.content for line in islice(lines, _SORTED_BLOCK)]:
                yield block
            return
        for batch in self._reader.batches(self._order.file_id):
            yield split_lines(batch.lines, batch.lengths)

    def _sorted(self) -> Iterator[list[bytes]]:
        order = self._order
        assert order.sort_column is not None
        lines = sorted_lines(self._lines, order.sort_column, order.layout.delimiter, order.scratch)
        while block := list(islice(lines, _SORTED_BLOCK)):
            yield block

    def _lines(self) -> Iterator[bytes]:
        for block in self._batches():
            yield from block
