"""The worker's concurrency limit beside fixed numbers of calls at once, on the embedded model server.

`python -m benchmarks.controller [--quick] [--json FILE]`. Six servers: 8, 32 and 128 slots of 0.2, 0.5 and
1 s, which queue what is too much, or refuse it. Each has its slots halved, and doubled again. Throughput is
taken from 30 to 40 s after the start and after each change; the best of the fixed numbers, tried on the same
server in the same run, is 1. The three servers of a kind are measured at the same time, in processes of their
own: together 232 calls per second. The share of one CPU that a client took shows that it was no bottleneck.
"""

import argparse
import json
import math
import multiprocessing
import queue
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import requests
from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure
from benchmarks.rig import MODEL
from prism.modelserver.errors import ModelServerError, ServerAway
from prism.modelserver.ollama import Ollama
from prism.modelserver.server import ChatMessage, ChatRequest
from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.model_state import Behaviour
from prism_model_worker.concurrency import ConcurrencyLimit, Permit

CASE = "controller"
ENDLESS_QUEUE = 1_000_000
_QUESTION = "RowID: 1\nMessage: The bus was late again, and nobody said why.\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """One server, and the seconds of each part of its measurement."""

    slots: int
    latency_s: float
    queues: bool
    settle_s: float = 30.0
    measure_s: float = 10.0
    fixed_s: float = 7.0

    @property
    def name(self) -> str:
        """Of its rows in the table."""
        return f"{self.slots} × {self.latency_s:g} s, {'queues' if self.queues else 'refuses'}"

    def candidates(self, slots: int) -> tuple[int, ...]:
        """Return the fixed numbers that are tried: the slots, and some more where what is too much waits."""
        return (slots, math.ceil(slots * 1.1) + 1) if self.queues else (slots,)


@dataclass(frozen=True, slots=True)
class Phase:
    """What came of one number of slots: calls per second of the best fixed number, and of the controller."""

    slots: int
    best_fixed: int
    fixed_rate: float
    rate: float
    limit: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one plan. `client_cpu`: share of one CPU."""

    plan: Plan
    phases: tuple[Phase, ...]
    calls: int
    refused: int
    client_cpu: float


class Gate(Protocol):
    """What hands out permits: a `ConcurrencyLimit`, or a fixed number."""

    def try_acquire(self) -> Permit | None: ...
    def wait_hint_s(self) -> float | None: ...
    def answered(self, permit: Permit, /) -> None: ...
    def refused(self, permit: Permit, retry_after_s: float | None, /) -> None: ...
    def failed(self, permit: Permit, /) -> None: ...


class Fixed:
    """So many calls at once."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = threading.Lock()

    def try_acquire(self) -> Permit | None:
        """Return a permit if one is free."""
        with self._lock:
            if self._free == 0:
                return None
            self._free -= 1
            return Permit(time.monotonic(), 0, 0)

    def wait_hint_s(self) -> float | None:
        """Only the end of a call frees a permit."""
        return None

    def answered(self, _permit: Permit, /) -> None:
        """Take a permit back."""
        with self._lock:
            self._free += 1

    def refused(self, permit: Permit, _retry_after_s: float | None, /) -> None:
        """Take a permit back."""
        self.answered(permit)

    failed = answered


@dataclass(slots=True)
class Log:
    """Calls as they ended: begin and end of those that were answered, and how many were refused."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    def rate(self, begin: float, end: float) -> float:
        """Return calls per second in a window; one that reaches over its edge counts with its share in it.

        So bursts do not matter. The window must have been over for as long as a call takes.
        """
        inside = ((min(end, last) - max(begin, first)) / (last - first) for first, last in self.answered)
        return sum(share for share in inside if share > 0) / (end - begin)


class Load:
    """As many calls as a gate lets through. One thread waits for permits, a pool makes the calls."""

    def __init__(self, url: str, gate: Gate, threads: int) -> None:
        self.log = Log()
        self._gate = gate
        self._server = Ollama(url, pool_size=threads)
        self._permits: queue.SimpleQueue[Permit | None] = queue.SimpleQueue()
        self._freed = threading.Event()
        self._stopped = False
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(threads)]
        self._dispatcher = threading.Thread(target=self._dispatch, daemon=True)

    def __enter__(self) -> "Load":
        for thread in (*self._threads, self._dispatcher):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._freed.set()
        self._dispatcher.join()
        for _thread in self._threads:
            self._permits.put(None)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def _dispatch(self) -> None:
        while not self._stopped:
            permit = self._gate.try_acquire()
            if permit is not None:
                self._permits.put(permit)
                continue
            self._freed.wait(self._gate.wait_hint_s())
            self._freed.clear()

    def _call(self) -> None:
        request = ChatRequest(
            model=MODEL,
            messages=(ChatMessage("system", "Classify."), ChatMessage("user", _QUESTION)),
            num_ctx=4096,
            num_predict=256,
            deadline_s=60.0,
        )
        while (permit := self._permits.get()) is not None:
            begun = time.monotonic()
            try:
                self._server.chat(request)
            except ServerAway as error:
                self.log.refused += 1
                self._gate.refused(permit, error.retry_after_s)
            except ModelServerError:
                self.log.failed += 1
                self._gate.failed(permit)
            else:
                self.log.answered.append((begun, time.monotonic()))
                self._gate.answered(permit)
            self._freed.set()


