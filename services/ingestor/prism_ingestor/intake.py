"""Intake records read as what they mean: which run, which job, where the CSV lies.

Nothing of a CSV's content is kept here: a source is where its bytes lie (partition and offsets), and is
read from there when its turn comes, by this process or the next.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from prism.kafka.records import Record
from prism.messages import BadMessage, FileReason, MessageSource, Reference, UriSource
from prism.messages.intake import (
    DEFAULT_JOB,
    DEFAULT_PRIORITY,
    HEADER_ENCODING,
    HEADER_FILENAME,
    HEADER_JOB,
    HEADER_PART,
    HEADER_PARTS,
    HEADER_PRIORITY,
    HEADER_RUN_ID,
    HEADER_TYPE,
    MAX_PRIORITY,
    REFERENCE_TYPE,
)
from prism.runs.catalogue import Catalogue, ModelEntry
from prism.runs.job import Job, JobRefused, read_job
from prism.runs.naming import clean_label, generated_run_id, is_job_name, is_run_id, model_tag

MAX_PARTS = 100_000
# Of what is only shown. A header may have megabytes, and a run has to fit in one record.
MAX_NAME = 255
_NUMBER = re.compile(r"[0-9]{1,6}")


class IntakeRefused(Exception):
    """A CSV that cannot become a run: its run is `refused` with this reason."""

    def __init__(self, reason: FileReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Submission:
    """One CSV that somebody asks to have annotated."""

    run_id: str
    label: str
    filename: str
    job_name: str
    priority: int
    source: MessageSource | UriSource
    sha256: str | None = None
    job: Job | None = None
    job_fields: dict[str, object] = field(default_factory=dict)
    model_entry: dict[str, object] = field(default_factory=dict)
    refusal: IntakeRefused | None = None
    spare: tuple[int, ...] = ()


class _Origin(NamedTuple):
    """What a run's name is made of; a record without its 16 MiB."""

    partition: int
    offset: int
    key: str
    timestamp_ms: int

    @classmethod
    def of(cls, record: Record) -> "_Origin":
        return cls(record.partition, record.offset, record.key, record.timestamp_ms)


@dataclass(slots=True)
class _Parts:
    """The chunks of one file that have come so far; `spare` are those that came twice."""

    first: _Origin
    headers: dict[str, str]
    total: int
    offsets: dict[int, int]
    last_at: float
    spare: list[int] = field(default_factory=list)


