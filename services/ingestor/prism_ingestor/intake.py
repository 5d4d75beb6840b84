"""Intake records read as what they mean: which run, which job, where the CSV lies.

Nothing of a CSV's content is kept here: a source is where its bytes lie (partition and offsets), and is
read from there when its turn comes, by this process or the next.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prism.annotation import PromptFile, PromptRefused
from prism.kafka.records import Record
from prism.messages import BadMessage, FileReason, MessageSource, Reference, RunFile, UriSource
from prism.messages.intake import (
    DEFAULT_JOB,
    DEFAULT_PRIORITY,
    HEADER_ENCODING,
    HEADER_FILE,
    HEADER_FILENAME,
    HEADER_JOB,
    HEADER_PART,
    HEADER_PARTS,
    HEADER_PRIORITY,
    HEADER_RUN_ID,
    HEADER_TYPE,
    MAX_FILES,
    MAX_PRIORITY,
    REFERENCE_TYPE,
    REQUEST_TYPE,
)
from prism.runs.catalogue import Catalogue
from prism.runs.job import Job, JobRefused, parse_job, read_job
from prism.runs.models import recorded_entries, tag_of
from prism.runs.naming import clean_label, generated_run_id, is_job_name, is_run_id
from prism.runs.ranges import ranges_of
from prism_ingestor.requested import Place, Requested, RequestRefused, parse_request, run_files

MAX_PARTS = 100_000
LOOK_EVERY_S = 1.0
# Of what is only shown. A header may have megabytes, and a run has to fit in one record.
MAX_NAME = 255
_NUMBER = re.compile(r"[0-9]{1,6}")
_RUN_ID_RULE = "a run id has up to 120 letters, digits, '.', '_', '-'"
# In the place of a file that never came.
_NOWHERE = MessageSource(partition=0, offsets=[])


class IntakeRefused(Exception):
    """A CSV that cannot become a run: its run is `refused` with this reason."""

    def __init__(self, reason: FileReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Submission:
    """One run that somebody asks for. `places`: partition and offset of every record that it came in."""

    run_id: str
    job_name: str
    priority: int
    files: tuple[RunFile, ...]
    places: tuple[Place, ...]
    job: Job | None = None
    job_fields: dict[str, Any] = field(default_factory=dict)
    prompt: dict[str, Any] = field(default_factory=dict)
    # What `models.json` says, as `recorded_entries` has it.
    entries: dict[str, Any] = field(default_factory=dict)
    parent: str = ""
    refusal: IntakeRefused | None = None


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
    """The chunks of one file that have come so far; `spare`: those in whose place others have come."""

    first: _Origin
    headers: dict[str, str]
    total: int
    offsets: dict[int, int]
    last_at: float
    spare: list[int] = field(default_factory=list)

    def begin_again(self, first: _Origin, headers: dict[str, str], total: int) -> None:
        """Note a first chunk: who sends it begins, perhaps after a death and with other bytes."""
        if total != self.total:
            self.spare += self.offsets.values()
            self.offsets = {}
        self.first, self.headers, self.total = first, headers, total

    def came(self, number: int, offset: int) -> None:
        """Take in a chunk; the last of a number counts: what came before is of a sender that has died."""
        if number in self.offsets:
            self.spare.append(self.offsets[number])
        self.offsets[number] = offset


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
        self._parts: dict[tuple[int, str, str, str], _Parts] = {}
        self._requested: dict[str, Requested] = {}
        self._look_again_at = 0.0

    def read(self, record: Record) -> Submission | None:
        """Return the submission that a record completes; None for one that others follow."""
        headers = record.headers
        origin = _Origin.of(record)
        if record.headers_as_sent is None:
            refusal = IntakeRefused(FileReason.BAD_HEADER, "the name of a header is not UTF-8")
            unread = MessageSource(partition=record.partition, offsets=[record.offset])
            return self._submission(origin, headers, unread, None, refusal)
        if content_type(headers) == REQUEST_TYPE:
            return self._read_request(record, headers)
        if HEADER_PART in headers or HEADER_PARTS in headers:
            return self._read_part(record, headers)
        source = MessageSource(
            partition=record.partition, offsets=[record.offset], encoding=_encoding(headers)
        )
        if content_type(headers) == REFERENCE_TYPE:
            return self._read_reference(record, headers)
        if HEADER_FILE in headers:
            return self._take_file(origin, headers, source, [record.offset])
        return self._submission(origin, headers, source)

    def _read_request(self, record: Record, headers: dict[str, str]) -> Submission | None:
        """Take in what a run is to be; its files follow, or have come."""
        origin, run_id = _Origin.of(record), headers.get(HEADER_RUN_ID, "")
        try:
            if not is_run_id(run_id):
                raise RequestRefused(
                    FileReason.BAD_RUN_ID, f"a requested run needs its run id: {_RUN_ID_RULE}"
                )
            request = parse_request(record.value)
        except RequestRefused as error:
            refusal = IntakeRefused(error.reason, error.detail)
            unread = MessageSource(partition=record.partition, offsets=[record.offset])
            return self._submission(origin, headers, unread, None, refusal)
        requested = self._requested_run(run_id)
        requested.asked(request, record.value)
        requested.priority = headers.get(HEADER_PRIORITY)
        requested.places.append((record.partition, record.offset))
        return self._completed(run_id)

    def request_alone(self, record: Record) -> Submission:
        """Return what a request asks for, whether its files are here or not: to compare it with a run."""
        run_id = record.headers.get(HEADER_RUN_ID, "")
        requested = Requested(self._clock(), places=[(record.partition, record.offset)])
        try:
            requested.asked(parse_request(record.value), record.value)
        except RequestRefused as error:
            places = tuple(requested.places)
            return Submission(run_id, "", DEFAULT_PRIORITY, (), places, refusal=_refusal(error))
        requested.files |= dict.fromkeys(requested.awaited, _NOWHERE)
        return self.asked_for(run_id, requested)

    def _take_file(
        self, origin: "_Origin", headers: dict[str, str], source: MessageSource, offsets: list[int]
    ) -> Submission | None:
        """Take in a file that belongs to a requested run."""
        run_id, number = headers.get(HEADER_RUN_ID, ""), _count(headers.get(HEADER_FILE))
        if not is_run_id(run_id) or not 1 <= number <= MAX_FILES:
            refusal = IntakeRefused(
                FileReason.BAD_HEADER, f"a file of a requested run needs run-id and file, 1 to {MAX_FILES}"
            )
            return self._submission(origin, headers, source, None, refusal)
        requested = self._requested_run(run_id)
        requested.came(number, source)
        requested.places += [(origin.partition, offset) for offset in offsets]
        return self._completed(run_id)

    def _requested_run(self, run_id: str) -> Requested:
        found = self._requested.setdefault(run_id, Requested(self._clock()))
        found.last_at = self._clock()
        return found

    def _completed(self, run_id: str) -> Submission | None:
        if not self._requested[run_id].complete:
            return None
        return self.asked_for(run_id, self._requested.pop(run_id))

    def asked_for(
        self, run_id: str, requested: Requested, refusal: IntakeRefused | None = None
    ) -> Submission:
        """Return the submission of a requested run, as far as its files have come."""
        request = requested.request
        assert request is not None
        job: Job | None = None
        files: list[RunFile] = []
        try:
            job = parse_job(request.job, request.job_name or "job")
            files = run_files(request, requested, ranges_of(job))
            PromptFile.parse(request.prompt)
        except (JobRefused, PromptRefused, RequestRefused) as error:
            refusal = refusal or _refusal(error)
        priority, bad = _priority(requested.priority)
        return Submission(
            run_id=run_id,
            job_name=request.job_name,
            priority=priority,
            files=tuple(files),
            places=tuple(requested.places),
            job=job,
            job_fields=request.job,
            prompt=request.prompt,
            entries={"model_entry": request.model_entry, "model_entries": request.model_entries},
            parent=request.parent,
            refusal=refusal or bad,
        )

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
        key = (record.partition, record.key, run_id, headers.get(HEADER_FILE, ""))
        parts = self._parts.get(key)
        strange = parts is not None and parts.total != total and number != 1
        if not run_id or not 1 <= number <= total <= MAX_PARTS or strange:
            refusal = IntakeRefused(
                FileReason.BAD_HEADER,
                "a chunk needs the headers run-id, part (from 1) and, the same in each, parts, in numbers",
            )
            source = MessageSource(partition=record.partition, offsets=[record.offset])
            return self._submission(origin, headers, source, None, refusal)
        if parts is None:
            parts = self._parts[key] = _Parts(origin, headers, total, {}, self._clock())
        elif number == 1:
            parts.begin_again(origin, headers, total)
        parts.came(number, record.offset)
        parts.last_at = self._clock()
        if len(parts.offsets) < parts.total:
            return None
        del self._parts[key]
        if HEADER_FILE in parts.headers:
            offsets = [*parts.offsets.values(), *parts.spare]
            return self._take_file(parts.first, parts.headers, _joined(parts), offsets)
        return _with_spare(self._submission(parts.first, parts.headers, _joined(parts)), parts)

    def given_up(self) -> list[Submission]:
        """Return what was chunked or requested, and whose next piece has not come in time, as refused."""
        now = self._clock()
        if now < self._look_again_at:
            return []  # at each record all that wait would be looked through
        self._look_again_at = now + LOOK_EVERY_S
        oldest = now - self._chunk_timeout_s
        late = [key for key, one in self._parts.items() if one.last_at < oldest]
        found = [self._give_up(self._parts.pop(key)) for key in late]
        runs = [run_id for run_id, one in self._requested.items() if one.last_at < oldest]
        return [*found, *(self._give_up_run(run_id, self._requested.pop(run_id)) for run_id in runs)]

    def _give_up_run(self, run_id: str, requested: Requested) -> Submission:
        refusal = IntakeRefused(
            FileReason.INCOMPLETE_CHUNKS, f"{requested.missing()}: ask for it again, under another run id"
        )
        if requested.value is not None:
            requested.files |= dict.fromkeys(requested.awaited, _NOWHERE)
            return self.asked_for(run_id, requested, refusal)
        return Submission(run_id, "", DEFAULT_PRIORITY, (), tuple(requested.places), refusal=refusal)

    def _give_up(self, parts: _Parts) -> Submission:
        missing = next(number for number in range(1, parts.total + 1) if number not in parts.offsets)
        refusal = IntakeRefused(
            FileReason.INCOMPLETE_CHUNKS,
            f"{len(parts.offsets)} of {parts.total} chunks came, part {missing} did not: "
            "send the file again, under another run id",
        )
        return _with_spare(self._submission(parts.first, parts.headers, _joined(parts), None, refusal), parts)

    def needed_from(self, partition: int) -> int | None:
        """Return the lowest offset that an incomplete file or run of this partition needs."""
        return min(self._needed(partition), default=None)

    def _needed(self, partition: int) -> Iterator[int]:
        for key, one in self._parts.items():
            if key[0] == partition:
                yield min([*one.offsets.values(), *one.spare])
        for requested in self._requested.values():
            yield from (offset for where, offset in requested.places if where == partition)

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
        fields: dict[str, Any] = {}
        try:
            job, fields = self._job(job_name)
        except IntakeRefused as error:
            refusal = refusal or error
        run_id = headers.get(HEADER_RUN_ID, "")
        if run_id and not is_run_id(run_id):
            refusal = refusal or IntakeRefused(FileReason.BAD_RUN_ID, _RUN_ID_RULE)
            run_id = ""
        catalogue = self._catalogue()
        run_id = run_id or _generated(record, job or Job(), catalogue)
        priority, bad = _priority(headers.get(HEADER_PRIORITY))
        refusal = refusal or bad
        if headers.get(HEADER_ENCODING, "").strip().lower() not in ("", "gzip", "identity"):
            refusal = refusal or IntakeRefused(FileReason.BAD_HEADER, "content-encoding is gzip or nothing")
        filename = Path(headers.get(HEADER_FILENAME, "").replace("\\", "/")).name[:MAX_NAME]
        file = RunFile(
            label=clean_label(record.key or filename or run_id),
            filename=filename,
            source=source,
            sha256=sha256,
            ranges=ranges_of(job) if job is not None else [],
        )
        return Submission(
            run_id=run_id,
            job_name=job_name[:MAX_NAME],
            priority=priority,
            files=(file,),
            places=_places(record, source),
            job=job,
            job_fields=fields,
            entries=recorded_entries(catalogue, job.model) if job is not None else {},
            refusal=refusal,
        )

    def _job(self, name: str) -> tuple[Job, dict[str, Any]]:
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


def _refusal(error: JobRefused | PromptRefused | RequestRefused) -> IntakeRefused:
    if isinstance(error, RequestRefused):
        return IntakeRefused(error.reason, error.detail)
    reason = FileReason.BAD_JOB if isinstance(error, JobRefused) else FileReason.BAD_PROMPT
    return IntakeRefused(reason, str(error))


def _priority(text: str | None) -> tuple[int, IntakeRefused | None]:
    """Return a run's priority; the usual one, and why, for what is none."""
    if text is None:
        return DEFAULT_PRIORITY, None
    if _NUMBER.fullmatch(text) and int(text) <= MAX_PRIORITY:
        return int(text), None
    return DEFAULT_PRIORITY, IntakeRefused(FileReason.BAD_HEADER, f"priority is 0 to {MAX_PRIORITY}")


def _places(record: _Origin, source: MessageSource | UriSource) -> tuple[Place, ...]:
    offsets = source.offsets if isinstance(source, MessageSource) else [record.offset]
    return tuple((record.partition, offset) for offset in offsets)


def _with_spare(submission: Submission, parts: _Parts) -> Submission:
    """Return a chunked file's submission with the chunks that came twice among its places."""
    spare = tuple((parts.first.partition, offset) for offset in parts.spare)
    return replace(submission, places=(*submission.places, *spare))


def content_type(headers: dict[str, str]) -> str:
    """Return what a record says its value is."""
    return headers.get(HEADER_TYPE, "").split(";")[0].strip()


def _generated(record: _Origin, job: Job, catalogue: Catalogue) -> str:
    tag = tag_of(job.model, catalogue)
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
