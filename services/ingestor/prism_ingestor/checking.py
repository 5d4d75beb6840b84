"""Pass 1: a submission's source read whole before the first model call, in a thread of its own.

Out comes either the run as it will be fed (columns, rows, batches) or the reason why it is refused.
"""

import json
import queue
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.annotation import PromptFile, PromptRefused
from prism.kafka.errors import BrokerAway
from prism.messages import CutPosition, FileReason, RunFile, RunRecord
from prism.runs.cutting import cut_rows
from prism.runs.job import Job, JobRefused, parse_job
from prism.service import fault
from prism.service.logs import get_logger
from prism.tables import TableFormat, TableRefused, check_rows, read_header
from prism_ingestor.sources import PlainFile, SourceChanged, Sources

log = get_logger(__name__)

RETRY_S = 2.0


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
    path = (jobs_dir / job.prompts.config_file).resolve()
    try:
        if not path.is_relative_to(jobs_dir.resolve()):
            raise ValueError("it lies outside the jobs folder")
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
        PromptFile.parse(fields)
    except (OSError, ValueError, PromptRefused) as error:
        raise TableRefused(FileReason.BAD_PROMPT, f"{job.prompts.config_file}: {error}") from None
    return dict(fields)


class Checker:
    """The thread that checks sources, one after the other; `done` holds what came out."""

    def __init__(self, sources: Sources, jobs_dir: Path, scratch: Path) -> None:
        self.done: queue.SimpleQueue[Checked] = queue.SimpleQueue()
        self._sources = sources
        self._jobs_dir = jobs_dir
        self._scratch = scratch
        self._wanted: queue.SimpleQueue[RunRecord | None] = queue.SimpleQueue()
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
        while (record := self._wanted.get()) is not None and not self._stopped.is_set():
            for file in record.files:
                self.done.put(self._check_until_it_can_be_told(record, file))

    def _check_until_it_can_be_told(self, record: RunRecord, file: RunFile) -> Checked:
        while True:
            try:
                return self._check(record, file)
            except (OSError, BrokerAway) as error:
                # Neither says anything about the file: a full disk and an absent broker come back.
                log.warning("check_postponed", run_id=record.run_id, error=error)
                if self._stopped.wait(RETRY_S):
                    return Checked(record.run_id, file, record.prompt)

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
            return Checked(
                record.run_id, file, record.prompt, None, error.reason, str(error), error.line, error.column
            )

    def _counted(self, file: RunFile, plain: PlainFile, job: Job) -> RunFile:
        fmt = table_format(job)
        header = read_header(plain.path, fmt)
        start = CutPosition()
        for cut in cut_rows(check_rows(plain.path, header, fmt, self._scratch), job.model.batch_size, start):
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


def clear_scratch(folder: Path) -> None:
    """Remove what a killed process left of its checks."""
    shutil.rmtree(folder, ignore_errors=True)
