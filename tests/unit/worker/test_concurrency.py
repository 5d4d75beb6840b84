"""The concurrency limit on simulated model servers: what it finds, how soon, and what it costs.

Time is virtual and every random number seeded: each test runs the same each time.
"""

import heapq
import itertools
import math
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_model_worker.concurrency import (
    CUT,
    FEW,
    KEPT_S,
    LONGEST_HOLD_S,
    SLOWEST,
    ConcurrencyLimit,
    Permit,
)
from prism_model_worker.rounds import Kind, Round, Sample, change, elasticity
from tests.unit.worker.world import Clock

WIRE_S = 0.003
ALWAYS = 10_000  # calls that somebody has always ready
Draw = Callable[[random.Random], float]


@dataclass(slots=True)
class Call:
    """One call on its way."""

    gate: ConcurrencyLimit
    permit: Permit
    rows: int
    begun: float


class Simulation:
    """Clients, each with a limit of its own, and one server that they share: a discrete-event simulation.

    queues: whether calls over the slots wait, or are refused at once. noise: a factor of each call's time.
    crowd: K of a server without slots that serves `slots`·L ÷ (L + K) calls per second, L at once.
    """

    def __init__(
        self,
        slots: float,
        latency_s: float,
        *,
        queues: bool = True,
        noise: Draw = lambda _: 1.0,
        rows: Callable[[random.Random], int] = lambda _: 1,
        row_s: float = 0.0,
        crowd: float = 0.0,
        straggle_every: int = 0,
        retry_after_s: float | None = None,
        clients: int = 1,
        cap: int | None = None,
        start: int = 4,
        seed: int = 1,
    ) -> None:
        self.clock = Clock()
        self.slots, self.latency_s, self.queues = slots, latency_s, queues
        self.noise, self.rows, self.row_s, self.crowd = noise, rows, row_s, crowd
        self.straggle_every, self.retry_after_s = straggle_every, retry_after_s
        self.gates = [ConcurrencyLimit(self.clock, cap, start) for _ in range(clients)]
        self.demand = ALWAYS
        self.deadline_s = math.inf
        self.answered: list[tuple[float, float]] = []
        self.refusals = self.begun = 0
        self.urgent: list[bool] = []
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._served = 0
        self._busy = 0
        self._waiting: deque[Call] = deque()
        self._wakes: dict[int, float] = {}
        # Of a server without slots: work done per call so far, and when that was.
        self._work, self._worked_at, self._plan = 0.0, self.clock.now, 0
        self._crowd: list[tuple[float, int, Call]] = []

    @property
    def gate(self) -> ConcurrencyLimit:
        """The first client's limit."""
        return self.gates[0]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.now + seconds
        for number in range(len(self.gates)):
            self._take(number)
        while self._events and self._events[0][0] <= end:
            self.clock.now, _, event = heapq.heappop(self._events)
            event()
        self.clock.now = end

    def change(self, slots: int) -> None:
        """Give the server another number of slots."""
        self.slots = slots
        self._serve_waiting()

    def rate(self, seconds: float) -> float:
        """Run, and return the calls answered per second; one over the edge counts with its share inside."""
        begin = self.clock.now
        self.run(seconds)
        end = self.clock.now
        self.run(3 * self.latency_s)
        inside = ((min(end, last) - max(begin, first)) / (last - first) for first, last in self.answered)
        return sum(share for share in inside if share > 0) / (end - begin)

    def best(self) -> float:
        """Return the calls per second of as many calls at once as the server can use."""
        return self.slots / (self.latency_s + (0.0 if self.queues else 2 * WIRE_S))

    def _at(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock.now + delay_s, next(self._order), event))

    def _take(self, number: int) -> None:
        gate = self.gates[number]
        while gate.in_flight < self.demand:
            permit = gate.try_acquire()
            if permit is None:
                self._wake(number, gate.wait_hint_s())
                return
            self._call(gate, permit)

    def _call(self, gate: ConcurrencyLimit, permit: Permit) -> None:
        assert 0 < gate.in_flight <= gate.limit
        self.begun += 1
        call = Call(gate, permit, self.rows(self._random), self.clock.now)
        self._at(WIRE_S, lambda: self._arrive(call))

    def urge(self, per_second: float) -> None:
        """From now on let urgent calls come too; note which found a permit at once."""
        permit = self.gate.try_acquire(urgent=True)
        self.urgent.append(permit is not None)
        if permit is not None:
            self._call(self.gate, permit)
        self._at(self._random.uniform(0.5, 1.5) / per_second, lambda: self.urge(per_second))

    def _wake(self, number: int, delay_s: float | None) -> None:
        now = self.clock.now
        if delay_s is None or now < self._wakes.get(number, now) <= now + delay_s:
            return
        self._wakes[number] = now + delay_s + 1e-6
        self._at(delay_s + 1e-6, lambda: self._take(number))

    def _arrive(self, call: Call) -> None:
        if self.crowd:
            self._work_on()
            done = self._work + self.noise(self._random)
            heapq.heappush(self._crowd, (done, next(self._order), call))
            self._expect()
        elif self._busy < self.slots:
            self._serve(call)
        elif self.queues:
            self._waiting.append(call)
        else:
            self._at(WIRE_S, lambda: self._refuse(call))

    def _serve(self, call: Call) -> None:
        self._busy += 1
        self._served += 1
        seconds = (self.latency_s + self.row_s * call.rows) * self.noise(self._random)
        if self.straggle_every and self._served % self.straggle_every == 0:
            seconds = 60.0
        self._at(seconds, lambda: self._finish(call))

    def _finish(self, call: Call) -> None:
        self._busy -= 1
        self._serve_waiting()
        self._at(WIRE_S, lambda: self._answer(call))

    def _serve_waiting(self) -> None:
        while self._waiting and self._busy < self.slots:
            self._serve(self._waiting.popleft())

    def _work_on(self) -> None:
        if self._crowd:
            rate = self.slots / (len(self._crowd) + self.crowd)
            self._work += (self.clock.now - self._worked_at) * rate
        self._worked_at = self.clock.now

    def _expect(self) -> None:
        self._plan += 1
        if self._crowd:
            left = max(0.0, self._crowd[0][0] - self._work)
            plan = self._plan
            self._at(left * (len(self._crowd) + self.crowd) / self.slots, lambda: self._leave(plan))

    def _leave(self, plan: int) -> None:
        if plan == self._plan:
            self._work_on()
            call = heapq.heappop(self._crowd)[2]
            self._at(WIRE_S, lambda: self._answer(call))
            self._expect()

    def _answer(self, call: Call) -> None:
        if self.clock.now - call.begun > self.deadline_s:
            call.gate.failed(call.permit, timed_out=True)
        else:
            self.answered.append((call.begun, self.clock.now))
            call.gate.answered(call.permit, call.rows)
        self._take(self.gates.index(call.gate))

    def _refuse(self, call: Call) -> None:
        self.refusals += 1
        call.gate.refused(call.permit, self.retry_after_s)
        self._take(self.gates.index(call.gate))


