"""Pass 1: a submission's source read whole before the first model call, in a thread of its own.

Out comes either the run as it will be fed (columns, rows, batches) or the reason why it is refused.
"""

import errno
import json
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.annotation import PromptFile, PromptRefused
from prism.annotation.strict_json import load_strictly
from prism.kafka.errors import BrokerAway
from prism.messages import CutPosition, FileReason, RunFile, RunRecord
from prism.messages.topics import RESULT_MAX_BYTES
from prism.runs.cutting import cut_rows
from prism.runs.job import Job, JobRefused, parse_job
from prism.service import fault
from prism.service.logs import get_logger
from prism.tables import Header, Row, TableFormat, TableRefused, check_rows, open_source, read_header
from prism_ingestor.sources import PlainFile, SourceChanged, Sources

log = get_logger(__name__)

RETRY_S = 2.0
MAX_PROMPT_BYTES = 1_000_000
# All of a run travels in one record, and its header with it.
MAX_HEADER_BYTES = 1_000_000
# JSON writes a control character with six bytes: a row of millions of them would fit in no message.
MAX_TRAVELLING_BYTES = RESULT_MAX_BYTES - 1_000_000
_NO_ROOM = (FileReason.NO_SPACE, FileReason.GZIP_BOMB)
# Twice: a RowID travels beside the cells too.
_LONG_ROW = MAX_TRAVELLING_BYTES // 13


@dataclass(frozen=True, slots=True)
class Checked:
    """What pass 1 found out about a run: a plain file to feed from, or why it is refused."""

    run_id: str
    file: RunFile
    prompt: dict[str, Any]
    plain: PlainFile | None = None
    reason: FileReason | None = None
    detail: str = ""
    line: int | None = None
    column: int | None = None


def table_format(job: Job) -> TableFormat:
    """Return how a job's CSVs are written."""
    return TableFormat(delimiter=job.table.delimiter, required_columns=tuple(job.table.required_columns))


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


class Checker:
    """The thread that checks sources, one after the other; `done` holds what came out."""

    def __init__(self, sources: Sources, jobs_dir: Path, scratch: Path) -> None:
        self.done: queue.SimpleQueue[Checked] = queue.SimpleQueue()
        self._sources = sources
        self._jobs_dir = jobs_dir
        self._scratch = scratch
        # Why a run's source could not be read yet, by run id.
        self.postponed: dict[str, str] = {}
        self._wanted: queue.SimpleQueue[RunRecord | None] = queue.SimpleQueue()
        self._later: list[tuple[float, RunRecord]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checker", daemon=True)

    def start(self) -> None:
        """Begin to check."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def submit(self, record: RunRecord) -> None:
        """Ask for a run's source to be checked, or (for a run that is fed) brought to disk again."""
        self._wanted.put(record)

    def close(self) -> None:
        """Stop after what is being checked."""
        self._stopped.set()
        self._wanted.put(None)

    def _run(self) -> None:
        while not self._stopped.is_set():
            record = self._next()
            if record is None or self._stopped.is_set():
                continue
            try:
                for file in record.files:
                    self.done.put(self._check(record, file))
                self.postponed.pop(record.run_id, None)
            except (OSError, BrokerAway) as error:
                # Neither says anything about the file: a full disk and an absent broker come back.
                log.warning("check_postponed", run_id=record.run_id, error=error)
                self.postponed[record.run_id] = f"the source cannot be read now: {error}"
                self._later.append((time.monotonic() + RETRY_S, record))

    def _next(self) -> RunRecord | None:
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

    def _check(self, record: RunRecord, file: RunFile) -> Checked:
        try:
            job = parse_job(record.job, record.job_name)
            prompt = record.prompt or read_prompt(self._jobs_dir, job)
            plain = self._sources.bring(record.run_id, file)
            if not file.columns:
                file = self._counted(file, plain, job)
            fault.point("ingestor.after_check")
            return Checked(record.run_id, file, prompt, plain)
        except JobRefused as error:
            return Checked(record.run_id, file, record.prompt, reason=FileReason.BAD_JOB, detail=str(error))
        except SourceChanged as error:
            return Checked(record.run_id, file, record.prompt, reason=error.reason, detail=error.detail)
        except TableRefused as error:
            if file.columns and error.reason in _NO_ROOM:
                # It was accepted before: what is too small is this disk.
                raise OSError(errno.ENOSPC, error.detail) from None
            return Checked(
                record.run_id, file, record.prompt, None, error.reason, str(error), error.line, error.column
            )

    def _counted(self, file: RunFile, plain: PlainFile, job: Job) -> RunFile:
        fmt = table_format(job)
        header = read_header(plain.path, fmt)
        _assert_header_travels(header)
        start = CutPosition()
        self._scratch.mkdir(parents=True, exist_ok=True)
        for cut in cut_rows(check_rows(plain.path, header, fmt, self._scratch), job.model.batch_size, start):
            _assert_row_travels(cut.rows[0])
            start = cut.end
        plain.assert_unchanged()
        return file.model_copy(
            update={
                "columns": list(header.columns),
                "delimiter": fmt.delimiter,
                "rows": start.ordinal,
                "batches": start.sequence,
                "sha256": plain.sha256,
                "bytes": plain.bytes,
            }
        )


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
