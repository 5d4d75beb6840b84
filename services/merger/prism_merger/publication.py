"""Publication: a run's merged rows become files with names, once.

Argument. The steps, each durable before the next, for each format of each file: the output under a temporary
name (fsync); its name, bytes and SHA-256 in the store, the `publishing` mark; the name itself (a link that
fails where the name is taken, fsync of the folder; `shelves` says what it is in a store that a URI names).
Then, for all of them: the manifest (rename); `closed` in the store; the announcements, acknowledged; `told`
in the store. A death between two of them leaves either a mark without a named file, or a step to be done
again, and each can be: the bytes depend on the rows alone, and the rows stay in the store until after `told`.
With a mark, the file under the marked name is this run's own exactly if it has the marked bytes and hash; a
temporary file that has them only lacks its name; else it is written again. Without a mark, whatever lies
under the name is somebody else's (or has the very same bytes): it is never replaced, the output takes the
next free name and the manifest says why. Announcements are repeated when their acknowledgement was not noted;
they carry the same `ce_id`.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prism.messages import OutputPublished, RunState
from prism.service import fault, tracing
from prism.service.logs import get_logger
from prism_merger.accounts import (
    FileAccount,
    Outcome,
    OutputMark,
    ReportsState,
    RunAccount,
    Stage,
    Written,
)
from prism_merger.desk import Steps
from prism_merger.failed_rows import write_failed_rows
from prism_merger.families import Family, family_of
from prism_merger.ledger import Ledger
from prism_merger.manifest import write_failed_ranges, write_manifest
from prism_merger.metrics import Metrics
from prism_merger.outlet import Outlet
from prism_merger.outputs import NotCompleted, completed_by, failed_rows, output_order, write_output
from prism_merger.parts import PartsOrder, PartsWritten, remove_parts, write_parts
from prism_merger.places import Places
from prism_merger.plans import RunPlan, Unit
from prism_merger.progress import published_files, seconds_of, timestamp
from prism_merger.shelves import SchemeRefused, Shelf, free_mark, has_bytes, shelf_of
from prism_merger.store import RowReader, Store
from prism_merger.verdict import Verdict, excess_of
from prism_merger.volume import NameTaken
from prism_merger.wholes import can_be_read_again, working_s

log = get_logger(__name__)


class Inconsistent(Exception):
    """What was written is not what was counted: the last defence of promise 1."""


class Publisher:
    """Takes runs from `merging` to `told`; each method yields its slow jobs."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        places: Places,
        outlet: Outlet,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        tell: Callable[[RunAccount], None],
        schemes: frozenset[str] = frozenset(),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._places = places
        self._outlet = outlet
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._tell = tell
        self._schemes = schemes
        # Of each run that is being published.
        self._spans: dict[str, tracing.Span] = {}

    def parts(self, run: RunAccount, file: FileAccount, last: bool = False) -> Steps:
        """Write the file's parts that are due."""
        order = parts_order(run, file, self._ledger.plan(run.run_id), last)
        while order.due:
            with self._parts_span(run, order) as span:
                done: PartsWritten = yield partial(self._write_parts, order, self._places_of(run))
                span.set({"prism.parts": done.parts - order.parts})
            file.parts, file.part_sequence = done.parts, done.sequence
            self._save(run)
            order = parts_order(run, file, self._ledger.plan(run.run_id), last)

    def _write_parts(self, order: PartsOrder, places: Places, rows: RowReader) -> PartsWritten:
        with self._metrics.checkpoint_seconds.time():
            return write_parts(order, rows, places)

    def decide(self, run: RunAccount, verdict: Verdict) -> None:
        """Note that what is merged is all there will be, and what is to become of it."""
        plan = self._ledger.plan(run.run_id)
        for one in plan.record.files:
            if one.label in run.files:
                run.count_missing(run.files[one.label], one.rows, verdict.missing_reason, one.model)
        run.outcome, run.detail, run.missing_reason = verdict.outcome, verdict.detail, verdict.missing_reason
        run.partial = verdict.partial and any(one.missing for one in run.files.values())
        run.merged_at = run.merged_at or timestamp(self._wall_clock)
        self._note_end(run)
        run.stage = Stage.PUBLISHING
        self._save(run)
        self._tell(run)

    def _note_end(self, run: RunAccount) -> None:
        """Keep what the counts are at the end, so that the picture of the run is whole."""
        took = working_s(run)
        if run.timeline.moments and took > run.timeline.moments[-1].seconds:
            run.note_moment(took)

    def publish(self, run: RunAccount) -> Steps:
        """Go on from where the store shows the run, up to `told`."""
        try:
            with self._step("publish", run) as self._spans[run.run_id]:
                if run.stage is Stage.PUBLISHING:
                    yield from self._make_files(run)
                    self._close(run)
                if run.stage is Stage.CLOSED:
                    self._announce(run)
        finally:
            self._spans.pop(run.run_id, None)

    def _step(self, name: str, run: RunAccount, **about: str | int) -> tracing.Span:
        """Begin the span of a step: of the run's publication where that is under way."""
        if not tracing.is_on():
            return tracing.OFF
        parent = self._spans.get(run.run_id) or self._ledger.plan(run.run_id).record.trace
        shown = {"prism.run.id": run.run_id, **{f"prism.{key}": value for key, value in about.items()}}
        return tracing.step(name, parent, shown)

    def _parts_span(self, run: RunAccount, order: PartsOrder) -> tracing.Span:
        """Begin the span of parts that are written: of many parts of the run only every so many."""
        if not tracing.is_on():
            return tracing.OFF
        files = self._ledger.plan(run.run_id).record.files
        counts = [-(-one.rows // order.interval) for one in files]
        before = [one.label for one in files].index(order.label)
        if not tracing.in_run(sum(counts[:before]) + order.parts, sum(counts)):
            return tracing.OFF
        first = order.parts * order.interval
        return self._step("write parts", run, label=order.label, first_part=order.parts + 1, first_row=first)

    def refresh_manifest(self, run: RunAccount) -> None:
        """Write the manifest anew after something has changed of a closed run."""
        plan = self._ledger.plan(run.run_id)
        write_manifest(run, plan, self._places_of(run), self._state(run), self._retries(run))
        run.manifest_stale = False
        self._save(run)

    def _make_files(self, run: RunAccount) -> Steps:
        plan = self._ledger.plan(run.run_id)
        for file in run.files.values():
            yield from self.parts(run, file, last=not file.missing)
        try:
            yield from self._judge(run, plan)
            for work in self._works(run, plan) if run.outcome is Outcome.PUBLISHED else ():
                for form in plan.job.output.formats:
                    if not work.file.published(form):
                        yield from self._output(work, form)
        except (Inconsistent, SchemeRefused) as error:
            log.error("output_withheld", run=run.run_id, error=error)
            run.outcome, run.detail = Outcome.WITHHELD, str(error)
        if plan.job.error_handling.save_failed_ranges:
            yield lambda rows: write_failed_ranges(run, plan, rows, self._places_of(run))
            yield lambda rows: write_failed_rows(run, plan, rows, self._places_of(run))

    def _judge(self, run: RunAccount, plan: RunPlan) -> Steps:
        """Withhold what several models have, if too many rows of the output have failed with any of them."""
        merge = plan.job.merge
        if not plan.job.model.fans_out or merge.max_failed is None or run.outcome is not Outcome.PUBLISHED:
            return
        # Of a broken-off run `always` publishes whatever there is; what has a mark was judged before.
        if run.partial or any(one.outputs for one in run.files.values()):
            return
        failed = 0
        for work in self._works(run, plan):
            with contextlib.suppress(NotCompleted):  # said when it is written
                found: int = yield partial(failed_rows, work.file_ids, work.family)
                failed += found
        parent = self._ledger.record(plan.record.parent) if plan.record.parent else None
        answers = plan.record.rows if parent is None else parent.rows
        excess = excess_of(merge, answers // len(plan.job.model.names), failed)
        if excess is not None:
            run.outcome, run.detail = Outcome.WITHHELD, excess

    def _works(self, run: RunAccount, plan: RunPlan) -> Iterator["_Work"]:
        """Yield what is to be published, file by file."""
        places = self._places_of(run)
        for unit in plan.units:
            if unit.lead not in plan.renderers or unit.lead not in run.files:
                continue
            family = family_of(self._ledger, places, run, unit)
            if plan.record.parent and family is None:
                run.detail = (
                    f"nothing is known here of the rows of {plan.record.parent}: published are its own"
                )
            # The rows that a retry did with one model and with another are not the same.
            for one in unit.alone() if plan.record.parent and unit.is_joined and family is None else [unit]:
                yield _Work(run, plan, one, run.files[one.lead], places, family)

    def _output(self, work: "_Work", form: str) -> Steps:
        """Publish one output, going on from its mark if it has one."""
        shelf = shelf_of(work.places, work.plan.job.output.uri, self._schemes)
        temporary = work.places.temporary_output(work.run.run_id, work.unit.label, form)
        refused: list[str] = []
        if (mark := work.file.outputs.get(form)) is not None:
            found: _Found = yield shelf.job(partial(_look_again, shelf, temporary, mark))
            mark.named = found.named
            if found.written:
                yield from self._name(work.run, shelf, temporary, mark, refused)
        if not work.file.published(form):
            work, done = yield from self._written(work, form, temporary)
            yield from self._named(work, form, shelf, temporary, done, refused)
            fault.point("merger.after_rename", work.where(form))
        temporary.unlink(missing_ok=True)

    def _written(
        self, work: "_Work", form: str, temporary: Path
    ) -> Generator[Any, Any, tuple["_Work", Written]]:
        """Write an output under its temporary name; a retry's rows alone where they complete nothing."""
        order = output_order(work.run, work.plan, work.unit, form, temporary, self._store.path.parent)
        whole = order if work.family is None else completed_by(order, work.family)
        try:
            with self._step("write output", work.run, label=work.unit.label, format=form) as span:
                done: Written = yield partial(write_output, whole)
                span.set({"prism.rows": done.rows, "prism.bytes": done.bytes})
        except NotCompleted as error:
            parent = work.plan.record.parent
            log.warning("output_not_completed", run=work.run.run_id, parent=parent, error=error)
            if work.unit.is_joined:  # the rows of one model's retry are not those of another's
                raise Inconsistent(f"the output of {parent} could not be completed: {error}") from None
            work.run.detail = f"the output of {parent} could not be completed ({error}): its rows alone"
            work = replace(work, family=None)
            done = yield partial(write_output, order)
        wanted = work.rows
        if wanted is not None and done.rows != wanted:
            raise Inconsistent(f"{work.unit.label}: {done.rows} rows written, {wanted} counted")
        fault.point("merger.after_output_written", work.where(form))
        return work, done

    def _named(
        self, work: "_Work", form: str, shelf: Shelf, temporary: Path, done: Written, refused: list[str]
    ) -> Steps:
        """Give a complete output a name, noted before it has it."""
        while not work.file.published(form):
            before = work.family.replaced(form) if work.family is not None else None
            if before is not None and before.name not in refused:
                mark = before.replaced_by(done)
            else:
                mark = yield shelf.job(partial(free_mark, shelf, work.stem, form, done, tuple(refused)))
            work.file.outputs[form] = mark
            self._save(work.run)
            fault.point("merger.after_publishing_mark", work.where(form))
            yield from self._name(work.run, shelf, temporary, mark, refused)

    def _name(
        self, run: RunAccount, shelf: Shelf, temporary: Path, mark: OutputMark, refused: list[str]
    ) -> Steps:
        """Give an output its marked name, or note that somebody else has it."""
        mark.named = yield shelf.job(partial(_place, shelf, temporary, mark))
        if mark.named:
            self._metrics.files_published.inc()
        else:
            log.warning("output_name_taken", run=run.run_id, name=mark.name)
            refused.append(mark.name)

    def _close(self, run: RunAccount) -> None:
        plan = self._ledger.plan(run.run_id)
        run.published_at = timestamp(self._wall_clock)
        run.waits_for = ""
        write_manifest(run, plan, self._places_of(run), self._state(run), self._retries(run))
        fault.point("merger.after_manifest", run.run_id)
        parent = self._complete_parent(run, plan)
        run.stage = Stage.CLOSED
        with self._store.transaction():
            self._store.save_run(run)
            if parent is not None:
                self._store.save_run(parent)
        if parent is not None and parent.stage is Stage.TOLD:
            self._ledger.keep(parent)  # its reports are due again
        fault.point("merger.after_published_mark", run.run_id)
        log.info(
            "run_closed",
            run=run.run_id,
            outcome=run.outcome,
            rows_ok=run.ok,
            rows_failed=run.failed,
            detail=run.detail,
        )

    def _complete_parent(self, run: RunAccount, plan: RunPlan) -> RunAccount | None:
        """Note in a retried run what its output is now; its manifest names both. Repeats itself."""
        parent = self._ledger.find(plan.record.parent) if plan.record.parent else None
        if parent is None or parent.stage is Stage.LEFT_ALONE:
            return None  # nothing is known of it: what its manifest says is more
        for unit in plan.units:
            family = family_of(self._ledger, self._places_of(run), run, unit)
            for form, mark in run.files[unit.lead].outputs.items():
                if family is not None and family.is_whole(mark):
                    parent.files[family.unit.lead].outputs[form] = mark
                    self._note_retry(parent, run, family)
        places = self._places_of(parent)
        retries = self._retries(parent, run)
        write_manifest(parent, self._ledger.plan(parent.run_id), places, self._state(parent), retries)
        return parent

    def _note_retry(self, parent: RunAccount, run: RunAccount, family: Family) -> None:
        """Make a run's reports due again: its output holds a retry's rows. Repeats itself."""
        if run.run_id in parent.completed_by or not run.ok + run.failed:
            return
        if not can_be_read_again(self._ledger.plan(parent.run_id)):
            return  # better those of the run alone than none of its rows
        # All of them, and not one more than before: a version that noted none may have taken some in.
        earlier = [one.run_id for one in family.before[1:] if one.ok + one.failed]
        parent.completed_by = [*earlier, run.run_id]
        parent.reports, parent.report_starts, parent.report_failures = ReportsState.DUE, 0, 0
        parent.stage = Stage.TOLD if parent.stage is Stage.DONE else parent.stage

    def _retries(self, run: RunAccount, newest: RunAccount | None = None) -> list[RunAccount]:
        """Return the retries of a run that are published or withheld, in their order."""
        names = [one.run_id for one in self._ledger.records() if one.parent == run.run_id]
        found = [self._ledger.find(name) for name in names]
        closed = [one for one in found if one is not None and one.published_at]
        if newest is not None and all(one.run_id != newest.run_id for one in closed):
            closed.append(newest)
        return sorted(closed, key=lambda one: one.published_at)

    def _announce(self, run: RunAccount) -> None:
        parent = self._spans.get(run.run_id) if tracing.is_on() else None
        for event in self._events(run):
            self._outlet.announce(event, parent or self._ledger.plan(run.run_id).record.trace)
        self._outlet.settle()
        fault.point("merger.after_announce", run.run_id)
        run.announced = True
        self._tell(run)
        self._outlet.settle()
        plan = self._ledger.plan(run.run_id)
        # A retry needs the parts of what it completes.
        cleanup = plan.job.output.checkpoints.cleanup_after_merge and not run.failed
        if run.outcome is Outcome.PUBLISHED and cleanup:
            for file in run.files.values():
                remove_parts(run.run_id, file.label, file.parts, self._places_of(run))
        run.stage = Stage.TOLD
        self._save(run)
        merged, published = seconds_of(run.merged_at), seconds_of(run.published_at)
        if merged is not None and published is not None:
            self._metrics.publish_seconds.observe(max(0.0, published - merged))
        self._metrics.runs_closed.labels(run.outcome or "nothing").inc()

    def _events(self, run: RunAccount) -> Iterator[OutputPublished]:
        places = self._places_of(run)
        for file, mark, one in published_files(run, self._ledger.plan(run.run_id), places):
            failed = _failed_rows(file, mark)
            yield OutputPublished(
                run_id=run.run_id,
                label=one.label,
                format=one.format,
                uri=one.uri,
                path=one.path,
                manifest=places.relative(places.manifest(run.run_id)),
                rows=one.rows,
                rows_ok=one.rows - failed,
                rows_failed=failed,
                bytes=one.bytes,
                sha256=one.sha256,
                partial=run.partial,
                published_at=run.published_at,
            )

    def _places_of(self, run: RunAccount) -> Places:
        return self._places.of(self._ledger.plan(run.run_id).job)

    def _state(self, run: RunAccount) -> RunState | None:
        record = self._ledger.record(run.run_id)
        return record.state if record is not None else None

    def _save(self, run: RunAccount) -> None:
        with self._store.transaction():
            self._store.save_run(run)


def _failed_rows(file: FileAccount, mark: OutputMark) -> int:
    """Return how many of an output's rows have no answer, or not every model's."""
    if mark.failed is not None:
        return mark.failed
    return mark.rows - file.ok if mark.rows <= file.ok + file.failed else file.rows_failed


@dataclass(frozen=True, slots=True)
class _Work:
    """One output that is to be published. `file`: the account with its marks; `family`: what it completes."""

    run: RunAccount
    plan: RunPlan
    unit: Unit
    file: FileAccount
    places: Places
    family: Family | None

    def where(self, form: str) -> str:
        """Return what a crash point calls it."""
        return f"{self.run.run_id}/{self.unit.label}/{form}"

    @property
    def file_ids(self) -> tuple[int, ...]:
        """The files of the run's own that go into it."""
        return tuple(
            self.run.files[one.label].file_id for one in self.unit.files if one.label in self.run.files
        )

    @property
    def rows(self) -> int | None:
        """Rows that it must have; None for what several models have of a run that was broken off."""
        if self.family is not None:
            return self.family.rows
        return None if self.unit.is_joined and self.run.partial else self.file.ok + self.file.failed

    @property
    def stem(self) -> str:
        """What it is called: of a retry like that of the run whose rows it completes."""
        if self.family is not None:
            return self.family.plan.output_stem(self.family.unit.label)
        return self.plan.output_stem(self.unit.label)


def parts_order(run: RunAccount, file: FileAccount, plan: RunPlan, last: bool) -> PartsOrder:
    """Return which parts of a file can be written now."""
    return PartsOrder(
        run_id=run.run_id,
        label=file.label,
        file_id=file.file_id,
        header=plan.renderers[file.label].header if file.label in plan.renderers else b"",
        interval=plan.job.output.checkpoints.interval,
        rows=file.merged.rows,
        last=last,
        parts=file.parts,
        sequence=file.part_sequence,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a death after the mark left: the file under its name, or complete without it."""

    named: bool
    written: bool


def _look_again(shelf: Shelf, temporary: Path, mark: OutputMark) -> _Found:
    named = shelf.holds(mark)
    return _Found(named, not named and has_bytes(temporary, mark))


def _place(shelf: Shelf, temporary: Path, mark: OutputMark) -> bool:
    """Give an output its marked name; return whether it has it."""
    try:
        shelf.replace(temporary, mark) if mark.replaces else shelf.place(temporary, mark)
    except NameTaken:
        return shelf.holds(mark)
    return True
