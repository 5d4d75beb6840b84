"""An input file looked at before anything is decided: its first rows, and what is wrong with it.

It is read as pass 1 of the ingestor reads it, so what is accepted here is accepted there.
"""

import gzip
import logging
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism.messages import FileReason, RunFile, RunRecord, RunState
from prism.messages.reasons import RowReason
from prism.runs.project_settings import ProjectSettings, with_settings
from prism.tables import TableFormat, TableRefused, open_source, read_header, read_rows
from prism_cli.console import printable
from prism_cli.dry_run import linked_uri, service_settings
from prism_cli.exits import CommandFailed
from prism_cli.peek import Sample, peek
from prism_cli.proposal import Proposal, Wishes, propose, said_delimiter
from prism_cli.submission import examine
from prism_cli.survey import examined
from prism_ingestor.checking import Checked

_RUN_ID = "check"
# Rows are looked at one by one no longer than this: the rest is checked, not told.
_TOLD_ROWS = 100_000
_TOLD_TROUBLES = 50
_HEAD_BYTES = 8 << 20
_ADVICE = {
    RowReason.WRONG_CELL_COUNT: "has {cells} cells, the header {columns}; look for a quote or delimiter",
    RowReason.NUL_CHARACTER: "has a NUL character; save the file as plain text",
    RowReason.FIELD_TOO_LONG: "has a cell that is too long for a prompt; shorten it",
    RowReason.ROW_TOO_LONG: "is too long for a prompt; shorten it",
    RowReason.EMPTY_MESSAGE: "has an empty message; there is nothing to ask about",
}
_MEANING = {
    FileReason.MISSING_COLUMN: "A column is missing",
    FileReason.DUPLICATE_ROW_ID: "Two rows have the same RowID",
    FileReason.DUPLICATE_COLUMN: "Two columns have the same name",
    FileReason.EMPTY_FILE: "The file is empty",
    FileReason.NO_HEADER: "The file has no header",
    FileReason.NOT_UTF8: "The file is not UTF-8",
    FileReason.UNCLOSED_QUOTE: "A quote is never closed",
    FileReason.WRONG_DELIMITER: "Another delimiter is expected",
    FileReason.MALFORMED_CSV: "The file is no table that can be read",
    FileReason.TOO_LARGE: "The file is too large",
    FileReason.NO_SPACE: "There is no room to unpack it",
    FileReason.GZIP_BOMB: "The file unpacks to far too much",
    FileReason.NOT_GZIP: "The file is not packed as its name says",
}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a file.

    sample: its first rows, None if there are none to show. rows: of the whole file. refused: why it cannot be
    used at all, with line, column and what to do. troubles: rows that will fail, one line each; more: rows
    that fail beside those. notes: what else a person should know.
    """

    path: Path
    sample: Sample | None = None
    rows: int = 0
    refused: str = ""
    troubles: tuple[str, ...] = ()
    more: int = 0
    notes: tuple[str, ...] = ()
    proposal: Proposal | None = None

    @property
    def written(self) -> str:
        """How the table is written, for people."""
        return said_delimiter(self.sample) if self.sample else ""

    @property
    def failing(self) -> int:
        """How many rows will fail, of those that were looked at one by one."""
        return len(self.troubles) + self.more

    @property
    def table(self) -> dict[str, Any]:
        """The job's `table` section for it."""
        return dict(self.proposal.job["table"]) if self.proposal else {}


def inspect(
    path: Path,
    settings: ProjectSettings,
    data_dir: Path,
    environ: Mapping[str, str],
    columns: tuple[str, ...] = (),
) -> Inspection:
    """Return what a file holds. columns: what is to be coded, for a proposal; the usual ones by default."""
    try:
        sample = _peeked(path)
        # Rows that are left out there are told here, one by one.
        proposal = propose(replace(sample, left_out=0), Wishes(_RUN_ID, str(path), _RUN_ID, columns=columns))
    except TableRefused as error:
        return Inspection(path, refused=_said(error.reason, str(error)))
    except OSError as error:
        return Inspection(path, refused=f"cannot be read: {error.strerror or error}; check its rights")
    seen = Inspection(
        path, sample, notes=tuple(printable(one, 300) for one in proposal.notes), proposal=proposal
    )
    try:
        return _checked(seen, proposal, settings, data_dir, environ)
    except CommandFailed as error:
        return _refused(seen, str(error))


