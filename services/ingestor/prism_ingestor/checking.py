"""Pass 1: a submission's source read whole before the first model call, in a thread of its own.

Out comes either the run as it will be fed (columns, rows, batches) or the reason why it is refused.
"""

import errno
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prism.annotation import PromptFile, PromptRefused
from prism.annotation.strict_json import load_strictly
from prism.conversion import SourceKind, kind_of
from prism.kafka.errors import BrokerAway
from prism.messages import CutPosition, FileReason, RunFile, RunRecord, RunState
from prism.messages.intake import MAX_FILES
from prism.messages.topics import MIB, RESULT_MAX_BYTES
from prism.runs.catalogue import CatalogueRefused, ModelEntry
from prism.runs.columns import joined, output_columns
from prism.runs.cutting import cut_rows
from prism.runs.job import Job, JobRefused, parse_job
from prism.runs.models import entries, fan_out, inputs
from prism.runs.ranges import taken
from prism.service import fault, tracing
from prism.service.logs import get_logger
from prism.tables import (
    Header,
    Row,
    TableFormat,
    TableRefused,
    check_rows,
    open_source,
    read_header,
    read_rows,
)
from prism.tables.refusals import listed, shown
from prism_ingestor.model_servers import AllowedServers
from prism_ingestor.sources import Between, PlainFile, SourceChanged, Sources, source_name

log = get_logger(__name__)

RETRY_S = 2.0
MAX_PROMPT_BYTES = 1_000_000
# All of a run travels in one record, and its header with it.
MAX_HEADER_BYTES = 1_000_000
# A run is one record, which every service and every command reads: a request of 200 kB whose ranges are
# those of 1000 files would take 38 MB; and pass 1 adds columns, and files for each of several models.
MAX_RUN_BYTES = 8 * MIB
# JSON writes a control character with six bytes: a row of millions of them would fit in no message.
MAX_TRAVELLING_BYTES = RESULT_MAX_BYTES - 1_000_000
_NO_ROOM = (FileReason.NO_SPACE, FileReason.GZIP_BOMB)
_NOT_CONVERTED = (FileReason.MALFORMED_JSONL, FileReason.MALFORMED_PARQUET)
# Twice: a RowID travels beside the cells too.
_LONG_ROW = MAX_TRAVELLING_BYTES // 13


@dataclass(frozen=True, slots=True)
class Checked:
    """What pass 1 found out about a run: plain files to feed from, one for each of `files`, or a reason."""

    run_id: str
    files: tuple[RunFile, ...]
    prompt: dict[str, Any]
    plains: tuple[PlainFile, ...] = ()
    reason: FileReason | None = None
    detail: str = ""
    line: int | None = None
    column: int | None = None


# Required unless the job says otherwise.
DEFAULT_COLUMN = TableFormat().message_column


def source_kind(job: Job, file: RunFile) -> SourceKind:
    """Return how a source is written: as the job says, else as its name does, else it is a CSV."""
    if job.table.format != "auto":
        return SourceKind(job.table.format)
    return kind_of(source_name(file)) or SourceKind.CSV


def table_format(job: Job, prompt: Mapping[str, Any], file: RunFile) -> TableFormat:
    """Return how a source's plain CSV is written. Of a table of photos the photo is required, no message."""
    kind = source_kind(job, file)
    required = tuple(job.table.required_columns)
    fmt = TableFormat(
        delimiter=job.table.delimiter_of(kind),
        required_columns=required,
        renames=tuple(job.table.columns.items()),
        converted=not kind.is_text_table,
    )
    photo = prompt.get("image_column")
    if not photo:
        return fmt
    others = tuple(name for name in required if name not in (DEFAULT_COLUMN, photo))
    return replace(fmt, required_columns=(str(photo), *others), message_column="")


