"""Summary, analytics and report of each run that was told: written by a process of their own, one at a time.

Argument. A run's rows stay in the store until its reports are settled (`written`, `given_up` or `off`, each
durable), so a merger that died in the middle finds the run as `told` and `due`, and begins again; what a
process of its former life still writes, it writes under a lock, and dies with its merger.
The loop only starts the process and asks whether it has ended: pandas' memory, time and faults are that
process's own. A start is counted before it is made, so that reports which take the merger down with them are
given up too; nothing else ever waits for them.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prism.messages import RunState
from prism.runs.columns import joined, output_columns
from prism.service import fault
from prism.service.logs import get_logger
from prism.tables import render_line
from prism_merger.accounts import FileAccount, ReportsState, RunAccount, Stage
from prism_merger.ledger import Ledger
from prism_merger.manifest import manifest
from prism_merger.places import Places
from prism_merger.plans import RunPlan, Unit
from prism_merger.publication import Publisher
from prism_merger.reports.facts import CodedColumn, Completion, Facts, FileFacts
from prism_merger.store import Store
from prism_merger.volume import replace_file
from prism_merger.wholes import whole, working_s

log = get_logger(__name__)

# `--with-parent`: it ends when its standard input does. What it is given besides is the path of the facts.
COMMAND = (sys.executable, "-P", "-m", "prism_merger.reports", "--with-parent")
MOST_FAILURES = 3
# More starts than that without a seen end: the merger itself died each time.
MOST_STARTS = 10
# Before the second try and the third: what a kill ends is mended at once, what a full disk ends is not.
_RETRY_S = (1.0, 30.0)
# A million rows take half a minute; a slow, busy machine may need ten times that.
_DEADLINE_S = 180.0
_DEADLINE_S_PER_ROW = 0.0003
_END_S = 5.0
_ERROR_BYTES = 2000
_PASSED_ON = ("LD_LIBRARY_PATH", "PYTHONPATH", "PATH", "LANG", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class _Writing:
    """The process that writes, for whom, and until when (by the clock)."""

    run_id: str
    process: "subprocess.Popen[bytes]"
    until: float


class Reporter:
    """Of the loop's thread."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        places: Places,
        publisher: Publisher,
        tell: Callable[[RunAccount], None],
        clock: Callable[[], float],
        enabled: bool = True,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._places = places
        self._publisher = publisher
        self._tell = tell
        self._clock = clock
        self._enabled = enabled
        self._command = command
        self._writing: _Writing | None = None
        self._not_before: dict[str, float] = {}
        folder = store.path.parent
        self._facts_path, self._errors_path = folder / "reports.json", folder / "reports.err"

    def turn(self) -> None:
        """Look after the process that writes, or start the next."""
        if self._writing is not None:
            self._look(self._writing)
            return
        now = self._clock()
        # Those of a retried run first: whoever waits for the retry's has both then.
        for run in sorted(self._ledger.runs.values(), key=lambda one: not one.completed_by):
            if run.stage is Stage.TOLD and run.reports is ReportsState.DUE:
                if not self._enabled:
                    self._settle(run, ReportsState.OFF)
                elif now >= self._not_before.get(run.run_id, 0.0):
                    self._begin(run, now)
                    return

    def close(self) -> None:
        """End the process, if one is there; the next life of the merger begins anew."""
        if self._writing is not None:
            self._kill(self._writing)
            self._writing = None

    def _begin(self, run: RunAccount, now: float) -> None:
        if run.report_failures >= MOST_FAILURES or run.report_starts >= MOST_STARTS:
            self._settle(run, ReportsState.GIVEN_UP)
            log.error("reports_given_up", run=run.run_id, failures=run.report_failures)
            return
        run.report_starts += 1
        self._save(run)
        try:
            facts = self._facts(run)
            if facts.wants_nothing:
                self._settle(run, ReportsState.OFF)
                return
            replace_file(self._facts_path, [facts.model_dump_json().encode()])
            process = self._start()
        except sqlite3.Error:
            raise
        except Exception as error:  # what nobody foresaw of one run must not stop the others
            self._failed(run, repr(error))
            return
        rows = sum(one.asked for one in facts.files)
        self._writing = _Writing(run.run_id, process, now + _DEADLINE_S + rows * _DEADLINE_S_PER_ROW)

    def _start(self) -> "subprocess.Popen[bytes]":
        # No secret of the service's goes along.
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with self._errors_path.open("wb") as errors:
            return subprocess.Popen(
                [*self._command, str(self._facts_path)],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C goes to the merger
            )

    def _look(self, writing: _Writing) -> None:
        status = writing.process.poll()
        if status is None:
            if self._clock() < writing.until:
                return
            self._kill(writing)
        self._writing = None
        if writing.process.stdin is not None:
            writing.process.stdin.close()
        # The ledger may have been loaded again meanwhile.
        run = self._ledger.runs.get(writing.run_id)
        if run is None or run.reports is not ReportsState.DUE or not run.report_starts:
            return  # settled, or made due again by a retry while they were written
        if status == 0:
            fault.point("merger.after_reports_written", run.run_id)
            self._settle(run, ReportsState.WRITTEN)
            log.info("reports_written", run=run.run_id)
        else:
            self._failed(run, "not ready in time" if status is None else self._complaint(status))

    def _failed(self, run: RunAccount, why: str) -> None:
        run.report_failures += 1
        self._not_before[run.run_id] = self._clock() + _RETRY_S[min(run.report_failures, len(_RETRY_S)) - 1]
        self._save(run)
        log.warning("reports_failed", run=run.run_id, failures=run.report_failures, reason=why)

    def _settle(self, run: RunAccount, state: ReportsState) -> None:
        """Note what became of the reports, in the manifest too, and tell it."""
        run.reports = state
        self._not_before.pop(run.run_id, None)
        try:
            self._publisher.refresh_manifest(run)
        except OSError as error:
            log.warning("manifest_not_refreshed", run=run.run_id, error=error)
            run.manifest_stale = True
            self._save(run)
        self._tell(run)

    def _save(self, run: RunAccount) -> None:
        with self._store.transaction():
            self._store.save_run(run, [])

    def _kill(self, writing: _Writing) -> None:
        writing.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            writing.process.wait(_END_S)

    def _complaint(self, status: int) -> str:
        try:
            text = self._errors_path.read_bytes()[-_ERROR_BYTES:].decode(errors="replace")
        except OSError:
            text = ""
        lines = text.strip().splitlines()
        return f"exit status {status}: {lines[-1] if lines else 'nothing was said'}"

    def _facts(self, run: RunAccount) -> Facts:
        plan, record = self._ledger.plan(run.run_id), self._ledger.record(run.run_id)
        places = self._places.of(plan.job)
        state: RunState | None = record.state if record is not None else None
        found = [self._ledger.find(one) for one in run.completed_by]
        return facts_of(run, plan, places, state, self._store, [one for one in found if one is not None])


