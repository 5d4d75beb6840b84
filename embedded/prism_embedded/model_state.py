"""What the model server is set to do, what it has done, and who is being served.

All of it belongs to the event loop's thread; nothing here is locked.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from prism_embedded.errors import EmbeddedError
from prism_embedded.faults import FaultPlan, draw, parse_faults


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The server's settings; `POST /prism/control` changes them while it runs.

    :param latency_ms: of each call.
    :param jitter_ms: up to so much more, drawn from seed and content.
    :param latency_per_row_ms: so much more per row of the call.
    :param slots: calls served at once; 0: no limit.
    :param queue: calls that may wait for a slot; more are refused with 503 (Ollama's default: 512).
    :param faults: see `faults`.
    :param seed: of faults and jitter.
    :param down: every call's connection is closed without an answer.
    :param count_rows: whether the statistics count how often each row was asked about.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    latency_per_row_ms: float = 0.0
    slots: int = 0
    queue: int = 512
    faults: str = ""
    seed: int = 0
    down: bool = False
    count_rows: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting.name, getattr(self, setting.name), type(setting.default))
        parse_faults(self.faults)

    def changed(self, changes: Mapping[str, Any]) -> "Behaviour":
        """These settings with some changed.

        :raises EmbeddedError: an unknown setting, or a value that is not allowed.
        """
        known = {setting.name for setting in fields(self)}
        unknown = ", ".join(sorted(changes.keys() - known))
        if unknown:
            raise EmbeddedError(f"unknown setting {unknown}; known are {', '.join(sorted(known))}, reset")
        return replace(self, **changes)

    @property
    def plan(self) -> FaultPlan:
        """The faults as they are drawn."""
        return parse_faults(self.faults, self.seed)

    def delay_s(self, rows: int, content: str, before: int) -> float:
        """How long a call takes, in seconds."""
        jitter = self.jitter_ms * draw(self.seed, "jitter", content, before) if self.jitter_ms else 0.0
        return (self.latency_ms + jitter + self.latency_per_row_ms * rows) / 1000


def _check(name: str, value: Any, kind: type) -> None:
    given = type(value)
    if given is not kind and not (kind is float and given is int):
        raise EmbeddedError(f"{name} must be a {kind.__name__}, not {value!r}")
    if kind in (int, float) and name != "seed" and not 0 <= value < float("inf"):
        raise EmbeddedError(f"{name} must not be negative or infinite, but is {value!r}")


@dataclass(slots=True)
class Stats:
    """Counts since the start or the last reset."""

    calls: int = 0
    completed: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    rows: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    calls_by_rows: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a call as in flight."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1

    def as_dict(self) -> dict[str, Any]:
        """All of them, for JSON (`dataclasses.asdict` of Python 3.11 breaks a Counter)."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def reset(self) -> None:
        """Everything to zero, but for what is in flight."""
        self.calls = self.completed = self.rows = 0
        self.max_in_flight = self.in_flight
        self.by_fault.clear()
        self.calls_by_rows.clear()


class Busy(Exception):
    """The queue for a slot is full."""


class Slots:
    """So many calls at once, the others wait in order; both numbers may change at any time.

    A call that waited begins when the one before it was due, not when this process got round to it: the
    capacity is exactly slots ÷ latency, whatever the answering costs.
    """

    def __init__(self) -> None:
        self._limit = 0
        self._queue = 0
        self._used = 0
        self._waiting: deque[asyncio.Future[float]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._waiting)

    def set(self, limit: int, queue: int) -> None:
        """Change how many are served and how many may wait; `limit` 0 serves all."""
        self._limit, self._queue = limit, queue
        self._wake(0.0)

    async def take(self) -> float:
        """Wait for a slot; return the loop's time at which the call begins in it.

        :raises Busy: too many wait already.
        """
        if self._free() and not self._waiting:
            self._used += 1
            return asyncio.get_running_loop().time()
        if len(self._waiting) >= self._queue:
            raise Busy
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        asked_at = asyncio.get_running_loop().time()
        try:
            return max(asked_at, await turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(asyncio.get_running_loop().time())
            else:
                self._waiting.remove(turn)
            raise

    def give_back(self, due: float) -> None:
        """Free a slot that was taken by a call that was due to end at that time of the loop."""
        self._used -= 1
        self._wake(due)

    def _free(self) -> bool:
        return self._limit == 0 or self._used < self._limit

    def _wake(self, begins: float) -> None:
        while self._waiting and self._free():
            turn = self._waiting.popleft()
            if not turn.done():
                self._used += 1
                turn.set_result(begins)