def read_prompt(jobs_dir: Path, job: Job) -> dict[str, Any]:
    """Return a job's prompt file as it is written. Raises TableRefused with BAD_PROMPT."""
    try:
        path = (jobs_dir / job.prompts.config_file).resolve()
        if not path.is_relative_to(jobs_dir.resolve()):
            raise ValueError("it lies outside the jobs folder")
        with open_source(path) as stream:
            text = stream.read(MAX_PROMPT_BYTES + 1)
        if len(text) > MAX_PROMPT_BYTES:
            raise ValueError(f"more than {MAX_PROMPT_BYTES} bytes")
        PromptFile.parse(text)
        # Strictly, so that a number stays the text it was written as.
        return dict(load_strictly(text.decode("utf-8-sig").strip()))
    except (OSError, RuntimeError, ValueError, PromptRefused, TableRefused) as error:
        raise TableRefused(FileReason.BAD_PROMPT, f"{job.prompts.config_file}: {error}") from None


class _Dropped(Exception):
    """Nobody asks any more what a check would find."""


@dataclass(slots=True)
class _Task:
    """One run to be checked; dropped from another thread than the one that works on it."""

    record: RunRecord
    dropped: bool = False

    def assert_wanted(self) -> None:
        if self.dropped:
            raise _Dropped