def uniform(source: random.Random) -> float:
    return source.uniform(0.5, 1.5)


def lognormal(source: random.Random) -> float:
    return math.exp(source.gauss(-0.125, 0.5))


def one_to_ten(source: random.Random) -> int:
    return source.randint(1, 10)


SERVERS = pytest.mark.parametrize(
    ("slots", "latency_s"), [(slots, s) for slots in (8, 32, 128) for s in (0.2, 0.5, 1.0)]
)
QUEUES = pytest.mark.parametrize("queues", [True, False], ids=["queues", "refuses"])


# The slots are found, and found again


@QUEUES
@SERVERS
@pytest.mark.parametrize("factors", [(1, 0.5), (0.5, 1)], ids=["halved", "doubled"])
def test_the_slots_are_found_in_30_s(
    slots: int, latency_s: float, queues: bool, factors: tuple[float, ...]
) -> None:
    server = Simulation(slots, latency_s, queues=queues)
    for factor in factors:
        server.change(int(slots * factor))
        server.run(30)
        assert server.rate(10) >= 0.95 * server.best()
        # A little above the slots, and a probe of a quarter above that.
        assert server.gate.limit <= 1.4 * server.slots + 5
    assert server.refusals <= 0.01 * server.begun


@QUEUES
@pytest.mark.parametrize("since_s", range(2, 14, 3))
def test_they_are_found_whenever_they_change(queues: bool, since_s: int) -> None:
    server = Simulation(32, 0.5, queues=queues)
    server.run(40 + since_s)
    for slots in (16, 32, 64, 32):
        server.change(slots)
        server.run(30)
        assert server.rate(10) >= 0.95 * server.best()
    assert server.refusals <= 0.01 * server.begun


