"""Acceptance: an intake record becomes a run in `prism.runs`, and only then counts as read.

The record's offset is finished when the run is acknowledged: before that the record is read again after a
death, and makes the same run id, hence the same run.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prism.kafka.dead_letters import DeadLetters
from prism.kafka.records import Record
from prism.messages import MessageReason, RunFile, RunRecord, RunState
from prism.runs.catalogue import Catalogue, CatalogueRefused, read_catalogue
from prism.runs.naming import results_partition
from prism.service import fault
from prism.service.logs import get_logger
from prism_ingestor.checking import Checker
from prism_ingestor.intake import IntakeReader, Submission
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
            submission = self._reader.read(record)
            if submission is not None:
                self._accept_submission(submission, record)
        for submission in self._reader.given_up():
            self._accept_submission(submission, None)
        return record is not None

    def _accept_submission(self, submission: Submission, record: Record | None) -> None:
        places = _places(submission, record)

        def durable() -> None:
            fault.point("ingestor.after_run_written")
            self._intake.finish(*places)

        # The ledger first: what it has just ended may not have come round.
        known = self._ledger.known(submission.run_id) or self._known_runs.get(submission.run_id)
        if known is not None:
            self._accept_again(submission, known, record)
            return
        run = _new_run(submission, self.results_partitions)
        if submission.refusal is not None:
            run = run.model_copy(
                update={
                    "state": RunState.REFUSED,
                    "reason": submission.refusal.reason,
                    "detail": submission.refusal.detail,
                }
            )
        written = self._ledger.write(run, durable)
        if not written.state.ended:
            self._checker.submit(written)

    def _accept_again(self, submission: Submission, known: RunRecord, record: Record | None) -> None:
        """The run id is there already: the same record read again, the same file again, or another file."""
        finish = partial(self._intake.finish, *_places(submission, record))
        if any(file.source == submission.source for file in known.files):
            finish()
        elif record is not None and self._same_bytes(submission, known, record):
            log.info("same_run_again", run_id=known.run_id)
            finish()
        else:
            log.warning("run_id_taken", run_id=known.run_id)
            if record is None:  # chunks that were given up
                finish()
                return
            detail = f"the run id {known.run_id} belongs to another file: send this one under another id"
            self._dead_letters.send(record, MessageReason.RUN_ID_TAKEN, detail, finish)

    def _same_bytes(self, submission: Submission, known: RunRecord, record: Record) -> bool:
        file = RunFile(label=submission.label, source=submission.source)
        twin = f"{submission.run_id}.again"
        try:
            sha256 = self._sources.bring(twin, file).sha256
            for mine in known.files:
                other = (
                    mine.sha256 or self._sources.bring(twin, mine.model_copy(update={"columns": []})).sha256
                )
                if other == sha256:
                    return True
        except Exception as error:  # whatever is wrong with the second file, it is not the first one
            log.warning("second_file_not_read", run_id=known.run_id, error=error, offset=record.offset)
        finally:
            self._sources.forget(twin)
        return False


def catalogue_of(jobs_dir: Path) -> Catalogue:
    """Return what `models.json` in the jobs folder says; a file that cannot be used stops no run."""
    try:
        return read_catalogue(jobs_dir)
    except CatalogueRefused as error:
        log.warning("models_file_not_read", error=error)
        return Catalogue()


def _places(submission: Submission, record: Record | None) -> tuple[int, list[int]]:
    if submission.source.kind == "message":
        return submission.source.partition, [*submission.source.offsets, *submission.spare]
    assert record is not None  # a reference is one record, and that record is here
    return record.partition, [record.offset]


def _new_run(submission: Submission, partitions: int) -> RunRecord:
    return RunRecord(
        run_id=submission.run_id,
        epoch=0,
        state=RunState.ACCEPTED,
        job_name=submission.job_name,
        job=submission.job_fields,
        model_entry=submission.model_entry,
        files=[
            RunFile(
                label=submission.label,
                filename=submission.filename,
                source=submission.source,
                sha256=submission.sha256,
            )
        ],
        results_partition=results_partition(submission.run_id, partitions),
        priority=submission.priority,
        created_at=now_text(),
    )