class Checker:
    """The thread that checks sources, one after the other; `done` holds what came out.

    A run that is dropped comes out no more: what is begun of it ends at the next block of bytes or the next
    batch of rows, and what was spooled of it is removed.
    """

    def __init__(
        self,
        sources: Sources,
        jobs_dir: Path,
        scratch: Path,
        schemes: frozenset[str] | None = None,
        servers: AllowedServers | None = None,
    ) -> None:
        """`schemes`: which a job's `output.directory` may have; None does not look at it.

        `servers`: which its models may be asked at; None: any.
        """
        self._schemes = schemes
        self._servers = servers
        self.done: queue.SimpleQueue[Checked] = queue.SimpleQueue()
        self._sources = sources
        self._jobs_dir = jobs_dir
        self._scratch = scratch
        # Why a run's source could not be read yet, by run id.
        self.postponed: dict[str, str] = {}
        self._wanted: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._later: list[tuple[float, _Task]] = []
        # What was asked for and has not come out, by run id: guarded by the lock, as `postponed` is.
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checker", daemon=True)

    def start(self) -> None:
        """Begin to check."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def submit(self, record: RunRecord) -> None:
        """Ask for a run's source to be checked, or (for a run that is fed) brought to disk again."""
        task = _Task(record)
        with self._lock:
            self._forget(record.run_id)
            self._tasks[record.run_id] = task
        self._wanted.put(task)

    def drop(self, run_id: str) -> None:
        """Want to know nothing more of a run. What has come out already is still in `done`."""
        with self._lock:
            self._forget(run_id)

    def drop_all(self) -> None:
        """Want to know nothing more of any run, what has come out included."""
        with self._lock:
            for run_id in list(self._tasks):
                self._forget(run_id)
            while not self.done.empty():
                self.done.get_nowait()

    def _forget(self, run_id: str) -> None:
        task = self._tasks.pop(run_id, None)
        if task is not None:
            task.dropped = True
        self.postponed.pop(run_id, None)

    def close(self) -> None:
        """Stop, and break off what is being checked."""
        self._stopped.set()
        self.drop_all()
        self._wanted.put(None)

    def _run(self) -> None:
        while not self._stopped.is_set():
            task = self._next()
            if task is None or self._stopped.is_set():
                continue
            try:
                self._finish(task, self._traced_check(task))
            except _Dropped:
                self._sources.forget(task.record.run_id)
            except (OSError, BrokerAway) as error:
                self._postpone(task, error)

    def _traced_check(self, task: _Task) -> Checked:
        record = task.record
        with tracing.step("check source", record.trace, {"prism.run.id": record.run_id}) as span:
            found = self._check(task)
            if found.reason is not None:
                span.fail(found.reason)
            rows, batches = (sum(getattr(one, name) for one in found.files) for name in ("rows", "batches"))
            span.set({"prism.rows": rows, "prism.batches": batches})
        return found

    def _finish(self, task: _Task, found: Checked) -> None:
        with self._lock:
            task.assert_wanted()
            del self._tasks[task.record.run_id]
            self.postponed.pop(task.record.run_id, None)
            self.done.put(found)

    def _postpone(self, task: _Task, error: Exception) -> None:
        """Check again later: a full disk and an absent broker say nothing about the file, and come back."""
        with self._lock:
            if not task.dropped:
                log.warning("check_postponed", run_id=task.record.run_id, error=error)
                self.postponed[task.record.run_id] = f"the source cannot be read now: {error}"
        # One that was dropped too: its turn removes what is left of it.
        self._later.append((time.monotonic() + RETRY_S, task))

    def _next(self) -> _Task | None:
        """Return what is to be checked next: one that waits for its source holds up no other."""
        now = time.monotonic()
        for entry in self._later:
            if entry[0] <= now:
                self._later.remove(entry)
                return entry[1]
        try:
            return self._wanted.get(timeout=min((due for due, _ in self._later), default=now + 60) - now)
        except queue.Empty:
            return None

    def _check(self, task: _Task) -> Checked:
        record = task.record
        try:
            task.assert_wanted()
            job = parse_job(record.job, record.job_name)
            models = entries(record, job)
            assert_destination(job, self._schemes)
            if record.state is RunState.ACCEPTED:
                if self._servers is not None:
                    self._servers.check(models)
                _assert_prices(job, models)
                _assert_few_files(record, job)
            prompt = record.prompt or read_prompt(self._jobs_dir, job)
            if record.state is RunState.ACCEPTED:
                _assert_columns_differ(job, prompt)
        except (CatalogueRefused, JobRefused) as error:
            return _refused(record, FileReason.BAD_JOB, str(error))
        except TableRefused as error:
            return _refused(record, error.reason, str(error))
        checked: list[tuple[RunFile, PlainFile]] = []
        for given in inputs(record):
            try:
                file, plain = self._check_file(task, given, job, prompt)
            except (SourceChanged, TableRefused) as error:
                return _refused(record, error.reason, _of_file(record, given, error), error)
            parted = [one for one in record.files if one.origin == given.label and not record.parent]
            checked += [(one, plain) for one in parted or fan_out(file, job, models)]
        files = tuple(file for file, _ in checked)
        try:
            if record.state is RunState.ACCEPTED:
                _assert_run(record, job, prompt, checked)
        except TableRefused as error:
            return _refused(record, error.reason, error.detail)
        fault.point("ingestor.after_check")
        return Checked(record.run_id, files, prompt, tuple(plain for _, plain in checked))

    def _check_file(
        self, task: _Task, file: RunFile, job: Job, prompt: dict[str, Any]
    ) -> tuple[RunFile, PlainFile]:
        run_id = task.record.run_id
        fmt = table_format(job, prompt, file)
        try:
            found = self._sources.bring(run_id, file, task.assert_wanted)
            kind = source_kind(job, file)
            plain = self._sources.as_csv(run_id, file, found, kind, fmt, task.assert_wanted)
            if not file.columns:
                file = self._counted(file, plain, job, fmt, task.assert_wanted)
                assert_columns(job, prompt, file)
        except TableRefused as error:
            if file.columns and error.reason in _NO_ROOM:
                # It was accepted before: what is too small is this disk.
                raise OSError(errno.ENOSPC, error.detail) from None
            if file.columns and error.reason in _NOT_CONVERTED:
                # The same bytes could be read before: this machine is short of something.
                raise OSError(errno.EAGAIN, error.detail) from None
            raise
        return file, plain

    def _counted(
        self, file: RunFile, plain: PlainFile, job: Job, fmt: TableFormat, between: Between
    ) -> RunFile:
        header = _header_of(plain, fmt)
        _assert_header_travels(header)
        start = CutPosition()
        self._scratch.mkdir(parents=True, exist_ok=True)
        rows = check_rows(plain.path, header, fmt, self._scratch)
        for cut in cut_rows(taken(rows, file.ranges), job.model.batch_size, start):
            between()
            _assert_row_travels(cut.rows[0])
            start = cut.end
        for _ in rows:  # those behind the last row that is taken: a file is accepted whole
            pass
        plain.assert_unchanged()
        return file.model_copy(
            update={
                "columns": list(header.columns),
                "delimiter": fmt.delimiter,
                "rows": start.ordinal,
                "batches": start.sequence,
                "sha256": plain.sha256,
                "bytes": plain.bytes,
                "plain_sha256": plain.plain_sha256,
            }
        )


