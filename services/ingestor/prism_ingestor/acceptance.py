"""Acceptance: intake records become a run in `prism.runs`, and only then count as read.

The records' offsets are finished when the run is acknowledged: before that they are read again after a
death, and make the same run id, hence the same run. Of a run that is known already they may come again one
by one, the others being committed: each is told by where it lies, or by what it asks for.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prism.kafka.dead_letters import DeadLetters
from prism.kafka.records import Record, sent_trace
from prism.messages import (
    FileReason,
    MessageReason,
    MessageSource,
    RunFile,
    RunRecord,
    RunState,
    TraceContext,
)
from prism.messages.intake import HEADER_FILE, HEADER_RUN_ID, REQUEST_TYPE
from prism.runs.catalogue import Catalogue, CatalogueRefused, read_catalogue
from prism.runs.models import inputs
from prism.runs.naming import results_partition
from prism.runs.sameness import difference
from prism.service import fault, tracing
from prism.service.logs import get_logger
from prism_ingestor.checking import MAX_RUN_BYTES, Checker
from prism_ingestor.intake import IntakeReader, IntakeRefused, Submission, content_type
from prism_ingestor.intake_topic import IntakeTopic
from prism_ingestor.ledger import Ledger, now_text
from prism_ingestor.sources import Sources

log = get_logger(__name__)


class Acceptance:
    """Reads intake, writes runs, and hands them to pass 1."""

    def __init__(
        self,
        intake: IntakeTopic,
        reader: IntakeReader,
        ledger: Ledger,
        checker: Checker,
        sources: Sources,
        known_runs: Mapping[str, RunRecord],
        dead_letters: DeadLetters,
    ) -> None:
        self.results_partitions = 1
        self._intake = intake
        self._reader = reader
        self._ledger = ledger
        self._checker = checker
        self._sources = sources
        self._known_runs = known_runs
        self._dead_letters = dead_letters

    def turn(self) -> bool:
        """Accept what the next record completes; return whether there was one."""
        record = None if self._dead_letters.crowded else self._intake.poll()
        if record is not None:
            fault.point("ingestor.after_intake_read")
            if not self._is_piece_of_known(record):
                submission = self._reader.read(record)
                if submission is not None:
                    self._accept_submission(submission, record)
        for submission in self._reader.given_up():
            self._accept_submission(submission, None)
        return record is not None

    def _known(self, run_id: str) -> RunRecord | None:
        # The ledger first: what it has just ended may not have come round.
        return self._ledger.known(run_id) or self._known_runs.get(run_id)

    def _is_piece_of_known(self, record: Record) -> bool:
        """Finish one record of several of a run that is known: nothing waits for it any more."""
        known = self._known(record.headers.get(HEADER_RUN_ID, ""))
        if known is None:
            return False
        if content_type(record.headers) == REQUEST_TYPE:
            self._compare_request(record, known)
        elif HEADER_FILE in record.headers or _holds(known, record):
            self._intake.finish(record.partition, [record.offset])
        else:
            return False
        return True

    def _compare_request(self, record: Record, known: RunRecord) -> None:
        finish = partial(self._intake.finish, record.partition, [record.offset])
        asked = self._reader.request_alone(record)
        differs = (
            asked.refusal.detail
            if asked.refusal is not None
            else difference(known, asked.job_fields, asked.prompt, asked.files)
        )
        if differs is None:
            log.info("same_run_again", run_id=known.run_id)
            finish()
            return
        log.warning("run_id_taken", run_id=known.run_id, differs=differs)
        detail = f"the run id {known.run_id} belongs to another run: {differs}"
        self._dead_letters.send(record, MessageReason.RUN_ID_TAKEN, detail, finish)

    def _accept_submission(self, submission: Submission, record: Record | None) -> None:
        known = self._known(submission.run_id)
        if known is not None:
            self._accept_again(submission, known, record)
            return
        given = sent_trace(record.headers) if record is not None else None
        span = _begun(submission, record, given, self._intake.group)

        def durable() -> None:
            fault.point("ingestor.after_run_written")
            self._finish(submission)
            span.end()

        run, refusal = self._new_run(submission)
        run = run.in_trace(span.context or given)
        if refusal is not None:
            span.fail(refusal.reason)
            told = {"state": RunState.REFUSED, "reason": refusal.reason, "detail": refusal.detail}
            run = run.model_copy(update=told)
        run = _fit_for_a_record(run)
        written = self._ledger.write(run, durable)
        if not written.state.ended:
            self._checker.submit(written)

    def _finish(self, submission: Submission) -> None:
        for partition, offset in submission.places:
            self._intake.finish(partition, [offset])

    def _new_run(self, submission: Submission) -> tuple[RunRecord, IntakeRefused | None]:
        run = RunRecord(
            run_id=submission.run_id,
            epoch=0,
            state=RunState.ACCEPTED,
            job_name=submission.job_name,
            job=submission.job_fields,
            prompt=submission.prompt,
            **submission.entries,
            files=list(submission.files),
            parent=submission.parent,
            results_partition=results_partition(submission.run_id, self.results_partitions),
            priority=submission.priority,
            created_at=now_text(),
        )
        if submission.refusal is not None or not submission.parent:
            return run, submission.refusal
        parent = self._known(submission.parent)
        refusal = self._objection(run, parent)
        if parent is not None:
            # The merger that has the parent's output completes it.
            files = [_as_in(parent, one) for one in run.files]
            run = run.model_copy(update={"results_partition": parent.results_partition, "files": files})
        return run, refusal

    def _objection(self, run: RunRecord, parent: RunRecord | None) -> IntakeRefused | None:
        """Return why a run cannot do another's failed rows again."""
        if parent is None or not parent.state.ended:
            why = "is not known" if parent is None else f"has not ended ({parent.state})"
            return IntakeRefused(FileReason.BAD_REQUEST, f"the run {run.parent} {why}: it cannot be retried")
        if parent.parent:
            why = f"{run.parent} is a retry itself: name {parent.parent} as the parent"
            return IntakeRefused(FileReason.BAD_REQUEST, why)
        strange = [one.label for one in run.files if parent.file(one.label) is None]
        if strange:
            return IntakeRefused(FileReason.BAD_REQUEST, f"{run.parent} has no file {strange[0]}")
        twin = next((one for one in self._ledger.runs.values() if one.parent == run.parent), None)
        if twin is not None:
            return IntakeRefused(FileReason.BAD_REQUEST, f"{twin.run_id} does its failed rows already")
        return None

    def _accept_again(self, submission: Submission, known: RunRecord, record: Record | None) -> None:
        """The run id is there already: the same record read again, the same file again, or another file."""
        sources = [one.source for one in submission.files]
        if record is None or any(file.source in sources for file in known.files):
            self._finish(submission)  # with no record: what was given up
        elif self._same_bytes(submission, known, record):
            log.info("same_run_again", run_id=known.run_id)
            self._finish(submission)
        else:
            log.warning("run_id_taken", run_id=known.run_id)
            detail = f"the run id {known.run_id} belongs to another file: send this one under another id"
            self._dead_letters.send(
                record, MessageReason.RUN_ID_TAKEN, detail, partial(self._finish, submission)
            )

    def _same_bytes(self, submission: Submission, known: RunRecord, record: Record) -> bool:
        twin = f"{submission.run_id}.again"
        try:
            for mine, theirs in zip(inputs(known), submission.files, strict=True):
                if self._digest(twin, mine) != self._digest(twin, theirs):
                    return False
        except Exception as error:  # whatever is wrong with the second file, it is not the first one
            log.warning("second_file_not_read", run_id=known.run_id, error=error, offset=record.offset)
            return False
        finally:
            self._sources.forget(twin)
        return True

    def _digest(self, twin: str, file: RunFile) -> str:
        """Return the SHA-256 of a file's bytes: as pass 1 has found it, else of what lies there now."""
        if file.columns and file.sha256:
            return file.sha256
        return self._sources.bring(twin, file.model_copy(update={"columns": [], "sha256": None})).sha256


