"""How many calls at once a model server can take: found by trial, held, and found anew when it changes.

What is sought. With L calls in flight, W seconds each, a server answers X = L ÷ W calls per second (Little's
law). More calls at once are worth their latency as long as they bring throughput: while the elasticity

    e = d ln X / d ln L = 1 − d ln W / d ln L

is large. Below the slots of a server that queues it is 1, above them 0; for one whose batch shares a GPU,
X = C·L ÷ (L + K), it falls smoothly, K ÷ (L + K). The limit rises while e is above `WORTH`.

Why it is right. Only what followed from another L is believed: a round holds the limit still (`rounds`) and
is compared with a round at another limit. A latency that rises by itself is no verdict, it is cause for a
probe at a lower limit: if the throughput holds there, slots were lost; if it falls, calls have become slower,
and the limit stays. Vegas and Netflix's Gradient2 conclude from a lowest latency that may be out of date;
here it can only end growth, or spare a look down.

- The knee between two limits, lo and hi, is what Little's law gives for the throughput of hi at the latency
  of lo (BBR's bandwidth-delay product): lo·(hi ÷ lo)^e.
- Noise: a limit changes only where e differs from the threshold by more than its standard error.
- A limit that is not made use of shows nothing: such a round is dropped, and the limit stays as it was.
- Permits are paced at twice the rate that the settled limit needs, as BBR's are: growth by as much again
  takes a latency, and where a server has refused before, a probe's calls go out by 1, 2, 4, … a refusal's
  time apart. So the first refusal ends growth when few others are on their way.
- A refusal above the settled limit ends a probe and costs nothing else. One within it says that slots were
  lost: the limit is cut, once for all calls that were on their way, and climbs to what was served then. The
  next probe waits for `PROBE_CALLS` answers, or `SCARCE_CALLS` and a time: below one call in a hundred.
- Several clients of one full server each gain by more calls, at the others' expense, and would drive one
  another up for ever. `SLOWEST` ends that: no growth to more than so many times the lowest latency seen.
- While urgent calls come, the others leave them a few permits (`KEPT`): somebody waits for their answers,
  and the next call to end may be seconds away. A limit without those permits counts as made use of.

Every method may be called from any thread: all state is under one lock.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from prism_model_worker.rounds import (
    FILLED,
    ROUND_CALLS,
    Kind,
    Round,
    Sample,
    calls_for,
    change,
    elasticity,
    most_calls,
)

# Elasticity below which more calls at once are not worth their latency.
WORTH = 0.25
# Elasticity that counts as no queueing at all: the knee is further up.
FREE = 0.8
# Of a probe from a settled limit, up or down: large enough to see, small enough not to be felt.
STEP = 1.25
# Of a probe where the knee is far.
LEAP = 2.0
# Share of a call by which the knee may be missed.
ROUNDING = 0.02
# Change of ln(latency) at the same limit that is looked into.
DRIFT = 0.2
# Seconds and latencies between probes from a settled limit, up to twice as many.
REST_S, REST_TURNS = 4.0, 3
# Its multiples, modulo 1, are spread evenly and never repeat.
GOLDEN = 0.618034
# After so many probes up in vain, one looks down, unless ln(latency) is so near to the lowest ever.
DOWN_AFTER, UNQUEUED = 3, 0.1
# Answers before a server that refuses is probed again; fewer after a longer time.
PROBE_CALLS = 300
SCARCE_CALLS, SCARCE_S = 100, 25.0
# Share of the calls in flight that the server may have answered already.
ON_THE_WIRE = 0.02
# Share of the calls served at a refusal that is kept.
CUT = 0.8
# Longest pause that a refusal causes, and the first one of a server that refuses even a single call.
LONGEST_HOLD_S, FIRST_HOLD_S = 5.0, 0.25
# So long after its last refusal nobody knows any more whether a server takes a call.
STARVED_S = 30.0
# Pace, relative to what the settled limit needs; the longest gap, of which a refusal needs only a part.
PACE, LONGEST_GAP_S = 2.0, 0.25
# Share of the permits that is left to urgent calls until so long after the last; none of a few.
KEPT, KEPT_S, FEW = 1 / 16, 30.0, 8
# No growth to more than so many times the lowest latency: 1 ÷ WORTH, by X = C·L ÷ (L + K).
SLOWEST = 4.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one call: when it was given, how many ran with it, and the round that it counts for."""

    at: float
    rank: int
    round: int