def _assert_run(
    record: RunRecord, job: Job, prompt: dict[str, Any], checked: Sequence[tuple[RunFile, PlainFile]]
) -> None:
    """Raise TableRefused if the files are sound one by one, and no run all together."""
    files = [file for file, _ in checked]
    if not record.parent and not any(file.rows for file in files):
        _assert_rows_found(job, prompt, checked)
    twice = _first_twice(record, files)
    if twice is not None:
        detail = f"two files would be called {twice}: give one input another label"
        raise TableRefused(FileReason.BAD_JOB, detail)
    size = sum(len(json.dumps(file.columns)) for file in files)
    if size > MAX_HEADER_BYTES:
        detail = f"the files' columns take {size} bytes, at most {MAX_HEADER_BYTES} are allowed"
        raise TableRefused(FileReason.TOO_LARGE, detail)
    size = len(record.model_copy(update={"files": files, "prompt": prompt}).to_bytes())
    if size > MAX_RUN_BYTES:
        detail = (
            f"the run takes {size} bytes with its files' columns and row ranges, for each of several models, "
            f"at most {MAX_RUN_BYTES}: send fewer files or ranges in one run"
        )
        raise TableRefused(FileReason.TOO_LARGE, detail)


def _assert_rows_found(
    job: Job, prompt: Mapping[str, Any], checked: Sequence[tuple[RunFile, PlainFile]]
) -> None:
    """Raise TableRefused if rows were asked for that a file does not have. One may have none."""
    for file, plain in checked:
        if file.ranges and _has_rows(plain, table_format(job, prompt, file)):
            wanted = ", ".join(f"{first}-{last}" for first, last in file.ranges[:3])
            named = file.filename or file.input_label
            detail = f"{named}: none of the rows that are asked for is there ({wanted}): see how many it has"
            raise TableRefused(FileReason.BAD_JOB, detail)


def _has_rows(plain: PlainFile, fmt: TableFormat) -> bool:
    return next(read_rows(plain.path, _header_of(plain, fmt), fmt), None) is not None


def _first_twice(record: RunRecord, files: Sequence[RunFile]) -> str | None:
    """Return a label that two files have, or an input and what one of several models does of another."""
    labels = Counter(file.label for file in files)
    if not record.parent:  # a retry is asked for under the labels of what it does again
        labels.update({file.origin for file in files if file.origin})
    return next((label for label, number in labels.items() if number > 1), None)


def _refused(
    record: RunRecord, reason: FileReason, detail: str, error: SourceChanged | TableRefused | None = None
) -> Checked:
    line, column = (error.line, error.column) if isinstance(error, TableRefused) else (None, None)
    files = tuple(record.files)
    return Checked(record.run_id, files, record.prompt, (), reason, detail, line, column)


def _of_file(record: RunRecord, file: RunFile, error: SourceChanged | TableRefused) -> str:
    """Return what is wrong; of several files with the name of the one that it is about."""
    detail = error.detail if isinstance(error, SourceChanged) else str(error)
    return detail if len(inputs(record)) == 1 else f"{file.filename or file.label}: {detail}"


def assert_destination(job: Job, schemes: frozenset[str] | None) -> None:
    """Raise JobRefused if the job wants its outputs where the operator does not allow them."""
    if job.output.uri is None or schemes is None:
        return
    scheme = job.output.uri.split("://", 1)[0]
    if scheme not in schemes:
        allowed = ", ".join(sorted(schemes)) or "none"
        raise JobRefused(
            f"output.directory: {scheme}:// is not allowed (PRISM_OUTPUT_SCHEMES: {allowed}); name a folder"
        )