def catalogue_of(jobs_dir: Path) -> Catalogue:
    """Return what `models.json` in the jobs folder says; a file that cannot be used stops no run."""
    try:
        return read_catalogue(jobs_dir)
    except CatalogueRefused as error:
        log.warning("models_file_not_read", error=error)
        return Catalogue()


def _begun(
    submission: Submission, record: Record | None, given: TraceContext | None, group: str
) -> tracing.Span:
    """Return the span of a run's acceptance, above all that comes of the run."""
    if record is None or not tracing.is_on():
        return tracing.OFF
    about: dict[str, str | int] = {
        "messaging.consumer.group.name": group,
        "prism.run.id": submission.run_id,
    }
    if len(submission.places) > 1:
        about["messaging.batch.message_count"] = len(submission.places)
    return tracing.process(record, given, about)


def _as_in(parent: RunRecord, file: RunFile) -> RunFile:
    """Return a file of a retry, done again by the one of several models whose rows they are."""
    theirs = parent.file(file.label)
    if theirs is None:
        return file
    return file.model_copy(update={"origin": theirs.origin, "model": theirs.model})


def _fit_for_a_record(run: RunRecord) -> RunRecord:
    """Return a run, or if it is larger than any record may be, without what makes it so, and refused."""
    size = len(run.to_bytes())
    if size <= MAX_RUN_BYTES:
        return run
    detail = f"the run takes {size} bytes with its job, prompt and row ranges, at most {MAX_RUN_BYTES}"
    told = {"state": RunState.REFUSED, "reason": FileReason.TOO_LARGE, "detail": detail}
    return run.model_copy(
        update=told
        | {"job": {}, "prompt": {}, "model_entry": {}, "model_entries": {}, "files": [], "parent": ""}
    )


def _holds(known: RunRecord, record: Record) -> bool:
    """Return whether a record is a part of a run's source."""
    return any(
        isinstance(file.source, MessageSource)
        and file.source.partition == record.partition
        and record.offset in file.source.offsets
        for file in known.files
    )