@QUEUES
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_small_server_is_not_asked_for_more_than_it_has(slots: int, queues: bool) -> None:
    server = Simulation(slots, 0.5, queues=queues)
    server.run(30)
    assert server.rate(20) >= 0.95 * server.best()
    assert server.gate.limit <= slots + 3
    server.change(2 * slots)
    server.run(120)  # so few calls a second, one in a hundred refused at most: this takes its time
    assert server.rate(20) >= 0.9 * server.best()


@QUEUES
@pytest.mark.parametrize(
    ("noise", "rows"),
    [(uniform, False), (lognormal, False), (lambda _: 1.0, True), (lognormal, True)],
    ids=["uniform", "lognormal", "batches", "lognormal batches"],
)
@pytest.mark.parametrize(("slots", "latency_s"), [(8, 0.2), (32, 0.5), (128, 1.0)])
def test_noise_and_batches_of_any_size_do_not_drive_it_away(
    slots: int, latency_s: float, noise: Draw, rows: bool, queues: bool
) -> None:
    server = Simulation(slots, latency_s, queues=queues, noise=noise)
    mean_s = latency_s
    if rows:
        server.rows, server.row_s = one_to_ten, latency_s / 10
        mean_s += 5.5 * server.row_s
    server.run(45)
    for factor in (1, 0.5, 1):
        server.change(int(slots * factor))
        server.run(30)
        assert server.rate(30) >= 0.9 * server.slots / mean_s
        assert server.gate.limit <= 1.5 * 1.25 * server.slots + 5
    assert server.refusals <= 0.01 * server.begun


@QUEUES
def test_a_straggler_now_and_then_changes_nothing(queues: bool) -> None:
    server = Simulation(32, 0.5, queues=queues, noise=uniform, straggle_every=1000)
    server.run(60)
    # Each straggler holds a slot for 60 s, all that time.
    mean_s = 0.999 * 0.5 + 0.001 * 60
    assert server.rate(240) >= 0.9 * 32 / mean_s
    assert 28 <= server.gate.limit <= 50


def test_slots_that_are_lost_one_by_one_are_missed() -> None:
    server = Simulation(128, 0.5)
    server.run(40)
    for slots in range(128, 90, -1):
        server.change(slots)
        server.run(2)
    server.run(30)
    assert server.gate.limit <= 1.3 * 91


@pytest.mark.parametrize(("most", "crowd"), [(20, 4), (100, 10), (100, 40), (250, 50)])
def test_it_stops_where_more_calls_at_once_gain_little(most: int, crowd: int) -> None:
    server = Simulation(most, 0.0, crowd=crowd)
    server.run(90)
    for _ in range(5):
        server.run(20)
        elasticity = crowd / (crowd + server.gate.limit)
        assert 0.18 <= elasticity <= 0.36


@pytest.mark.parametrize("clients", [2, 3])
@QUEUES
def test_clients_of_one_server_do_not_drive_one_another_up_for_ever(queues: bool, clients: int) -> None:
    server = Simulation(8, 0.2, queues=queues, noise=uniform, clients=clients)
    server.run(900)
    assert server.rate(30) >= 0.9 * server.best()
    # Who comes to a crowded server takes its latency for the lowest there is: hence the factor.
    assert sum(gate.limit for gate in server.gates) <= 3 * SLOWEST * 8
    assert server.refusals <= 0.01 * server.begun


# What says nothing of the slots


