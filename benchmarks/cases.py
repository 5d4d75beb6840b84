"""What is measured, one function a case. Each returns rows of a table: figure, value, what it should be."""

import os
import signal
import statistics
import time
from dataclasses import dataclass, field
from itertools import zip_longest

import psutil

from benchmarks.bare import bare_loop
from benchmarks.figure import Figure
from benchmarks.requester import Kind, Requester, Timing, photo_bytes
from benchmarks.rig import (
    ASK_ALL,
    ASK_ONCE,
    Rig,
    ServerSpec,
    WorkerSpec,
    rig,
    write_duplicates,
    write_rows,
)
from prism_model_worker.photos.photo import PhotoLimits
from prism_model_worker.photos.studio import Studio

BATCH = 10
# Requests per second; and the most ms of PRISM's own that is wanted of them, at p50 and at p99.
_REQUESTS = {Kind.PHOTO: 5.0, Kind.TEXT: 20.0}
_MOST_MS = {Kind.PHOTO: (80.0, 200.0), Kind.TEXT: (15.0, 60.0)}


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


def duplicates(rows: int = 10_000) -> list[Figure]:
    """Four rows in ten repeat another one's text: what the model is sent of them, and the time it saves."""
    server = ServerSpec(0.02, 16, per_row_s=0.01)
    with rig([server], [WorkerSpec()]) as fleet:
        fleet.drop(write_rows(fleet.folder / "warm.csv", 500), "warm")
        fleet.follow("warm", 120)
        asked, once_s = _deduped(fleet, rows, ASK_ONCE)
        _, all_s = _deduped(fleet, rows, ASK_ALL)
    with rig([server], [WorkerSpec(), WorkerSpec()]) as fleet:
        asked_by_two, _ = _deduped(fleet, rows, ASK_ONCE)
    return [
        Figure("duplicates", "rows sent to the model, one worker", asked, "", "≤ 0.61", asked <= 0.61),
        Figure("duplicates", "rows sent to the model, two workers", asked_by_two, ""),
        Figure("duplicates", "drop to published file, each text asked once", once_s, "s"),
        Figure("duplicates", "drop to published file, every row asked", all_s, "s"),
        Figure("duplicates", "time, each text once ÷ every row", once_s / all_s, ""),
    ]


def _deduped(fleet: Rig, rows: int, job: str) -> tuple[float, float]:
    """Run a table with duplicates; return the share of its rows that the model was asked, and the seconds."""
    path = write_duplicates(fleet.folder / "rows.csv", rows, rows * 6 // 10)
    before = fleet.answered("rows")
    fleet.drop(path, job, job)
    seconds = fleet.follow(job, 300).seconds
    return (fleet.answered("rows") - before) / rows, seconds


def request_share(seconds: float = 30.0) -> list[Figure]:
    """PRISM's own part of the time from request to reply: alone, and beside a bulk run that fills the worker.

    The model's time is the call as the worker saw it: a server's queue is in it. All else is PRISM's and
    the broker's: for the client both ways through the topics too, for the worker from record to reply.
    """
    server = ServerSpec(0.5, 32)
    alone = _development_seconds()
    figures = [Figure("requests", "a photo developed in this machine's peace, p50", alone * 1000, "ms")]
    with (
        rig([server], [WorkerSpec(calls=32)]) as fleet,
        Requester(fleet.kafka.bootstrap) as requester,
    ):
        for kind, per_second in _REQUESTS.items():
            requester.ask(kind, per_second, 2)  # the first photo starts the decoder
            figures += _shares(f"{kind} alone", requester.ask(kind, per_second, seconds))
        # As many as the server could answer meanwhile, so that they cannot run out.
        rows = round(_capacity(server) * BATCH * (len(_REQUESTS) * (seconds + 2) + 30))
        fleet.drop(write_rows(fleet.folder / "rows.csv", rows), "bulk")
        fleet.until("bulk", 10_000, 120)
        for kind in _REQUESTS:
            figures += _beside_bulk(fleet, requester, kind, seconds, _capacity(server))
    return figures


def _development_seconds(count: int = 30) -> float:
    """Return p50 of making a photo safe at the pace of the requests, with nothing beside it."""
    studio, photo, seconds = Studio(PhotoLimits()), photo_bytes(), []
    for _ in range(count):
        begun = time.monotonic()
        studio.develop(photo)
        seconds.append(time.monotonic() - begun)
        time.sleep(1 / _REQUESTS[Kind.PHOTO])
    studio.close()
    return statistics.median(seconds)


def _capacity(server: ServerSpec) -> float:
    """Return the calls that a server can answer in a second."""
    return (server.slots or 1) / server.latency_s


def _beside_bulk(
    fleet: Rig, requester: Requester, kind: Kind, seconds: float, capacity: float
) -> list[Figure]:
    calls, idle, begun = fleet.answered("completed"), psutil.cpu_times().idle, time.monotonic()
    timings = requester.ask(kind, _REQUESTS[kind], seconds)
    took = time.monotonic() - begun
    busy = (fleet.answered("completed") - calls) / took / capacity
    free = (psutil.cpu_times().idle - idle) / took
    return [
        *_shares(f"{kind} beside a bulk run", timings, _MOST_MS[kind]),
        Figure("requests", f"calls beside {kind}s ÷ what the slots can take", busy, "", "≥ 0.9", busy >= 0.9),
        # A machine without a free CPU delays requests whatever PRISM does.
        Figure("requests", f"CPUs of this machine idle beside {kind}s", free, "CPUs"),
    ]


def _shares(name: str, timings: list[Timing], wanted_ms: tuple[float, ...] = ()) -> list[Figure]:
    """Return p50 and p99 of what was not the model's, for the client and for the worker."""
    figures = []
    for percent, most in zip_longest((50, 99), wanted_ms):
        value = _percentile([one.client - one.model for one in timings], percent) * 1000
        wanted, met = (f"≤ {most:.0f}", value <= most) if most is not None else ("", None)
        figures.append(Figure("requests", f"{name}, p{percent}", value, "ms", wanted, met))
    for percent in (50, 99):
        value = _percentile([one.worker - one.model for one in timings], percent) * 1000
        figures.append(Figure("requests", f"{name}, within the worker, p{percent}", value, "ms"))
    return figures


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
