"""What is measured, one function a case. Each returns rows of a table: figure, value, what it should be."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.bare import bare_loop
from benchmarks.rig import Rig, ServerSpec, WorkerSpec, rig, write_rows

BATCH = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `met` is None where nothing was asked for."""

    case: str
    name: str
    value: float
    unit: str
    wanted: str = ""
    met: bool | None = None


def at_once(rows: int = 30_000) -> list[Figure]:
    """A model server that answers at once: rows/s beside the bare loop, and CPU by service."""
    with rig([ServerSpec()], [WorkerSpec(), WorkerSpec()]) as fleet:
        path = write_rows(fleet.folder / "rows.csv", rows)
        warm = write_rows(fleet.folder / "warm.csv", 2_000)
        fleet.drop(warm, "warm")
        fleet.follow("warm", 120)
        bare = max(bare_loop(path, fleet.servers[0], BATCH, threads) for threads in (1, 16))
        before = fleet.cpu_seconds()
        fleet.drop(path, "run")
        timeline = fleet.follow("run", 600)
        after = fleet.cpu_seconds()
        bare_again = max(bare_loop(path, fleet.servers[0], BATCH, threads) for threads in (1, 16))
    whole = rows / timeline.seconds
    yardstick = (bare + bare_again) / 2
    figures = [
        Figure("at_once", "PRISM, drop to published file", whole, "rows/s"),
        Figure("at_once", "PRISM, steady state", timeline.steady_rate(), "rows/s"),
        Figure("at_once", "bare loop, the faster of 1 and 16 threads", yardstick, "rows/s"),
        Figure("at_once", "PRISM ÷ bare loop", whole / yardstick, "", "≥ 0.5", whole / yardstick >= 0.5),
    ]
    figures += [
        Figure("at_once", f"CPU of {name}", (after[name] - before[name]) / rows * 1000, "s/1000 rows")
        for name in sorted(after)
    ]
    return figures