def _assert_few_files(record: RunRecord, job: Job) -> None:
    """Raise JobRefused if each of several models would have the files of a whole run."""
    asked, models = len(record.files), len(job.model.names)
    if job.model.fans_out and not record.parent and asked * models > MAX_FILES:
        raise JobRefused(
            f"model.names: {asked} files with {models} models are {asked * models} files of a run, at most "
            f"{MAX_FILES} are allowed: send fewer in one run"
        )


def _assert_prices(job: Job, models: Sequence[ModelEntry]) -> None:
    """Raise JobRefused if a budget in money could not be kept: what one model costs is not known."""
    if job.budget.money is None or not job.model.several:
        return
    unpriced = [one.name for one in models if one.price is None]
    currencies = sorted({one.price.currency for one in models if one.price is not None})
    if unpriced or len(currencies) > 1:
        found = f"none for {', '.join(unpriced)}" if unpriced else f"prices in {' and '.join(currencies)}"
        raise JobRefused(
            f"budget.money needs a price of every model, in one currency: models.json has {found}"
        )


def _assert_columns_differ(job: Job, prompt: Mapping[str, Any]) -> None:
    """Raise JobRefused if two of several models' columns would have one name."""
    columns = joined(PromptFile.parse(prompt).columns_to_code, job.model.names) if job.model.fans_out else []
    twice = next((name for name, number in Counter(columns).items() if number > 1), None)
    if twice is not None:
        raise JobRefused(
            f"model.names: two columns of the output would be called {shown(twice)}; "
            "give one of columns_to_code another name"
        )


def assert_columns(job: Job, prompt: Mapping[str, Any], file: RunFile) -> None:
    """Raise TableRefused with BAD_JOB if the job names a column that the output will not have.

    `sort_by: RowID` is what PRISM's job files say by habit: without RowIDs the input's order is theirs.
    """
    coded = PromptFile.parse(prompt).columns_to_code
    columns = output_columns(file.columns, joined(coded, job.model.names) if job.model.fans_out else coded)
    sort_by = job.merge.sort_by
    if sort_by is not None and sort_by not in columns and sort_by != TableFormat().row_id_column:
        raise _no_such_column("merge.sort_by", sort_by, columns)
    for name in job.output.columns or ():
        if name not in columns:
            raise _no_such_column("output.columns", name, columns)


def _no_such_column(key: str, name: str, columns: list[str]) -> TableRefused:
    detail = f"{key}: the output has no column {shown(name)}; {listed(columns)}"
    return TableRefused(FileReason.BAD_JOB, detail)


def _header_of(plain: PlainFile, fmt: TableFormat) -> Header:
    try:
        return read_header(plain.path, fmt)
    except TableRefused as refused:
        if not fmt.converted:
            raise
        # Nobody has seen the lines of what the source was turned into.
        raise TableRefused(refused.reason, refused.detail) from None


def _assert_header_travels(header: Header) -> None:
    size = len(json.dumps(header.columns))
    if size > MAX_HEADER_BYTES:
        detail = f"the columns' names take {size} bytes, at most {MAX_HEADER_BYTES} are allowed"
        raise TableRefused(FileReason.TOO_LARGE, detail, line=header.lines)


def _assert_row_travels(first: Row) -> None:
    """Refuse a file with a row that no message can carry; a row so long is alone in its batch."""
    if first.end.offset - first.start.offset > _LONG_ROW:
        size = len(json.dumps([first.row_id, *first.cells], ensure_ascii=False).encode())
        if size > MAX_TRAVELLING_BYTES:
            detail = f"the row takes {size} bytes as JSON, more than a message has; shorten or remove it"
            raise TableRefused(FileReason.TOO_LARGE, detail, line=first.line)