@QUEUES
def test_slower_calls_are_not_taken_for_lost_slots(queues: bool) -> None:
    server = Simulation(32, 0.5, queues=queues)
    server.run(40)
    for latency_s in (1.0, 0.5, 2.0, 0.5):
        server.latency_s = latency_s
        assert server.rate(30) >= 0.9 * server.best()  # while it finds out
        assert server.rate(30) >= 0.95 * server.best()
        assert 0.75 * 32 <= server.gate.limit <= 1.8 * 32


@QUEUES
def test_calls_of_another_kind_do_not_hide_more_slots(queues: bool) -> None:
    server = Simulation(16, 0.1, queues=queues)
    server.run(40)
    server.latency_s = 2.0  # such as another run's, with longer replies
    server.run(40)
    server.change(64)
    server.run(90)
    assert server.rate(20) >= 0.95 * server.best()


@QUEUES
def test_too_little_work_neither_raises_the_limit_nor_lowers_it(queues: bool) -> None:
    server = Simulation(32, 0.5, queues=queues)
    server.run(30)
    server.demand = 5
    server.run(5)
    limit = server.gate.limit
    server.run(120)
    assert server.gate.limit == limit
    server.demand = 0
    server.run(3600)
    server.demand = ALWAYS
    server.run(1)
    assert server.rate(10) >= 0.95 * server.best()


def test_what_was_never_made_use_of_is_never_allowed() -> None:
    server = Simulation(32, 0.5)
    server.demand = 10
    for _ in range(100):
        server.run(1)
        assert server.gate.limit <= 2 * 10


@QUEUES
def test_work_that_comes_and_goes_leaves_the_limit_where_it_was(queues: bool) -> None:
    server = Simulation(32, 0.5, queues=queues, noise=uniform)
    server.run(30)
    source = random.Random(5)
    for _ in range(200):
        server.demand = source.choice((0, 3, 10, 25, 60, ALWAYS))
        server.run(2 * source.random())
    assert 26 <= server.gate.limit <= 1.5 * 1.25 * 32


def test_work_in_bursts_shorter_than_a_call_does_not_raise_the_limit() -> None:
    server = Simulation(32, 0.5)
    server.run(30)
    source = random.Random(2)
    for _ in range(100):
        server.demand = ALWAYS
        server.run(0.05 + 0.3 * source.random())
        server.demand = source.choice((1, 2, 10, 20))
        server.run(0.3 + source.random())
    assert 26 <= server.gate.limit <= 1.4 * 32 + 5


def test_failures_say_nothing() -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock)
    for _ in range(100):
        clock.now += 1
        permit = gate.try_acquire()
        assert permit is not None
        gate.failed(permit)
    assert gate.limit == 4


def test_a_server_that_answers_nothing_in_time_is_asked_for_less() -> None:
    server = Simulation(64, 0.5)
    server.run(40)
    assert server.gate.limit >= 64
    server.deadline_s = 5.0
    server.change(2)  # 65 calls at once would take 16 s each
    server.run(120)
    assert server.rate(60) >= 0.9 * server.best()
    assert server.gate.limit <= 8


# Refusals


def test_a_burst_of_refusals_counts_as_one() -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock, start=64)
    permits = [taken for _ in range(64) if (taken := gate.try_acquire())]
    assert len(permits) == 64  # nothing is known yet that could pace them
    clock.now += 0.01
    for permit in permits[32:]:
        gate.refused(permit)
    assert gate.limit == math.floor(CUT * 32)


def test_whatever_was_on_its_way_halves_the_limit_at_most() -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock, start=64)
    permits = [taken for _ in range(64) if (taken := gate.try_acquire())]
    clock.now += 0.01
    for permit in reversed(permits):
        gate.refused(permit)
    assert gate.limit == 32


def test_half_of_the_slots_lost_at_once_costs_few_refusals() -> None:
    server = Simulation(128, 1.0, queues=False)
    server.run(40)
    before = server.refusals
    server.change(64)
    server.run(3)
    assert 0 < server.refusals - before <= 12


def test_permits_are_spread_over_half_a_latency() -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock, start=16)
    first = [taken for _ in range(16) if (taken := gate.try_acquire())]
    clock.now += 1
    for permit in first:
        gate.answered(permit)
    while gate.in_flight < 16:
        if gate.try_acquire() is None:
            clock.now += gate.wait_hint_s() or 0.0
    # Two at once, then one each 1/32 s.
    assert clock.now - 1001 == pytest.approx(14 / 32)


