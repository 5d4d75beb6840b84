"""`failed_rows.csv`: the rows without values as they came, so that the file can be sent again.

The input's header, delimiter and order, and no column of ours. A row with a wrong number of cells has one
too many here, whatever it had. Rows of a broken-off run that never came back are not known here: the
manifest counts them as `rows_missing`.
"""

import csv
from collections.abc import Iterator

from prism.messages import RowReason, RunFile
from prism.tables import render_line
from prism_merger.accounts import FileAccount, RunAccount
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.rendering import split_lines
from prism_merger.store import RowReader
from prism_merger.volume import replace_file


def write_failed_rows(run: RunAccount, plan: RunPlan, rows: RowReader, places: Places) -> None:
    """Write each file's failed rows, if it has some, with constant memory."""
    alone = len(plan.record.files) == 1
    for file in run.files.values():
        if file.failed:
            path = places.failed_rows(run.run_id, file.label, alone)
            replace_file(path, _content(file, plan.file(file.label), rows))


def failed_rows_name(run: RunAccount, file: FileAccount, plan: RunPlan, places: Places) -> str | None:
    """Return where a file's failed rows lie, as manifests name it; None where none do."""
    path = places.failed_rows(run.run_id, file.label, len(plan.record.files) == 1)
    return places.relative(path) if file.failed and path.exists() else None


def _content(file: FileAccount, source: RunFile, rows: RowReader) -> Iterator[bytes]:
    yield render_line(source.columns, source.delimiter).encode()
    # Stored lines are read back as what they were rendered from; a cell may be longer than csv's limit.
    csv.field_size_limit((1 << 31) - 1)
    for line in _failed_lines(file.file_id, rows):
        cells = next(csv.reader([line.decode()], delimiter=source.delimiter, strict=True))
        row = cells[: len(source.columns)]
        # Cut or filled up to the columns when it was merged: so it must not pass for a good one.
        row += [""] if cells[-1] == RowReason.WRONG_CELL_COUNT else []
        yield render_line(row, source.delimiter).encode()


def _failed_lines(file_id: int, rows: RowReader) -> Iterator[bytes]:
    """Yield the stored lines of the rows without values; batches without such rows are not read."""
    failures = rows.failures(file_id)
    failure = next(failures, None)
    for sequence, first_row, count in rows.spans(file_id):
        wanted = []
        while failure is not None and failure.ordinal < first_row + count:
            wanted.append(failure.ordinal - first_row)
            failure = next(failures, None)
        if wanted:
            batch = rows.batch(file_id, sequence)
            lines = split_lines(batch.lines, batch.lengths)
            yield from (lines[number] for number in wanted)
        if failure is None:
            return