def facts_of(
    run: RunAccount,
    plan: RunPlan,
    places: Places,
    state: RunState | None,
    store: Store,
    retries: Sequence[RunAccount] = (),
) -> Facts:
    """Return what the reports of a run are made from. `retries`: whose rows its output has taken in."""
    completed_by = [_completion(one) for one in retries]
    run = whole(run, retries)
    files = list(_files(run, plan, places, store))
    wanted = plan.job.monitoring
    side_by_side = wanted.create_summaries and any(one.models for one in files)
    return Facts(
        run_id=run.run_id,
        parent=plan.record.parent,
        description=plan.job.project.description,
        batch_size=plan.job.model.batch_size,
        retries=plan.job.model.retries,
        delay=plan.job.model.delay,
        manifest=manifest(run, plan, places, state),
        coded=_coded(plan),
        files=files,
        completed_by=completed_by,
        warnings=[f"prompt file: {one}" for one in plan.record.prompt.get("warnings", [])],
        missing_reason=run.missing_reason or "unknown",
        timeline=[tuple(one) for one in run.timeline.moments],
        store=str(store.path.absolute()),
        summary=str(places.summary(run.run_id)) if wanted.create_summaries else None,
        analytics=str(places.analytics(run.run_id)) if wanted.create_analytics else None,
        report=str(places.report(run.run_id)) if wanted.create_summaries else None,
        disagreements=str(places.disagreements(run.run_id)) if side_by_side else None,
    )