class Pace:
    """Spaces permits: at most two at once, then one per gap (GCRA, ITU-T I.371)."""

    def __init__(self) -> None:
        self._next = -math.inf
        self._latency = 0.0

    def gap(self, settled: int) -> float:
        """Seconds between permits."""
        return min(LONGEST_GAP_S, self._latency / (PACE * settled))

    def wait(self, now: float, gap: float) -> float:
        """Seconds until the next permit."""
        return max(0.0, self._next - gap - now)

    def took(self, now: float, gap: float) -> None:
        """Note a permit."""
        self._next = max(self._next, now) + gap

    def ended(self, seconds: float) -> None:
        """Note a call's latency: quickly where it is lower, for a pace too slow would starve the server."""
        if not self._latency:
            self._latency = seconds
        elif seconds < self._latency:
            self._latency += (seconds - self._latency) / 4
        else:
            self._latency += (min(seconds, 2 * self._latency) - self._latency) / 32


class ConcurrencyLimit:
    """Permits for calls to one model server, as many at once as it has use for.

    clock: seconds, monotonic. cap: most calls at once whatever the server can take; None: no such bound.
    start: calls at once before anything is known.
    """

    def __init__(self, clock: Callable[[], float], cap: int | None = None, start: int = 4) -> None:
        self._clock = clock
        self._cap = cap
        self._lock = threading.Lock()
        self._pace = Pace()
        self._in_flight = 0
        self._settled = min(start, cap or start)
        self._limit = self._settled
        self._base: Sample | None = None
        self._floor: Sample | None = None
        self._last: Sample | None = None
        # Next is a probe up by this factor, or down to this share; with neither, a rest.
        self._growth: float | None = LEAP
        self._suspicion: float | None = None
        # Whether every limit so far may have been beyond the knee.
        self._unproven = True
        # Served when a call was refused: not to be exceeded before the next probe is due.
        self._ceiling: int | None = None
        self._vain_probes = 0
        self._probed_at = 0.0
        self._refused_at = -math.inf
        self._answers = 0
        self._cut_at, self._cut_from = -math.inf, 0
        self._hold_s = 0.0
        self._hold_until = -math.inf
        # Of a server that refuses: how long that takes, and how many calls of a probe may go out meanwhile.
        self._refusal_s = 0.0
        self._scouts = self._settled
        self._scouted_at = math.inf
        self._timeouts = 0
        self._urgent_at = -math.inf
        self._seen_at = clock()
        self._round = Round(1, Kind.REST, self._limit, max(ROUND_CALLS, self._limit), self._seen_at)

    @property
    def limit(self) -> int:
        """Calls allowed at once now, a probe's included as far as they are let out."""
        return min(self._limit, self._settled + self._scouts)

    @property
    def in_flight(self) -> int:
        """Calls that hold a permit."""
        return self._in_flight

    @property
    def starved(self) -> bool:
        """Whether the server refuses even a single call, as far as was tried lately.

        Who left because of it has nothing to try with: after a while it is worth coming back.
        """
        return self._hold_s > 0 and self._clock() < self._refused_at + STARVED_S

    def try_acquire(self, urgent: bool = False) -> Permit | None:
        """Return a permit if one is free now; it must be handed back to `answered`, `refused` or `failed`."""
        with self._lock:
            now = self._pass_time()
            if urgent:
                self._urgent_at = now
            if self._wait_s(now, urgent) != 0.0:
                return None
            self._in_flight += 1
            self._pace.took(now, self._pace.gap(self._settled))
            if self._in_flight >= self._settled + self._scouts and self._scouted_at == math.inf:
                self._scouted_at = now + 2 * self._refusal_s
            return Permit(now, self._in_flight, self._join_round(now))

    def wait_hint_s(self, urgent: bool = False) -> float | None:
        """Seconds until a permit may be free by time alone, 0 for now; None: only when a call ends."""
        with self._lock:
            return self._wait_s(self._clock(), urgent)

    def answered(self, permit: Permit, work: float = 1.0) -> None:
        """Note a call that ended well. work: what its latency may grow with, such as its rows."""
        with self._lock:
            now = self._pass_time()
            seconds = now - permit.at
            self._pace.ended(seconds)
            self._answers += 1
            self._timeouts, self._hold_s = 0, 0.0
            if permit.round == self._round.number:
                self._round.sample.add(seconds, work)
            self._release(permit, now)

    def refused(self, permit: Permit, retry_after_s: float | None = None) -> None:
        """Note a call that the server did not take (429, 503). retry_after_s: as the server asks."""
        with self._lock:
            now = self._pass_time()
            self._refused_at, self._answers = now, 0
            self._refusal_s = max(now - permit.at, self._refusal_s / 2)
            self._release(permit, now)
            served = permit.rank - 1
            if permit.at < self._cut_at:
                self._settle_at_most(served, now)
            elif permit.rank > self._settled:
                self._end_probe(served, now)
            else:
                self._lose(served, retry_after_s or 0.0, now)

    def failed(self, permit: Permit, timed_out: bool = False) -> None:
        """Note a call that ended otherwise. It says nothing, unless a whole limit of them ran out of time."""
        with self._lock:
            now = self._pass_time()
            self._release(permit, now)
            self._timeouts += timed_out
            if self._timeouts >= max(ROUND_CALLS, self._limit):
                self._timeouts = 0
                self._cut(math.floor(self._settled / LEAP), None, now)

    # Time and permits

    def _pass_time(self) -> float:
        now = self._clock()
        if self._round.collecting:
            self._round.sample.area += self._in_flight * (now - self._seen_at)
            self._round.sample.span += now - self._seen_at
        self._seen_at = now
        if now >= self._scouted_at:
            self._scouts, self._scouted_at = 2 * self._scouts, math.inf
        return now

    def _kept(self, now: float) -> int:
        """Permits that only urgent calls may have."""
        urged = now - self._urgent_at < KEPT_S
        return math.ceil(KEPT * self._limit) if urged and self._limit >= FEW else 0

    def _wait_s(self, now: float, urgent: bool) -> float | None:
        if self._in_flight >= self._limit - (0 if urgent else self._kept(now)):
            return None
        scouting_s = self._scouted_at - now if self._in_flight >= self._settled + self._scouts else 0.0
        # The pace is for those that stand in line; they make up for one that does not.
        pacing_s = 0.0 if urgent else self._pace.wait(now, self._pace.gap(self._settled))
        return max(0.0, self._hold_until - now, scouting_s, pacing_s)

    def _join_round(self, now: float) -> int:
        """Count a call that begins; return the number of the round that it belongs to, 0 for none."""
        current = self._round
        if FILLED * (current.target - self._kept(now)) <= self._in_flight <= current.target:
            current.opened = True
        if not current.collecting:
            return 0
        current.started += 1
        current.open += 1
        if current.kind is Kind.DOWN and not current.collecting:
            # Its calls are on their way: no need to leave slots idle until they end.
            self._limit = self._settled
        return current.number

    def _release(self, permit: Permit, now: float) -> None:
        self._in_flight -= 1
        current = self._round
        if permit.round == current.number:
            current.open -= 1
        if current.complete:
            self._judge(current, now)
        elif current.kind is not Kind.REST and not current.opened and self._overdue(current, now):
            self._abandon(now)

    def _overdue(self, current: Round, now: float) -> bool:
        return self._base is not None and now - current.begun > 1 + 3 * self._base.mean_seconds

    # Verdicts

    def _judge(self, current: Round, now: float) -> None:
        base, sample = self._base, current.sample
        if not current.telling(self._kept(now)) or (base is not None and not self._moved(current, base)):
            self._abandon(now)
            return
        if base is None:
            self._base = sample
        elif current.kind is Kind.REST:
            self._compare(base, sample)
        elif self._unclear(current, base):
            current.wanted *= 2
            return
        elif current.kind is Kind.UP:
            self._tried_more(current.target, base, sample)
        else:
            self._tried_less(current.target, base, sample)
        if current.kind is Kind.REST:
            self._note_floor(sample)
        else:
            self._probed_at = now
        self._plan(now)

    def _abandon(self, now: float) -> None:
        """End a round that tells nothing, because too few calls were made."""
        if self._round.kind is not Kind.REST:
            self._growth = self._suspicion = None
            self._vain_probes = 0
            self._probed_at = now
        self._begin(Kind.REST, self._settled, now)

    def _moved(self, current: Round, base: Sample) -> bool:
        """Whether a probe had at least half of the effect on the calls in flight that it was to have."""
        if current.kind is Kind.REST:
            return True
        had = math.log(current.sample.in_flight / base.in_flight)
        return had / math.log(current.target / self._settled) >= 0.5

    def _unclear(self, current: Round, base: Sample) -> bool:
        """Whether a probe up, which costs little, should take in more calls."""
        if current.kind is Kind.DOWN or current.wanted >= most_calls(current.target):
            return False
        e, error = elasticity(base, current.sample)
        return abs(e - WORTH) <= error

    def _compare(self, base: Sample, sample: Sample) -> None:
        """Look at a round at the settled limit beside those before it."""
        drift, error = change(base, sample)
        if abs(drift) <= DRIFT + 2 * error:
            base.merge(sample, most_calls(self._settled))
            return
        # Measured again before it is acted upon: this round may have seen both states.
        self._base = None
        if drift > 0:
            self._suspicion = max(1 / LEAP, math.exp(-drift))
        else:
            self._growth = STEP

    def _tried_more(self, target: int, base: Sample, sample: Sample) -> None:
        e, error = elasticity(base, sample)
        gained, free = e - error > WORTH, e + error >= FREE
        worth = gained and not self._too_slow(sample)
        if worth and free:
            self._settled, self._base = target, sample
        elif worth or self._growth is not None:
            self._settle(self._settled, target, e)
        if not gained and self._unproven:
            self._suspicion = 1 / LEAP
        self._unproven = False
        self._vain_probes = 0 if gained else self._vain_probes + 1
        self._growth = None if not worth else LEAP if free else STEP

    def _tried_less(self, target: int, base: Sample, sample: Sample) -> None:
        e, error = elasticity(sample, base)
        self._vain_probes = 0
        before = self._settled
        if e + error < FREE:
            self._settle(target, before, e)
        again = e + error < WORTH and self._settled < before and not self._unqueued(sample)
        self._suspicion = 1 / STEP if again else None

    def _settle(self, low: int, high: int, e: float) -> None:
        """Settle at the knee between two limits."""
        knee = math.ceil(low * (high / low) ** min(1.0, max(0.0, e)) - ROUNDING)
        if knee != self._settled:
            self._settled, self._base = knee, None

    def _too_slow(self, sample: Sample) -> bool:
        return self._floor is not None and change(self._floor, sample)[0] > math.log(SLOWEST)

    def _unqueued(self, sample: Sample) -> bool:
        """Whether calls took hardly longer than ever: there is no queue to look for further down."""
        return self._floor is not None and change(self._floor, sample)[0] <= UNQUEUED

    def _note_floor(self, sample: Sample) -> None:
        """Remember the lowest latency, and forget it where all of a sudden calls take much longer."""
        last, self._last = self._last, replace(sample)
        if self._floor is None or last is None or change(self._floor, sample)[0] < 0:
            self._floor = self._last
            return
        grown = max(0.0, math.log(sample.in_flight / last.in_flight))
        if change(last, sample)[0] > math.log(LEAP) + grown:
            # No crowd gathers so fast: these are other calls, or another model.
            self._floor = self._last

    # Refusals

    def _end_probe(self, served: int, now: float) -> None:
        """Settle at what was served when a call above the settled limit was refused."""
        served = min(served, self._limit)
        if served > self._settled * (1 + 2 * ON_THE_WIRE):
            self._settled, self._base = math.ceil(served * (1 - ON_THE_WIRE)), None
        self._ceiling = max(served, self._settled)
        self._cut_from, self._cut_at = served, now
        self._growth = self._suspicion = None
        self._unproven = False
        self._plan(now)

    def _lose(self, served: int, retry_after_s: float, now: float) -> None:
        """Give way to a refusal within the settled limit."""
        self._hold_s = 0.0 if served else max(FIRST_HOLD_S, min(LONGEST_HOLD_S, 2 * self._hold_s))
        self._hold_until = now + max(self._hold_s, min(LONGEST_HOLD_S, retry_after_s))
        # Nothing served: that says when, not how many.
        self._ceiling = served or None
        self._cut(math.floor(CUT * served), LEAP, now)

    def _settle_at_most(self, served: int, now: float) -> None:
        """Learn from the calls that were on their way at a refusal; all of them halve the limit at most."""
        served = max(1, served, math.ceil(self._cut_from / LEAP))
        if served < self._settled:
            self._settled, self._base, self._ceiling = served, None, served
            self._plan(now)

    def _cut(self, limit: int, growth: float | None, now: float) -> None:
        self._cut_from, self._cut_at = self._settled, now
        self._settled, self._base = max(1, limit), None
        self._growth, self._suspicion = growth, None
        self._unproven = False
        self._plan(now)

    # What comes next

    def _plan(self, now: float) -> None:
        kind, target = Kind.REST, self._settled
        if self._base is not None:
            kind, target = self._next_probe(now, self._base)
            if target == self._settled:
                # At rest, or no room, up or down.
                kind, self._growth, self._suspicion = Kind.REST, None, None
            elif self._base.n < calls_for(self._base, target / self._settled, self._settled):
                kind, target = Kind.REST, self._settled
        self._begin(kind, target, now)

    def _next_probe(self, now: float, base: Sample) -> tuple[Kind, int]:
        if self._suspicion is not None:
            return Kind.DOWN, max(1, math.floor(self._settled * self._suspicion))
        if self._growth is not None:
            return Kind.UP, min(self._above(self._growth), self._ceiling or self._above(self._growth))
        if not self._probe_due(now, base):
            return Kind.REST, self._settled
        if self._ceiling is not None:
            # A server that refuses ends a probe itself.
            return Kind.UP, self._above(LEAP)
        if self._vain_probes >= DOWN_AFTER and self._settled > 1 and not self._unqueued(base):
            return Kind.DOWN, math.floor(self._settled / STEP)
        return Kind.UP, self._above(STEP)

    def _above(self, factor: float) -> int:
        """Return a limit so much higher, for a small one at least by two: noise hides the effect of one."""
        higher = max(math.ceil(self._settled * factor), self._settled + min(2, math.ceil(self._settled / 2)))
        return min(higher, self._cap or higher)

    def _probe_due(self, now: float, base: Sample) -> bool:
        if self._ceiling is None:
            # Never in step with another client of the server.
            uneven = 1 + self._round.number * GOLDEN % 1
            return now - self._probed_at >= uneven * max(REST_S, REST_TURNS * base.mean_seconds)
        since = now - self._refused_at
        plenty = self._answers >= PROBE_CALLS and since >= REST_S
        return plenty or (self._answers >= SCARCE_CALLS and since >= SCARCE_S)

    def _begin(self, kind: Kind, target: int, now: float) -> None:
        wanted = max(ROUND_CALLS, target)
        if self._base is not None:
            factor = STEP if kind is Kind.REST else target / self._settled
            # Half of it at rest, to see a change soon, and below, where slots may lie idle.
            share = 1.0 if kind is Kind.UP else 0.5
            wanted = max(wanted, math.ceil(share * calls_for(self._base, factor, target)))
        if self._ceiling is not None and target > self._ceiling:
            self._ceiling = None
        self._round = Round(self._round.number + 1, kind, target, wanted, now)
        self._limit = target
        self._scouts = 1 if self._refusal_s else target
        self._scouted_at = math.inf