def measure(plan: Plan) -> Outcome:
    """Measure one server: fixed numbers with all slots and with half of them, then the controller."""
    behaviour = Behaviour(
        latency_ms=plan.latency_s * 1000, slots=plan.slots, queue=ENDLESS_QUEUE if plan.queues else 0
    )
    with EmbeddedModelServer(behaviour) as server:
        fixed = {slots: _best_fixed(plan, server, slots) for slots in (plan.slots, plan.slots // 2)}
        limit = ConcurrencyLimit(time.monotonic)
        sequence = (plan.slots, plan.slots // 2, plan.slots)
        cpu, began = time.process_time(), time.monotonic()
        with Load(server.url, limit, threads=2 * plan.slots + 16) as load:
            windows = [_settled(plan, server, slots, limit) for slots in sequence]
            time.sleep(2 * plan.latency_s)
            client_cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    log = load.log
    phases = tuple(
        Phase(slots, *fixed[slots], log.rate(*window[:2]), window[2])
        for slots, window in zip(sequence, windows, strict=True)
    )
    return Outcome(plan, phases, len(log.answered) + log.refused + log.failed, log.refused, client_cpu)


def _settled(
    plan: Plan, server: EmbeddedModelServer, slots: int, limit: ConcurrencyLimit
) -> tuple[float, float, int]:
    """Change the slots and wait; return the window that is measured, and the limit at its end."""
    _set_slots(server, slots)
    time.sleep(plan.settle_s)
    begin = time.monotonic()
    time.sleep(plan.measure_s)
    return begin, time.monotonic(), limit.limit


def _best_fixed(plan: Plan, server: EmbeddedModelServer, slots: int) -> tuple[int, float]:
    _set_slots(server, slots)
    rates = {}
    for limit in plan.candidates(slots):
        with Load(server.url, Fixed(limit), threads=limit) as load:
            time.sleep(2 * plan.latency_s + 1)
            begin = time.monotonic()
            time.sleep(plan.fixed_s)
            end = time.monotonic()
            time.sleep(2 * plan.latency_s)
        rates[limit] = load.log.rate(begin, end)
    best = max(rates, key=lambda limit: rates[limit])
    return best, rates[best]


def _set_slots(server: EmbeddedModelServer, slots: int) -> None:
    requests.post(f"{server.url}/prism/control", json={"slots": slots}, timeout=5).raise_for_status()


def plans(quick: bool = False) -> list[list[Plan]]:
    """Return the servers in groups that are measured at the same time; quick: two of them, in two minutes."""
    if quick:
        return [[Plan(8, 0.2, True), Plan(32, 0.5, False)]]
    sizes = ((8, 0.2), (32, 0.5), (128, 1.0))
    return [[Plan(slots, latency_s, queues) for slots, latency_s in sizes] for queues in (True, False)]


def outcomes(groups: Sequence[Sequence[Plan]]) -> list[Outcome]:
    """Measure every plan."""
    found: list[Outcome] = []
    context = multiprocessing.get_context("spawn")
    for group in groups:
        with ProcessPoolExecutor(len(group), mp_context=context) as pool:
            found += pool.map(measure, group)
    return found


def figures(found: Sequence[Outcome]) -> list[Figure]:
    """Return the rows of the table."""
    rows = []
    for one in found:
        for change, phase in zip(("start", "half the slots", "twice the slots"), one.phases, strict=True):
            ratio = phase.rate / phase.fixed_rate
            name = f"{one.plan.name}: 30 s after {change} ÷ {phase.best_fixed} fixed"
            rows.append(Figure(CASE, name, ratio, "", "≥ 0.95", ratio >= 0.95))
            rows.append(Figure(CASE, f"{one.plan.name}: limit after {change}", phase.limit, "calls"))
        share = one.refused / one.calls
        rows.append(Figure(CASE, f"{one.plan.name}: calls refused", share, "", "≤ 0.01", share <= 0.01))
        rows.append(Figure(CASE, f"{one.plan.name}: the client's CPU", one.client_cpu, "CPUs"))
    return rows


def controller() -> list[Figure]:
    """Find and hold the slots of six servers without being told; see the module."""
    return figures(outcomes(plans()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a figure is not what it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controller", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two servers instead of six")
    parser.add_argument("--json", type=Path, help="write what was measured here, too")
    options = parser.parse_args(arguments)
    found = outcomes(plans(options.quick))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2))
    rows = figures(found)
    table = Table("figure", "value", "unit", "wanted", "")
    marks: dict[bool | None, str] = {True: "✓", False: "✗", None: ""}
    for one in rows:
        table.add_row(one.name, f"{one.value:.4g}", one.unit, one.wanted, marks[one.met])
    Console(width=110).print(table)
    return 1 if any(one.met is False for one in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
