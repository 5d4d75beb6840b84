"""`status/{run_id}/worker_N.json`: what each worker has done of a run, in the form that PRISM v6 wrote.

A worker is one session of a process: started again, it is another one, with a number of its own. Numbers are
given in the order of first sight; a merger that is started again goes on with those of the files that lie
there. A worker here has no range of rows: `row_start`, `row_end`, `total_rows`, `current_row`, `progress_pct`
and `eta_seconds` are the run's, everything else is the worker's.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prism.messages import Heartbeat, Progress, RunShare, WorkerState
from prism.runs.naming import part_name
from prism.service.logs import get_logger
from prism_merger.accounts import RunAccount, Stage
from prism_merger.ledger import Ledger
from prism_merger.losses import Workers
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.progress import seconds_of, timestamp
from prism_merger.scribe import Scribe

log = get_logger(__name__)

# Who makes up sessions without end must not fill the volume.
MOST_WORKERS = 1000
MOST_CHECKPOINTS = 20
# A worker tells once a second: so late its last figures may come.
LAST_BEAT_S = 2.5
# Where the job names no `monitoring.dashboard_refresh`.
EVERY_S = 5.0
_MOST_NAME = 200
_MOST_FILE_BYTES = 1 << 20
_NAME = re.compile(r"worker_([1-9]\d{0,5})\.json")
_ENDED = {Stage.TOLD, Stage.DONE, Stage.LEFT_ALONE}
_FINAL = {"completed", "failed"}
_FIGURES = (
    "started_at", "updated_at", "rows_processed", "api_calls", "rows_per_sec", "tokens_per_sec",
    "avg_tokens_per_row", "tokens_total", "errors", "last_error",
)  # fmt: skip


# Run, plan, number and name of a worker, and the state that it has now.
OnState = Callable[[RunAccount, RunPlan, int, str, str], None]


class _Session(NamedTuple):
    worker: str
    session: str

    @classmethod
    def of(cls, beat: Heartbeat) -> "_Session":
        return cls(beat.worker_id[:_MOST_NAME], (beat.session or beat.started_at)[:_MOST_NAME])


@dataclass(slots=True)
class _Worker:
    """One file. `written` is what it says; a worker without a share is known from its file alone."""

    number: int
    written: dict[str, Any] = field(default_factory=dict)
    beat: Heartbeat | None = None
    share: RunShare | None = None


@dataclass(slots=True)
class _Run:
    """A run and its workers."""

    account: RunAccount
    plan: RunPlan
    progress: Progress
    due: float
    workers: dict[_Session, _Worker] = field(default_factory=dict)
    next_number: int = 1
    ended_at: float | None = None
    closed: bool = False

    @property
    def merged(self) -> int:
        """Rows with a record."""
        return self.progress.rows_ok + self.progress.rows_failed

    @property
    def settled(self) -> bool:
        """Whether the workers have told all that they did of an ended run, as far as sums can tell."""
        return sum(one.share.rows for one in self.workers.values() if one.share) >= self.merged


class StatusFiles:
    """The files of the runs that go on; of the loop's thread."""

    def __init__(
        self,
        ledger: Ledger,
        workers: Workers,
        places: Places,
        scribe: Scribe,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_state: OnState = lambda *_: None,
    ) -> None:
        self._on_state = on_state
        self._ledger = ledger
        self._workers = workers
        self._places = places
        self._scribe = scribe
        self._clock = clock
        self._wall_clock = wall_clock
        self._runs: dict[str, _Run] = {}
        self._living: set[_Session] = set()

    @property
    def waiting(self) -> bool:
        """Whether a run has ended of which workers may still tell something."""
        return any(run.ended_at is not None for run in self._runs.values())

    def note(self, account: RunAccount, plan: RunPlan, progress: Progress) -> None:
        """Take in what is told of a run; at its end, write its files for the last time."""
        run = self._runs.get(account.run_id)
        if run is None:
            if account.stage in _ENDED:
                return
            run = self._runs[account.run_id] = _Run(account, plan, progress, due=self._clock())
            self._load(run)
        run.account, run.plan, run.progress = account, plan, progress
        if account.announced and run.ended_at is None:
            run.ended_at = self._clock()
            self._take_in()
            self._write(run)
            run.closed = True

    def turn(self) -> None:
        """Take in what workers say, and write what is due."""
        self._take_in()
        now = self._clock()
        for run_id, run in list(self._runs.items()):
            if run.ended_at is not None:
                if run.settled or now - run.ended_at >= LAST_BEAT_S:
                    self._write(run)
                    del self._runs[run_id]
            elif run_id not in self._ledger.runs:
                del self._runs[run_id]
            elif now >= run.due:
                run.due = now + (run.plan.job.monitoring.dashboard_refresh or EVERY_S)
                self._write(run)

    def _take_in(self) -> None:
        self._living.clear()
        for sign in self._workers.signs():
            session = _Session.of(sign.heartbeat)
            if sign.lives:
                self._living.add(session)
            for run_id, share in sign.heartbeat.runs.items():
                run = self._runs.get(run_id)
                worker = _worker_of(run, session) if run is not None else None
                if worker is not None:
                    worker.beat, worker.share = sign.heartbeat, share

    def _load(self, run: _Run) -> None:
        """Take over what an earlier merger has written, and the numbers that it gave."""
        folder = self._places.of(run.plan.job).status(run.account.run_id)
        try:
            found = sorted(_files(folder))
        except OSError as error:
            log.warning("status_not_read", run=run.account.run_id, folder=folder, error=error)
            return
        for number, path in found:
            run.next_number = number + 1
            written = _read(path)
            if written.get("run_id") == run.account.run_id and len(run.workers) < MOST_WORKERS:
                session = _Session(str(written.get("worker")), str(written.get("session")))
                run.workers[session] = _Worker(number, written)

    def _write(self, run: _Run) -> None:
        places = self._places.of(run.plan.job)
        shared = _shared(run, places)
        for session, worker in run.workers.items():
            if worker.share is None and worker.written.get("state") in _FINAL:
                continue
            content = self._content(run, session, worker, shared)
            if content["state"] != worker.written.get("state"):
                self._on_state(run.account, run.plan, worker.number, session.worker, content["state"])
            if content != worker.written:
                worker.written = content
                text = json.dumps(content, ensure_ascii=True, indent=2)
                path = places.worker_status(run.account.run_id, worker.number)
                self._scribe.replace(path, text.encode() + b"\n")

    def _content(
        self, run: _Run, session: _Session, worker: _Worker, shared: dict[str, Any]
    ) -> dict[str, Any]:
        state = _state(run, worker, session in self._living)
        known = {key: worker.written[key] for key in _FIGURES if key in worker.written}
        content = {
            "worker_id": worker.number,
            "worker": session.worker,
            "session": session.session,
            "run_id": run.account.run_id,
            "state": state,
            **(_figures(worker.beat, worker.share) if worker.beat and worker.share else known),
            **shared,
        }
        if state in _FINAL:
            key = f"{state}_at"
            content[key] = worker.written.get(key) or timestamp(self._wall_clock)
        return content