def saturation(rows: int = 100_000) -> list[Figure]:
    """100 ms × 32 slots, two workers: how near to the ideal, and how long the tail is.

    With 16 calls each a slot is idle while its next request is on the wire; with 20 the server has the next
    one waiting, as a saturated server does. What is asked for is asked of the latter.
    """
    ideal = 32 / 0.1 * BATCH
    figures = [Figure("saturation", "ideal, slots ÷ latency × batch", ideal, "rows/s")]
    for calls, total in ((16, rows // 3), (20, rows)):
        with rig([ServerSpec(0.1, 32)], [WorkerSpec(calls=calls), WorkerSpec(calls=calls)]) as fleet:
            fleet.drop(write_rows(fleet.folder / "rows.csv", total), "run")
            timeline = fleet.follow("run", 900)
        steady = timeline.steady_rate() / ideal
        figures.append(Figure("saturation", f"steady state, 2 × {calls} calls", steady * ideal, "rows/s"))
    tail = (timeline.points[-1][0] - timeline.at_share(0.99)) / timeline.seconds
    return [
        *figures,
        Figure("saturation", "steady state ÷ ideal, 2 × 20 calls", steady, "", "≥ 0.97", steady >= 0.97),
        Figure("saturation", "last 1 % of the rows, share of the time", tail, "", "≤ 0.03", tail <= 0.03),
    ]


def slow_worker(rows: int = 40_000) -> list[Figure]:
    """Four workers of eight calls, one with a model server four times slower."""
    fast, slow = ServerSpec(0.1, 8), ServerSpec(0.4, 8)
    with rig([fast, fast, fast, slow], [WorkerSpec(number, 8) for number in range(4)]) as fleet:
        fleet.drop(write_rows(fleet.folder / "rows.csv", rows), "run")
        timeline = fleet.follow("run", 900)
    ideal = (3 * 8 / 0.1 + 8 / 0.4) * BATCH
    share = timeline.steady_rate() / ideal
    return [
        Figure("slow_worker", "sum of the capacities", ideal, "rows/s"),
        Figure("slow_worker", "steady state ÷ sum", share, "", "≥ 0.9", share >= 0.9),
    ]


def memory(small: int = 100_000, large: int = 1_000_000) -> list[Figure]:
    """Highest resident memory of each service, and the broker's highest disk use by topic, at two sizes.

    `prism.intake` holds the CSV itself where it is sent as a message, and 0 where it is a reference.
    """
    less, more = _peaks(small), _peaks(large)
    figures = []
    for name in sorted(less.memory):
        low, high = less.memory[name], more.memory[name]
        figures.append(Figure("memory", f"{name} at {small} rows", low, "MiB", "≤ 200", low <= 200))
        figures.append(Figure("memory", f"{name} at {large} rows", high, "MiB", "≤ 200", high <= 200))
        figures.append(
            Figure("memory", f"{name}, larger ÷ smaller", high / low, "", "≤ 1.1", high <= 1.1 * low)
        )
    for rows, peaks in ((small, less), (large, more)):
        figures.append(Figure("memory", f"the CSV of {rows} rows", peaks.csv, "MiB"))
        figures += [
            Figure("memory", f"disk of {topic} at {rows} rows", mib, "MiB")
            for topic, mib in sorted(peaks.disk.items())
        ]
    return figures


@dataclass(slots=True)
class _Peaks:
    """Highest MiB seen: of memory by service, of the broker's disk by topic; and the CSV's own."""

    csv: float
    memory: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)


def _peaks(rows: int) -> _Peaks:
    with rig([ServerSpec()], [WorkerSpec(), WorkerSpec()]) as fleet:
        path = write_rows(fleet.folder / "rows.csv", rows)
        peaks = _Peaks(path.stat().st_size / 2**20)
        fleet.drop(path, "run")
        deadline = time.monotonic() + 1800
        while "run" not in fleet.runs or not fleet.runs["run"].state.ended:
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                fleet.table.poll(0.1)
            _raise_to(peaks.memory, fleet.rss_mib())
            _raise_to(peaks.disk, fleet.disk_mib())
            if time.monotonic() > deadline:
                raise RuntimeError(f"{rows} rows took more than 1800 s")
    return peaks


def _raise_to(peaks: dict[str, float], now: dict[str, float]) -> None:
    for name, mib in now.items():
        peaks[name] = max(peaks.get(name, 0.0), mib)


def recovery(kills: int = 3) -> list[Figure]:
    """From SIGKILL of one of two workers to the first result for one of its partitions from the other."""
    took = []
    with rig([ServerSpec(0.1, 32)], [WorkerSpec(), WorkerSpec()]) as fleet:
        fleet.drop(write_rows(fleet.folder / "rows.csv", 200_000), "run")
        fleet.until("run", 2_000, 60)
        for _ in range(kills):
            took.append(_kill_and_wait(fleet))
            fleet.start_worker(1, WorkerSpec())
            fleet.until("run", fleet.progress["run"].rows_ok + 20_000, 120)
    worst = max(took)
    return [Figure("recovery", f"SIGKILL to work resumed, worst of {kills}", worst, "s", "≤ 10", worst <= 10)]


def _kill_and_wait(fleet: Rig) -> float:
    """Kill worker 1; wait until a sequence that it had in its partitions, and so the frontier, moves on."""
    os.kill(fleet.processes["worker-1"].pid, signal.SIGKILL)
    killed = time.monotonic()
    fleet.processes["worker-1"].wait()
    until = killed + 0.5  # what was acknowledged before the kill is still being merged
    while time.monotonic() < until:
        fleet.table.poll(0.05)
    stuck = fleet.progress["run"].files["rows"].merged_through
    while fleet.progress["run"].files["rows"].merged_through <= stuck:
        fleet.table.poll(0.02)
        if time.monotonic() - killed > 60:
            raise RuntimeError("nobody took over")
    return time.monotonic() - killed


def small_in_large() -> list[Figure]:
    """A file of 100 rows alone, and dropped while one of 100,000 is on."""
    with rig([ServerSpec(0.1, 32)], [WorkerSpec(), WorkerSpec()]) as fleet:
        small = write_rows(fleet.folder / "small.csv", 100)
        fleet.drop(small, "alone")
        alone = fleet.follow("alone", 60).seconds
        fleet.drop(write_rows(fleet.folder / "rows.csv", 100_000), "large")
        fleet.until("large", 5_000, 60)
        fleet.drop(small, "between")
        between = fleet.follow("between", 120).seconds
    extra = between - alone
    return [
        Figure("small_in_large", "100 rows alone", alone, "s"),
        Figure("small_in_large", "100 rows in a run of 100,000", between, "s"),
        Figure("small_in_large", "difference", extra, "s", "≤ 10", extra <= 10),
    ]


CASES: dict[str, Callable[[], list[Figure]]] = {
    "at_once": at_once,
    "saturation": saturation,
    "slow_worker": slow_worker,
    "small_in_large": small_in_large,
    "recovery": recovery,
    "memory": memory,
}
