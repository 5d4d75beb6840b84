"""`run_{run_id}.log`: what a person wants to know of a run afterwards, one line per event.

Fed by what is told of a run after each commit, so that it never says more than the store. Values are escaped
as in every log: a row id with a newline in it forges no line. Of a row only its number, its id and the reason
are shown, never its text. A merger that is started again goes on with the log.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prism.messages import MergeState, Progress, RunRecord
from prism.service.logs import text_of
from prism_merger.accounts import RunAccount, Stage
from prism_merger.manifest import status
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.progress import seconds_of, timestamp
from prism_merger.rendering import FailedRow
from prism_merger.scribe import Scribe

MOST_FAILURES = 100
STEP_PERCENT = 5
EVERY_S = 60.0
_ROW_ID_CHARACTERS = 80
_ENDED = {Stage.TOLD, Stage.DONE, Stage.LEFT_ALONE}
_REMEMBERED_ENDS = 500


@dataclass(slots=True)
class _Told:
    """What the log says of a run so far."""

    path: Path
    state: str = ""
    stalled: str | None = None
    hold: str | None = None
    merging: bool = True
    rows: int = 0
    percent: int = 0
    at: float = 0.0
    parts: dict[str, int] = field(default_factory=dict)
    failures: int = 0


class RunLogs:
    """The logs of the runs that go on; of the loop's thread."""

    def __init__(
        self,
        places: Places,
        scribe: Scribe,
        record: Callable[[str], RunRecord | None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._places = places
        self._scribe = scribe
        self._record = record
        self._clock = clock
        self._wall_clock = wall_clock
        self._told: dict[str, _Told] = {}
        self._ended: deque[str] = deque(maxlen=_REMEMBERED_ENDS)

    def failed(self, run: RunAccount, plan: RunPlan, label: str, rows: Sequence[FailedRow]) -> None:
        """Say which rows of a file have failed, as long as they are few."""
        told = self._of(run, plan)
        if told is None:
            return
        for one in rows[: max(0, MOST_FAILURES - told.failures)]:
            row_id = one.row_id[:_ROW_ID_CHARACTERS]
            self._say(
                told, "WARNING", "row_failed", file=label, row=one.ordinal + 1, row_id=row_id,
                reason=one.reason,
            )  # fmt: skip
        before, told.failures = told.failures, told.failures + len(rows)
        if before <= MOST_FAILURES < told.failures:
            self._say(told, "WARNING", "more_rows_failed", see="failed_ranges.json")

    def worker(self, run: RunAccount, plan: RunPlan, number: int, worker: str, state: str) -> None:
        """Say what became of a worker of a run."""
        told = self._of(run, plan)
        if told is not None:
            level = "WARNING" if state == "failed" else "INFO"
            self._say(told, level, "worker", number=number, worker=worker, state=state)

    def note(self, run: RunAccount, plan: RunPlan, progress: Progress) -> None:
        """Say what has changed since the last time."""
        told = self._of(run, plan)
        if told is None:
            return
        self._note_state(told, run)
        if self._note_rows(told, plan, progress) or run.announced:
            self._note_parts(told, run)
        if progress.state is MergeState.MERGING:
            self._note_hold(told, progress.detail)
        elif told.merging:
            told.merging = False
            self._say(told, "INFO", "merged", ok=run.ok, failed=run.failed, files=len(run.files))
        if run.announced:
            self._end(told, run, progress)

    def _of(self, run: RunAccount, plan: RunPlan) -> _Told | None:
        told = self._told.get(run.run_id)
        if told is not None or run.stage in _ENDED or run.run_id in self._ended:
            return told
        if not plan.job.monitoring.save_terminal_logs:
            return None
        path = self._places.of(plan.job).run_log(run.run_id)
        told = self._told[run.run_id] = _Told(path, at=self._clock())
        if os.path.exists(path):  # `Path.exists` raises where it may not look
            self._go_on(told, run, plan)
        else:
            self._open(told, run, plan)
        return told

    def _go_on(self, told: _Told, run: RunAccount, plan: RunPlan) -> None:
        told.rows = run.ok + run.failed
        told.percent = _percent(told.rows, plan.record.rows)
        told.parts = {label: file.parts for label, file in run.files.items()}
        self._say(told, "INFO", "going_on", run=run.run_id, rows=told.rows, of=plan.record.rows)

    def _open(self, told: _Told, run: RunAccount, plan: RunPlan) -> None:
        record, job = plan.record, plan.job
        self._say(
            told, "INFO", "opened", run=run.run_id, project=job.project.name, version=job.project.version,
            job=record.job_name, model=", ".join(one or "the fleet's" for one in job.model.chosen),
            batch_size=job.model.batch_size, rows=record.rows,
        )  # fmt: skip
        for one in record.files:
            self._say(told, "INFO", "file", label=one.label, name=one.filename, rows=one.rows)

    def _note_state(self, told: _Told, run: RunAccount) -> None:
        record = self._record(run.run_id)
        if record is None:
            return
        if record.state.value != told.state:
            told.state = record.state.value
            extras = {"reason": record.reason, "detail": record.detail}
            self._say(told, "INFO", "state", state=told.state, **{k: v for k, v in extras.items() if v})
        if record.stalled != told.stalled:
            told.stalled = record.stalled
            if told.stalled:
                self._say(told, "WARNING", "stalled", reason=told.stalled)
            else:
                self._say(told, "INFO", "moving_again")

    def _note_hold(self, told: _Told, hold: str | None) -> None:
        if hold == told.hold:
            return
        told.hold = hold
        if hold:
            self._say(told, "WARNING", "commits_held", reason=hold)
        else:
            self._say(told, "INFO", "commits_resumed")

    def _note_rows(self, told: _Told, plan: RunPlan, progress: Progress) -> bool:
        """Say how far it is, if that is due; return whether it was."""
        rows, total, now = progress.rows_ok + progress.rows_failed, plan.record.rows, self._clock()
        if rows == told.rows:
            return False
        percent = _percent(rows, total)
        if not told.rows:
            told.rows, told.at = rows, now
            self._say(told, "INFO", "first_result", rows=rows, of=total)
        if percent // STEP_PERCENT == told.percent // STEP_PERCENT and now - told.at < EVERY_S:
            return False
        told.rows, told.percent, told.at = rows, percent, now
        self._say(
            told, "INFO", "progress", percent=percent, rows=rows, of=total, failed=progress.rows_failed,
            rows_per_s=progress.rows_per_s, calls=progress.calls,
            tokens=progress.prompt_tokens + progress.completion_tokens, eta_s=progress.eta_s,
        )  # fmt: skip
        return True

    def _note_parts(self, told: _Told, run: RunAccount) -> None:
        for label, file in run.files.items():
            if file.parts > told.parts.get(label, 0):
                told.parts[label] = file.parts
                self._say(told, "INFO", "parts_written", label=label, parts=file.parts)

    def _end(self, told: _Told, run: RunAccount, progress: Progress) -> None:
        for one in progress.outputs:
            self._say(
                told, "INFO", "published", label=one.label, path=one.path, rows=one.rows, bytes=one.bytes,
                sha256=one.sha256,
            )  # fmt: skip
        if progress.state is MergeState.WITHHELD:
            self._say(told, "WARNING", "withheld", reason=run.detail)
        record = self._record(run.run_id)
        self._say(
            told, "INFO", "finished", status=status(run, record.state if record else None), ok=run.ok,
            failed=run.failed, failed_by_reason=dict(sorted(run.failed_by_reason.items())), calls=run.calls,
            extra_calls=run.extra_calls, prompt_tokens=run.prompt_tokens,
            completion_tokens=run.completion_tokens, reused_rows=run.reused_rows,
            rows_per_s=progress.mean_rows_per_s, seconds=_seconds(run),
        )  # fmt: skip
        del self._told[run.run_id]
        self._ended.append(run.run_id)

    def _say(self, told: _Told, level: str, action: str, /, **extras: object) -> None:
        line = f"{timestamp(self._wall_clock)} {level:<7} {text_of(action, extras)}"
        self._scribe.append(told.path, line.encode("utf-8", "backslashreplace"))


def _percent(rows: int, total: int) -> int:
    return 100 * rows // total if total else 100


def _seconds(run: RunAccount) -> float | None:
    """Return the seconds from the first result to the last."""
    first, last = seconds_of(run.first_result_at), seconds_of(run.merged_at)
    return None if first is None or last is None else round(last - first, 1)