def _worker_of(run: _Run, session: _Session) -> _Worker | None:
    """Return a session's place, made at its first sight; None for one too many."""
    worker = run.workers.get(session)
    if worker is None and len(run.workers) < MOST_WORKERS:
        worker = run.workers[session] = _Worker(run.next_number)
        run.next_number += 1
    return worker


def _state(run: _Run, worker: _Worker, lives: bool) -> str:
    if run.closed and worker.written:
        return str(worker.written["state"])  # what comes after the end are figures
    if worker.share is None or worker.beat is None:
        return "failed"  # another merger saw it at work, and nobody has heard of it since
    if not run.closed and worker.beat.state is WorkerState.STOPPED:
        return "completed"
    if not run.closed and not lives:
        return "failed"
    if run.ended_at is not None:
        return "failed" if any(one.missing for one in run.account.files.values()) else "completed"
    return "running" if worker.share.rows else "initializing"


def _shared(run: _Run, places: Places) -> dict[str, Any]:
    """Return what every worker's file says of the run."""
    total = run.plan.record.rows
    rows = run.merged
    outputs = [one.path for one in run.progress.outputs] or [
        places.relative(places.output(f"{run.plan.output_stem(one.label)}.csv")) for one in run.plan.units
    ]
    return {
        "row_start": min(1, total),
        "row_end": total,
        "current_row": rows,
        "total_rows": total,
        "progress_pct": round(100 * rows / total, 2) if total else 100.0,
        "output_file": outputs[0] if outputs else None,
        "output_files": outputs,
        "checkpoints": list(_checkpoints(run.account)),
        "eta_seconds": run.progress.eta_s,
    }


def _checkpoints(account: RunAccount) -> Iterator[str]:
    """Yield the names of the last parts of each file."""
    for label, file in account.files.items():
        for number in range(max(1, file.parts - MOST_CHECKPOINTS + 1), file.parts + 1):
            yield part_name(account.run_id, label, number)


def _figures(beat: Heartbeat, share: RunShare) -> dict[str, Any]:
    """Return what a worker's file says of its own work."""
    return {
        "started_at": share.started_at[:_MOST_NAME],
        "updated_at": beat.updated_at[:_MOST_NAME],
        "rows_processed": share.rows,
        "api_calls": share.calls,
        "rows_per_sec": _per_second(share.rows, share.started_at, beat.updated_at),
        "tokens_per_sec": share.tokens_per_sec if math.isfinite(share.tokens_per_sec) else 0.0,
        "avg_tokens_per_row": round(share.tokens / share.rows, 2) if share.rows else 0.0,
        "tokens_total": share.tokens,
        "errors": share.failed,
        "last_error": share.last_error[:_MOST_NAME] if share.last_error else None,
    }


def _per_second(rows: int, since: str, until: str) -> float:
    try:
        first, last = seconds_of(since), seconds_of(until)
    except (ValueError, OverflowError):  # another's clock, another's text
        return 0.0
    return round(rows / (last - first), 2) if first is not None and last is not None and last > first else 0.0


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        found = _NAME.fullmatch(path.name)
        if found is not None:
            yield int(found.group(1)), path


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says; nothing where it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_FILE_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