def _peeked(path: Path) -> Sample:
    """Return a file's first rows; of a packed one it unpacks no more than those take."""
    if path.suffix.lower() != ".gz":
        return peek(path)
    with tempfile.TemporaryDirectory(prefix="prism-peek-") as folder:
        head = Path(folder) / path.stem
        try:
            with open_source(path) as raw, gzip.open(raw) as stream:
                content = stream.read(_HEAD_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise TableRefused(FileReason.NOT_GZIP, f"{error}; pack it again") from None
        whole = len(content) < _HEAD_BYTES
        head.write_bytes(content if whole else content[: content.rfind(b"\n") + 1])
        found = peek(head)
    return replace(found, whole=found.whole and whole)


def _refused(seen: Inspection, why: str) -> Inspection:
    return Inspection(
        seen.path, seen.sample, refused=printable(why), notes=seen.notes, proposal=seen.proposal
    )


def _checked(
    seen: Inspection,
    proposal: Proposal,
    settings: ProjectSettings,
    data_dir: Path,
    environ: Mapping[str, str],
) -> Inspection:
    # What the ingestor's parts would log, the screen says in its own words.
    logging.getLogger("prism").addHandler(logging.NullHandler())
    source = examine(seen.path)
    most = service_settings(environ, data_dir)[0].max_source_bytes
    with tempfile.TemporaryDirectory(prefix="prism-check-") as folder:
        file = RunFile(
            label=_RUN_ID,
            filename=seen.path.name.encode(errors="replace").decode()[:255],
            source=linked_uri(source, Path(folder)),
            sha256=source.sha256,
        )
        found = examined(_record(file, proposal, settings), seen.path, Path(), most, Path(folder))
        if found.reason is not None:
            return _refused(seen, _said(found.reason, found.detail))
        told, more = _troubles(found, seen.sample)
    notes = seen.notes if found.files[0].rows else (*seen.notes, "it has a header and no rows")
    return Inspection(
        seen.path, seen.sample, found.files[0].rows, "", tuple(told), more, notes, seen.proposal
    )


def _record(file: RunFile, proposal: Proposal, settings: ProjectSettings) -> RunRecord:
    return RunRecord(
        run_id=_RUN_ID,
        epoch=1,
        state=RunState.RUNNING,
        job_name=_RUN_ID,
        job=with_settings({"table": proposal.job["table"]}, settings),
        prompt=proposal.prompt,
        files=[file],
    )


def _said(reason: FileReason, detail: str) -> str:
    meaning = _MEANING.get(reason)
    return printable(f"{meaning}: {detail}" if meaning else detail)


def _troubles(found: Checked, sample: Sample | None) -> tuple[list[str], int]:
    """Return rows that fail without a call, so many of them, and how many more there are."""
    told: list[str] = []
    more = 0
    for text in _bad_rows(found, sample):
        if len(told) < _TOLD_TROUBLES:
            told.append(text)
        else:
            more += 1
    return told, more


def _bad_rows(found: Checked, sample: Sample | None) -> Iterator[str]:
    file, plain = found.files[0], found.plains[0]
    # Lines mean nothing in what another format was turned into.
    by_line = sample is None or sample.kind in ("csv", "tsv")
    fmt = TableFormat(delimiter=file.delimiter or ",", required_columns=(), message_column="")
    header = read_header(plain.path, fmt)
    # Of a photo the text may be missing.
    message = None if found.prompt.get("image_column") else header.index("Message")
    for row in read_rows(plain.path, header, fmt):
        if row.ordinal >= _TOLD_ROWS:
            return
        problem = row.problem
        if problem is None and message is not None and not row.cells[message].strip():
            problem = RowReason.EMPTY_MESSAGE
        if problem is not None:
            where = f"line {row.line}" if by_line else f"row {row.ordinal + 1}"
            advice = _ADVICE.get(problem, str(problem))
            yield f"{where}: {advice.format(cells=len(row.cells), columns=len(header.columns))}"