def test_a_refused_probe_stops_nothing_else() -> None:
    """A server that asks for a minute's rest when it is full is not left idle: its calls end all the time."""
    server = Simulation(32, 0.5, queues=False, retry_after_s=60.0)
    server.run(30)
    assert server.rate(60) >= 0.95 * server.best()
    assert server.refusals > 0


@pytest.mark.parametrize(("asked_s", "held_s"), [(2.0, 2.0), (3600.0, LONGEST_HOLD_S)])
def test_a_refusal_within_the_limit_holds_new_calls(asked_s: float, held_s: float) -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock)
    permits = [gate.try_acquire() for _ in range(4)]
    assert permits[3] is not None
    gate.refused(permits[3], asked_s)
    assert gate.limit == math.floor(CUT * 3)
    for permit in permits[:3]:
        assert permit is not None
        gate.failed(permit)
    assert gate.wait_hint_s() == pytest.approx(held_s)
    assert gate.try_acquire() is None
    clock.now += held_s
    assert gate.try_acquire() is not None


def test_a_server_that_refuses_a_single_call_starves_us_until_it_answers() -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock)
    holds = []
    for _ in range(8):
        permit = gate.try_acquire()
        assert permit is not None
        gate.refused(permit)
        assert (gate.starved, gate.limit) == (True, 1)
        holds.append(gate.wait_hint_s() or 0.0)
        clock.now += holds[-1]
    assert holds == sorted(holds)
    assert (holds[0], holds[-1]) == (0.25, LONGEST_HOLD_S)
    permit = gate.try_acquire()
    assert permit is not None
    clock.now += 1
    gate.answered(permit)
    assert not gate.starved


def test_a_moment_in_which_everything_is_refused_is_made_up_for() -> None:
    server = Simulation(64, 0.5, queues=False)
    server.run(40)
    server.change(0)
    server.run(2)
    assert server.gate.limit < 64
    server.change(64)
    server.run(30)
    assert server.rate(10) >= 0.95 * server.best()


# Rounds


def sample(seed: int, sizes: Sequence[int], crowd: float) -> Sample:
    """Calls of so many rows each, that take 0.2 s and 0.1 s a row, and all `crowd` times as long."""
    source = random.Random(seed)
    made = Sample(area=crowd * 10.0, span=1.0)
    for _ in range(200):
        rows = source.choice(sizes)
        made.add(crowd * (0.2 + 0.1 * rows), rows)
    return made


def test_batches_of_other_sizes_compare() -> None:
    base = sample(1, (1, 2, 5), 1.0)
    assert change(base, sample(2, (5, 10), 1.0)) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert change(base, sample(2, (5, 10), 2.0))[0] == pytest.approx(math.log(2))


def test_elasticity_is_none_where_all_of_it_waits() -> None:
    assert elasticity(sample(1, (1, 2), 1.0), sample(2, (1, 2), 2.0))[0] == pytest.approx(0.0)


def test_old_samples_fade() -> None:
    base = sample(1, (1, 2), 1.0)
    for seed in range(20):
        base.merge(sample(seed, (1, 2), 2.0), 300)
    assert base.n <= 600
    assert change(sample(2, (1, 2), 2.0), base)[0] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(("left", "complete"), [(0, True), (4, True), (5, False)])
def test_a_round_does_not_wait_for_stragglers(left: int, complete: bool) -> None:
    current = Round(1, Kind.UP, target=40, wanted=40, begun=0.0, opened=True, started=40, open=left)
    assert current.complete == complete


# Urgent calls


def test_the_last_permits_are_left_to_urgent_calls_while_some_come() -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock, start=32)
    permits = [taken for _ in range(32) if (taken := gate.try_acquire())]
    assert len(permits) == 32
    assert gate.try_acquire(urgent=True) is None
    for permit in permits[:2]:
        gate.failed(permit)
    assert gate.try_acquire() is None
    assert gate.try_acquire(urgent=True) is not None
    clock.now += KEPT_S
    assert gate.try_acquire() is not None
    assert gate.in_flight == 32


