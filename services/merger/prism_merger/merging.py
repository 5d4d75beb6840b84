"""Results go into the store: the deduplication, and what a commit consists of.

Everything that one call merges, with the offsets behind it, is one transaction. What is refused is in the
dead letters, acknowledged, before the offsets pass it; what leaves as progress leaves after the commit.
An exception leaves the store as it was; the caller then loads the ledger again and reads again from the
offsets that the store shows.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prism.kafka.records import Record
from prism.messages import BadMessage, MessageReason, Result
from prism.service import fault
from prism.service.logs import get_logger
from prism_merger.accounts import FileAccount, RunAccount, Stage
from prism_merger.ledger import Ledger
from prism_merger.metrics import Metrics
from prism_merger.outlet import Outlet
from prism_merger.plans import RunPlan
from prism_merger.progress import seconds_of, timestamp
from prism_merger.rendering import FailedRow, RenderedBatch
from prism_merger.result_spans import ResultSpans
from prism_merger.store import Store

log = get_logger(__name__)

# Whoever wants to know which rows of a file have failed, once that is committed.
OnFailed = Callable[[RunAccount, RunPlan, str, Sequence[FailedRow]], None]


class _Refusal(Exception):
    """A record that goes to the dead letters."""

    def __init__(self, reason: MessageReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _New(NamedTuple):
    run: RunAccount
    file: FileAccount
    sequence: int
    batch: RenderedBatch


@dataclass(slots=True)
class _Commit:
    """What one transaction will hold, and what it does to the metrics."""

    new: list[_New] = field(default_factory=list)
    runs: dict[str, RunAccount] = field(default_factory=dict)
    files: dict[str, dict[str, FileAccount]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rows_ok: int = 0
    extra_calls: int = 0
    refused: bool = False
    spans: ResultSpans = field(default_factory=ResultSpans)


class Merger:
    """Merges records of the own partitions.

    `refresh` brings `prism.runs` to its end; it is asked when a result names a run that is not known.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        outlet: Outlet,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        refresh: Callable[[], None],
        on_failed: OnFailed = lambda *_: None,
    ) -> None:
        self._on_failed = on_failed
        self._store = store
        self._ledger = ledger
        self._outlet = outlet
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._refresh = refresh
        self._refreshed = False
        self._merged_outcome = metrics.results.labels("merged")
        self._ok_rows = metrics.rows.labels("ok", "")

    def merge(self, records: Sequence[Record], offsets: Mapping[int, int]) -> list[RunAccount]:
        """Merge records and note the offsets behind them; return the runs that changed."""
        commit = _Commit(spans=ResultSpans(records))
        self._refreshed = False
        for record in records:
            try:
                self._take(record, commit)
            except _Refusal as refusal:
                self._refuse(record, refusal, commit)
        if commit.refused:
            self._outlet.settle()
        if not offsets and not commit.runs:
            return []
        began = time.perf_counter()
        with commit.spans.committing(), self._store.transaction():
            self._write(commit, offsets)
            fault.point("merger.before_store_commit")
        self._metrics.commit_seconds.observe(time.perf_counter() - began)
        self._count(commit)
        fault.point("merger.after_store_commit")
        return list(commit.runs.values())

    def add_extra_calls(self, run: RunAccount, calls: int) -> None:
        """Count calls whose answers are not wanted; inside a transaction that saves the run."""
        run.extra_calls += calls
        run.manifest_stale = run.stage not in (Stage.MERGING, Stage.PUBLISHING)
        self._ledger.keep(run)

    def _take(self, record: Record, commit: _Commit) -> None:
        try:
            result = Result.parse(record.value)
        except BadMessage as error:
            raise _Refusal(MessageReason.NOT_PARSED, str(error)) from None
        run = commit.runs.get(result.run_id) or self._known(result)
        if run.stage is Stage.LEFT_ALONE:
            commit.outcomes["left_alone"] += 1
            return None
        plan = self._ledger.plan(run.run_id)
        file, renderer = run.files.get(result.label), plan.renderers.get(result.label)
        if file is None or renderer is None:
            raise _Refusal(MessageReason.NOT_PARSED, "the run has no such file, or it was never checked")
        objection = renderer.objection(result)
        if objection is None and not run.takes_results:
            return self._duplicate(run, result, commit)
        if objection is None and result.sequence in file.merged:
            return self._duplicate(run, result, commit)
        if objection is None and not _fits(file, result):
            objection = "its rows are not those between its neighbours"
        if objection is not None:
            raise _Refusal(MessageReason.NOT_PARSED, f"{result.id[:300]}: {objection}")
        self._new(run, file, plan, result, record, commit)
        return None

    def _known(self, result: Result) -> RunAccount:
        """Return the accounts of the result's run. Raise _Refusal if nobody knows it."""
        run = self._ledger.find(result.run_id)
        if run is None or (run.stage is Stage.MERGING and not self._is_checked(run, result)):
            run = self._looked_up(result.run_id)
        if run is not None:
            return run
        record = self._ledger.record(result.run_id)
        if record is not None and not self._ledger.is_mine(record):
            raise _Refusal(
                MessageReason.STALE,
                f"results of {result.run_id[:200]} belong into partition {record.results_partition}",
            )
        raise _Refusal(MessageReason.UNKNOWN_RUN, f"no run {result.run_id[:200]} in the runs topic")

    def _looked_up(self, run_id: str) -> RunAccount | None:
        """Return the accounts of a run as the runs topic knows it now; one look per call of `merge`."""
        if not self._refreshed:
            self._refresh()
            self._refreshed = True
        record = self._ledger.record(run_id)
        if record is not None:
            self._ledger.take_in(record)
        return self._ledger.find(run_id)

    def _is_checked(self, run: RunAccount, result: Result) -> bool:
        return result.label in self._ledger.plan(run.run_id).renderers

    def _new(
        self,
        run: RunAccount,
        file: FileAccount,
        plan: RunPlan,
        result: Result,
        record: Record,
        commit: _Commit,
    ) -> None:
        batch = plan.renderers[file.label].render(result)
        run.add(file, result, batch)
        if run.first_offset is None:
            run.first_offset = record.offset
        run.first_result_at = run.first_result_at or timestamp(self._wall_clock)
        seconds = self._wall_clock() - (seconds_of(run.first_result_at) or 0.0)
        if run.timeline.is_due(seconds):
            run.note_moment(max(0.0, seconds))
        commit.new.append(_New(run, file, result.sequence, batch))
        commit.runs[run.run_id] = run
        commit.files.setdefault(run.run_id, {})[file.label] = file
        commit.rows_ok += batch.ok
        if batch.failed:
            commit.reasons.update(batch.reasons())

    def _duplicate(self, run: RunAccount, result: Result, commit: _Commit) -> None:
        commit.outcomes["duplicate"] += 1
        commit.extra_calls += result.usage.calls
        if result.usage.calls:
            self.add_extra_calls(run, result.usage.calls)
            commit.runs[run.run_id] = run

    def _refuse(self, record: Record, refusal: _Refusal, commit: _Commit) -> None:
        log.warning(
            "result_refused", partition=record.partition, offset=record.offset, reason=refusal.reason,
            detail=refusal.detail,
        )  # fmt: skip
        self._outlet.dead_letter(record, refusal.reason, refusal.detail)
        self._metrics.dead_letters.labels(refusal.reason.value).inc()
        commit.outcomes["dead_letter"] += 1
        commit.spans.refused(record, refusal.reason)
        commit.refused = True

    def _write(self, commit: _Commit, offsets: Mapping[int, int]) -> None:
        for _, file, sequence, batch in commit.new:
            if not self._store.add_batch(file.file_id, sequence, batch):
                raise AssertionError(
                    f"batch {sequence} of {file.label} is in the store, its account denies it"
                )
        for run in commit.runs.values():
            self._store.save_run(run, list(commit.files.get(run.run_id, {}).values()))
        self._store.set_offsets(offsets)

    def _count(self, commit: _Commit) -> None:
        self._merged_outcome.inc(len(commit.new))
        self._ok_rows.inc(commit.rows_ok)
        for outcome, count in commit.outcomes.items():
            self._metrics.results.labels(outcome).inc(count)
        for reason, count in commit.reasons.items():
            self._metrics.rows.labels("failed", self._metrics.reason(reason)).inc(count)
        if commit.extra_calls:
            self._metrics.extra_calls.inc(commit.extra_calls)
        for one in commit.new:
            if one.batch.failed:
                self._on_failed(one.run, self._ledger.plan(one.run.run_id), one.file.label, one.batch.failed)


def _fits(file: FileAccount, result: Result) -> bool:
    return file.merged.fits(result.sequence, result.first_row, result.first_row + len(result.rows))
