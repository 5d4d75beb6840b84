"""How far the dashboard is behind the merger while a large run goes on, and what it takes to look on.

A count on the screen is behind from the moment at which the merger told a newer one (`updated_at` of its
progress, which it writes as it sends it) until the newer one, or one that came after it, is drawn. The
screen is looked at every ten milliseconds; while nothing newer was told it is not behind at all.
"""

import bisect
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from pathlib import Path

import psutil

from benchmarks.figure import Figure
from benchmarks.onlooker import READY
from benchmarks.rig import ASK_ALL, ROOT, SELDOM, Rig, ServerSpec, WorkerSpec, rig, write_rows
from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import Progress

_LINES, _COLUMNS = 50, 200
_GLANCE_S = 0.01
_SAMPLE_S = 0.5
_READY_S = 60.0
_MOST_S = 3600.0
# Seconds behind the fleet that are allowed.
_MOST_BEHIND_S = 1.0

# Seconds since 1970, and the rows that were told or drawn then.
Count = tuple[float, int]


@dataclass(slots=True)
class Looked:
    """What was told and drawn of a run, and what its onlooker took. `cpu_s`, `seconds`: while it went on."""

    told: list[Count] = field(default_factory=list)
    drawn: list[Count] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    most_mib: float = 0.0


def dashboard(rows: int = 1_000_000) -> list[Figure]:
    """A model server that answers at once, and the dashboard on 200×50."""
    with rig([ServerSpec()], [WorkerSpec(), WorkerSpec()]) as fleet:
        whole = _looked_on(fleet, rows, ASK_ALL)
        seldom = _looked_on(fleet, max(10_000, rows // 10), SELDOM)
    behind = glances(whole.told, whole.drawn)
    late = as_drawn(seldom.told, seldom.drawn)
    centiles = statistics.quantiles(behind, n=100, method="inclusive")
    return [
        Figure("dashboard", f"{rows} rows, merged", rows / whole.seconds, "rows/s"),
        Figure("dashboard", "pictures drawn", len(whole.drawn) / whole.seconds, "1/s"),
        Figure("dashboard", "behind the merger, p50", centiles[49], "s"),
        _wanted("behind the merger, p99", centiles[98]),
        _wanted("behind the merger, worst", max(behind)),
        _wanted("dashboard_refresh: 5, as it is drawn, worst", max(late)),
        Figure("dashboard", "CPU of the dashboard", whole.cpu_s / whole.seconds * 60, "s/min"),
        Figure("dashboard", "memory of the dashboard", whole.most_mib, "MiB"),
    ]


def _wanted(name: str, seconds: float) -> Figure:
    wanted = f"≤ {_MOST_BEHIND_S:g}"
    return Figure("dashboard", name, seconds, "s", wanted, seconds <= _MOST_BEHIND_S)


def glances(told: list[Count], drawn: list[Count], every_s: float = _GLANCE_S) -> list[float]:
    """Return how many seconds the screen was behind at each glance, from its first picture to the last."""
    begun, ended = drawn[0][0], drawn[-1][0]
    moments = (begun + number * every_s for number in range(max(2, int((ended - begun) / every_s))))
    at = [moment for moment, _ in drawn]
    return [_behind(told, moment, drawn[bisect.bisect(at, moment) - 1][1]) for moment in moments]


def as_drawn(told: list[Count], drawn: list[Count]) -> list[float]:
    """Return how many seconds each picture was behind when it was drawn."""
    return [_behind(told, moment, rows) for moment, rows in drawn]


def _behind(told: list[Count], moment: float, rows: int) -> float:
    newer = bisect.bisect(told, rows, key=itemgetter(1))
    return max(0.0, moment - told[newer][0]) if newer < len(told) else 0.0


def _looked_on(fleet: Rig, rows: int, job: str) -> Looked:
    """Run a table with an onlooker from before its drop to its end."""
    run_id, found = f"run-{job}", Looked()
    path, notes = write_rows(fleet.folder / "rows.csv", rows), fleet.folder / f"{run_id}.notes"

    def take(record: Record) -> None:
        if record.key == run_id and record.value:
            _take(found.told, Progress.parse(record.value))

    reader = TableReader(fleet.kafka, {fleet.topics.progress: take})
    with _terminal() as terminal:
        process = _start(fleet, run_id, notes, terminal)
        try:
            _await_ready(process, notes)
            fleet.drop(path, run_id, job)
            _follow(fleet, run_id, reader, process, found)
            process.wait(_READY_S)
        finally:
            process.kill()
            process.wait()
            reader.close()
    found.drawn = [_noted(line) for line in notes.read_text().splitlines() if line != READY]
    if not found.drawn or found.drawn[-1][1] != rows:
        raise RuntimeError(f"the dashboard has not drawn the {rows} rows: {found.drawn[-1:]}")
    return found


def _take(told: list[Count], progress: Progress) -> None:
    """Add a count that is newer than all before it."""
    rows = progress.rows_ok + progress.rows_failed
    if rows > (told[-1][1] if told else 0):
        told.append((datetime.fromisoformat(progress.updated_at).timestamp(), rows))


def _noted(line: str) -> Count:
    moment, rows = line.split()
    return float(moment), int(rows)


def _follow(
    fleet: Rig, run_id: str, reader: TableReader, process: "subprocess.Popen[bytes]", found: Looked
) -> None:
    """Read what the merger tells until the run has ended, and look at what the onlooker takes meanwhile."""
    onlooker = psutil.Process(process.pid)
    begun = sampled = time.monotonic()
    before = sum(onlooker.cpu_times()[:2])
    while not ((run := fleet.runs.get(run_id)) and run.state.ended):
        fleet.table.poll(0.01)
        reader.poll(0.02)
        now = time.monotonic()
        if now - begun > _MOST_S:
            raise RuntimeError(f"{run_id} has not ended after {_MOST_S:.0f} s: {run}")
        if now - sampled >= _SAMPLE_S and process.poll() is None:
            sampled = now
            with suppress(psutil.Error):
                found.most_mib = max(found.most_mib, onlooker.memory_info().rss / 2**20)
                found.cpu_s = sum(onlooker.cpu_times()[:2]) - before
                found.seconds = now - begun
    reader.poll(_SAMPLE_S)


def _start(fleet: Rig, run_id: str, notes: Path, terminal: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "benchmarks.onlooker", fleet.kafka.bootstrap, run_id, str(notes)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    return subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )


def _await_ready(process: "subprocess.Popen[bytes]", notes: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while not (notes.exists() and notes.read_text().startswith(READY)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the dashboard has not begun: exit code {process.poll()}")
        time.sleep(0.05)


@contextmanager
def _terminal() -> Iterator[int]:
    """A terminal whose output somebody reads, or it would fill and stop who draws on it."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    threading.Thread(target=_drain, args=(leader,), name="terminal", daemon=True).start()
    try:
        yield follower
    finally:
        os.close(follower)


def _drain(leader: int) -> None:
    with suppress(OSError):  # nobody has the other end any more
        while os.read(leader, 65536):
            pass
    os.close(leader)