def test_of_a_few_permits_none_is_left_idle() -> None:
    gate = ConcurrencyLimit(Clock(), start=FEW - 1)
    assert gate.try_acquire(urgent=True) is not None
    assert [gate.try_acquire() is not None for _ in range(FEW - 1)] == [True] * (FEW - 2) + [False]


@QUEUES
@pytest.mark.parametrize(("slots", "per_second"), [(FEW, 0.2), (32, 10)])
def test_urgent_calls_hardly_wait_and_slots_are_found_beside_them(
    slots: int, per_second: float, queues: bool
) -> None:
    server = Simulation(slots, 0.5, queues=queues)
    server.urge(per_second)
    server.run(30)
    server.urgent.clear()
    assert server.rate(60) >= 0.85 * server.best()
    assert server.urgent.count(True) >= 0.9 * len(server.urgent)
    server.change(4 * slots)
    server.run(20)
    assert server.rate(20) >= 0.8 * server.best()


# Rules that hold whatever happens


@pytest.mark.parametrize("cap", [1, 3, 16])
@QUEUES
def test_the_cap_is_never_exceeded(cap: int, queues: bool) -> None:
    server = Simulation(32, 0.5, queues=queues, cap=cap)
    for _ in range(60):
        server.run(0.5)
        assert server.gate.limit <= cap
    assert server.rate(10) >= 0.95 * cap / (0.5 + 2 * WIRE_S)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "urge", "answer", "answer", "refuse", "fail", "time out", "wait"]),
        st.integers(0, 10_000),
        st.floats(0.0, 20.0),
    ),
    max_size=300,
)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, cap=st.none() | st.integers(1, 40), start=st.integers(1, 64))
def test_no_sequence_of_events_breaks_the_rules(
    events: list[tuple[str, int, float]], cap: int | None, start: int
) -> None:
    clock = Clock()
    gate = ConcurrencyLimit(clock, cap, start)
    out: list[Permit] = []
    for kind, choice, seconds in events:
        if kind == "take":
            _take_all(gate, out, 1 + choice % 20)
        elif kind == "urge" and (permit := gate.try_acquire(urgent=True)):
            out.append(permit)
        elif kind in ("wait", "urge"):
            clock.now += seconds
        elif out:
            clock.now += seconds / 100
            _end(gate, out.pop(choice % len(out)), kind, seconds)
        assert 0 <= gate.in_flight == len(out)
        assert 1 <= gate.limit <= (cap or math.inf)
        hint = gate.wait_hint_s(urgent=True)
        if gate.in_flight < gate.limit:
            assert hint is not None
            assert 0 <= hint <= LONGEST_HOLD_S + 1e-6
    for permit in out:
        gate.failed(permit)
    clock.now += LONGEST_HOLD_S + 1e-6
    assert gate.try_acquire() is not None


def _take_all(gate: ConcurrencyLimit, out: list[Permit], most: int) -> None:
    for _ in range(most):
        hint = gate.wait_hint_s()
        permit = gate.try_acquire()
        assert (permit is not None) == (hint == 0.0)
        if permit is None:
            return
        out.append(permit)
        assert permit.rank == len(out) <= gate.limit


def _end(gate: ConcurrencyLimit, permit: Permit, kind: str, number: float) -> None:
    if kind == "answer":
        gate.answered(permit, 1 + number)
    elif kind == "refuse":
        gate.refused(permit, number if number > 10 else None)
    else:
        gate.failed(permit, timed_out=kind == "time out")


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    """Let threads interrupt one another wherever they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_many_threads_share_it() -> None:
    gate = ConcurrencyLimit(time.monotonic, cap=4)
    held: list[int] = []

    def work(number: int) -> None:
        for turn in range(1500):
            while (permit := gate.try_acquire()) is None:
                time.sleep(0)
            held.append(permit.rank)
            if turn % 10 == number % 10:
                gate.failed(permit)
            else:
                gate.answered(permit, 1 + turn % 10)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(held) == 16 * 1500
    assert gate.in_flight == 0
    assert min(held) >= 1
    assert max(held) <= 4