def _completion(retry: RunAccount) -> Completion:
    """Return what the run's reports tell of a retry."""
    return Completion(
        run_id=retry.run_id,
        ok=retry.ok,
        failed=retry.failed,
        published_at=retry.published_at,
        working_s=working_s(retry),
    )


def _coded(plan: RunPlan) -> list[CodedColumn]:
    """Return the coded columns as the first file's output calls them, each once for each of its models."""
    columns = next((one.columns for one in plan.record.files if one.columns), [])
    models = list(dict.fromkeys(one.model for one in plan.record.files)) or [""]
    names = joined(plan.coded, models) if any(models) else plan.coded
    shown = output_columns(columns, names)[len(columns) :]
    labels, ruled = plan.record.prompt.get("labels", {}), plan.record.prompt.get("ruled", {})
    pairs = [(name, model) for name in plan.coded for model in models]
    return [
        CodedColumn(
            name=name, shown=shown[number], model=model, labels=labels.get(name), ruled=ruled.get(name, [])
        )
        for number, (name, model) in enumerate(pairs)
    ]


def _files(run: RunAccount, plan: RunPlan, places: Places, store: Store) -> Iterator[FileFacts]:
    for unit in plan.units:
        accounts = [run.files[one.label] for one in unit.files if one.label in run.files]
        # The rows that a retry did with one model and with another are not the same.
        if unit.is_joined and not plan.record.parent and len(accounts) == len(unit.files):
            yield _joined_facts(run, accounts, unit, plan, places, store)
        else:
            yield from (_file_facts(run, one, plan, places, store) for one in accounts)


def _joined_facts(
    run: RunAccount,
    accounts: Sequence[FileAccount],
    unit: Unit,
    plan: RunPlan,
    places: Places,
    store: Store,
) -> FileFacts:
    source = unit.files[0]
    stored = (
        bool(source.columns) and not run.completed_by and any(store.has_rows(one.file_id) for one in accounts)
    )
    header = render_line(plan.columns(unit), source.delimiter).encode()
    return FileFacts(
        label=unit.label,
        columns=source.columns,
        delimiter=source.delimiter,
        ranges=source.ranges,
        rows=source.rows,
        rows_ok=sum(one.ok for one in accounts),
        rows_failed=sum(one.rows_failed for one in accounts),
        rows_missing=sum(one.missing for one in accounts),
        models=list(unit.models),
        file_ids=[one.file_id for one in accounts] if stored else [],
        csv=None if stored else _published_csv(accounts[0], header, places),
    )


def _file_facts(run: RunAccount, file: FileAccount, plan: RunPlan, places: Places, store: Store) -> FileFacts:
    source = plan.file(file.label)
    stored = bool(source.columns) and not run.completed_by and store.has_rows(file.file_id)
    header = plan.renderers[file.label].header if file.label in plan.renderers else b""
    return FileFacts(
        label=file.label,
        columns=source.columns,
        delimiter=source.delimiter,
        ranges=source.ranges,
        rows=source.rows,
        rows_ok=file.ok,
        rows_failed=file.rows_failed,
        rows_missing=file.missing,
        model=source.model,
        file_ids=[file.file_id] if stored else [],
        csv=None if stored else _published_csv(file, header, places),
    )


def _published_csv(file: FileAccount, header: bytes, places: Places) -> str | None:
    """Return the published file if it is a CSV with all columns: after a lost volume the rows are there."""
    mark = file.outputs.get("csv")
    if mark is None or not mark.named or mark.uri or not header:
        return None
    path = places.output(mark.name)
    try:
        with path.open("rb") as stream:
            return str(path) if stream.read(len(header)) == header else None
    except OSError:
        return None