class IntakeReader:
    """Turns intake records into submissions; holds back chunks until the last has come."""

    def __init__(
        self,
        jobs_dir: Path,
        catalogue: Callable[[], Catalogue],
        chunk_timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._jobs_dir = jobs_dir
        self._catalogue = catalogue
        self._chunk_timeout_s = chunk_timeout_s
        self._clock = clock
        self._parts: dict[tuple[int, str, str], _Parts] = {}

    def read(self, record: Record) -> Submission | None:
        """Return the submission that a record completes; None for a chunk that others follow."""
        headers = record.headers
        origin = _Origin.of(record)
        if record.headers_as_sent is None:
            refusal = IntakeRefused(FileReason.BAD_HEADER, "the name of a header is not UTF-8")
            unread = MessageSource(partition=record.partition, offsets=[record.offset])
            return self._submission(origin, headers, unread, None, refusal)
        if HEADER_PART in headers or HEADER_PARTS in headers:
            return self._read_part(record, headers)
        source: MessageSource | UriSource = MessageSource(
            partition=record.partition, offsets=[record.offset], encoding=_encoding(headers)
        )
        if headers.get(HEADER_TYPE, "").split(";")[0].strip() == REFERENCE_TYPE:
            return self._read_reference(record, headers)
        return self._submission(origin, headers, source)

    def _read_reference(self, record: Record, headers: dict[str, str]) -> Submission:
        refusal = None
        uri, sha256 = "", None
        try:
            reference = Reference.parse(record.value)
            uri, sha256 = reference.uri, reference.sha256
        except BadMessage as error:
            refusal = IntakeRefused(FileReason.BAD_REFERENCE, str(error))
        source = UriSource(uri=uri, encoding=_encoding(headers))
        return self._submission(_Origin.of(record), headers, source, sha256, refusal)

    def _read_part(self, record: Record, headers: dict[str, str]) -> Submission | None:
        number, total = _count(headers.get(HEADER_PART)), _count(headers.get(HEADER_PARTS))
        run_id = headers.get(HEADER_RUN_ID, "")
        origin = _Origin.of(record)
        key = (record.partition, record.key, run_id)
        parts = self._parts.get(key)
        if not run_id or not 1 <= number <= total <= MAX_PARTS or (parts and parts.total != total):
            refusal = IntakeRefused(
                FileReason.BAD_HEADER,
                "a chunk needs the headers run-id, part (from 1) and, the same in each, parts, in numbers",
            )
            source = MessageSource(partition=record.partition, offsets=[record.offset])
            return self._submission(origin, headers, source, None, refusal)
        if parts is None:
            parts = self._parts[key] = _Parts(origin, headers, total, {}, self._clock())
        if parts.offsets.setdefault(number, record.offset) != record.offset:
            parts.spare.append(record.offset)
        parts.last_at = self._clock()
        if len(parts.offsets) < parts.total:
            return None
        del self._parts[key]
        return replace(self._submission(parts.first, parts.headers, _joined(parts)), spare=tuple(parts.spare))

    def given_up(self) -> list[Submission]:
        """Return the chunked files whose next chunk has not come in time, as refused."""
        late = [
            key for key, one in self._parts.items() if self._clock() - one.last_at > self._chunk_timeout_s
        ]
        return [self._give_up(self._parts.pop(key)) for key in late]

    def _give_up(self, parts: _Parts) -> Submission:
        missing = next(number for number in range(1, parts.total + 1) if number not in parts.offsets)
        refusal = IntakeRefused(
            FileReason.INCOMPLETE_CHUNKS,
            f"{len(parts.offsets)} of {parts.total} chunks came, part {missing} did not: send the file again",
        )
        submission = self._submission(parts.first, parts.headers, _joined(parts), None, refusal)
        return replace(submission, spare=tuple(parts.spare))

    def needed_from(self, partition: int) -> int | None:
        """Return the lowest offset that an incomplete file of this partition needs."""
        offsets = [min(one.offsets.values()) for key, one in self._parts.items() if key[0] == partition]
        return min(offsets, default=None)

    def _submission(
        self,
        record: _Origin,
        headers: dict[str, str],
        source: MessageSource | UriSource,
        sha256: str | None = None,
        refusal: IntakeRefused | None = None,
    ) -> Submission:
        job_name = headers.get(HEADER_JOB) or DEFAULT_JOB
        job: Job | None = None
        fields: dict[str, object] = {}
        try:
            job, fields = self._job(job_name)
        except IntakeRefused as error:
            refusal = refusal or error
        run_id = headers.get(HEADER_RUN_ID, "")
        if run_id and not is_run_id(run_id):
            refusal = refusal or IntakeRefused(
                FileReason.BAD_RUN_ID, "a run id has up to 120 letters, digits, '.', '_', '-'"
            )
            run_id = ""
        entry = self._entry(job)
        run_id = run_id or _generated(record, job or Job(), entry)
        priority = headers.get(HEADER_PRIORITY)
        if priority is not None and not (_NUMBER.fullmatch(priority) and int(priority) <= MAX_PRIORITY):
            refusal = refusal or IntakeRefused(FileReason.BAD_HEADER, f"priority is 0 to {MAX_PRIORITY}")
            priority = None
        encoding = headers.get(HEADER_ENCODING, "").strip().lower()
        if encoding not in ("", "gzip", "identity"):
            refusal = refusal or IntakeRefused(FileReason.BAD_HEADER, "content-encoding is gzip or nothing")
        filename = Path(headers.get(HEADER_FILENAME, "").replace("\\", "/")).name[:MAX_NAME]
        return Submission(
            run_id=run_id,
            label=clean_label(record.key or filename or run_id),
            filename=filename,
            job_name=job_name[:MAX_NAME],
            priority=DEFAULT_PRIORITY if priority is None else int(priority),
            source=source,
            sha256=sha256,
            job=job,
            job_fields=fields,
            model_entry=entry.model_dump(mode="json", exclude_defaults=True) if entry is not None else {},
            refusal=refusal,
        )

    def _job(self, name: str) -> tuple[Job, dict[str, object]]:
        if not is_job_name(name):
            raise IntakeRefused(FileReason.UNKNOWN_JOB, "a job's name has letters, digits, '_' and '-'")
        path = self._jobs_dir / f"{name}.yaml"
        if not path.is_file():
            raise IntakeRefused(
                FileReason.UNKNOWN_JOB,
                f"no job file {name}.yaml in the jobs folder: put it there, or name another",
            )
        try:
            return read_job(path)
        except JobRefused as error:
            raise IntakeRefused(FileReason.BAD_JOB, str(error)) from None

    def _entry(self, job: Job | None) -> ModelEntry | None:
        """Return what `models.json` says of the job's model; None for the fleet's own."""
        return self._catalogue().entry(job.model.name) if job is not None and job.model.name else None


def _generated(record: _Origin, job: Job, entry: ModelEntry | None) -> str:
    tag = model_tag(job.model.name, entry.id if entry is not None else None)
    return generated_run_id(
        job.project.name, job.project.version, tag, record.timestamp_ms, record.partition, record.offset
    )


def _joined(parts: _Parts) -> MessageSource:
    offsets = [parts.offsets[number] for number in sorted(parts.offsets)]
    return MessageSource(partition=parts.first.partition, offsets=offsets, encoding=_encoding(parts.headers))


def _encoding(headers: dict[str, str]) -> Literal["gzip"] | None:
    return "gzip" if headers.get(HEADER_ENCODING, "").strip().lower() == "gzip" else None


def _count(text: str | None) -> int:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else 0
