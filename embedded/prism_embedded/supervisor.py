"""Keeps a child process up: started again when it dies, until it dies too often or a signal ends it.

The first SIGTERM or SIGINT raises `_Stopped` in the main thread, wherever it is (a start may take a minute),
and both are ignored from then on, so that nothing interrupts the stop, which is bounded in time.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from prism_embedded.errors import EmbeddedError

EXIT_FAILED = 4  # the CLI's code for "broker unreachable"
MAX_DEATHS = 3
DEATHS_WINDOW_S = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Child(Protocol):
    """What is supervised."""

    @property
    def bootstrap(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self) -> int | None: ...


class DeathBudget:
    """Whether a child that died may be started again.

    :param clock: seconds, monotonic.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        deaths: int = MAX_DEATHS,
        window_s: float = DEATHS_WINDOW_S,
    ) -> None:
        self._clock = clock
        self._window_s = window_s
        self._times: deque[float] = deque(maxlen=deaths)

    def spend(self) -> bool:
        """Count a death; False when it was the last one allowed within the window."""
        self._times.append(self._clock())
        full = len(self._times) == self._times.maxlen
        return not (full and self._times[-1] - self._times[0] <= self._window_s)


class _Stopped(BaseException):
    """A signal asked for the end."""


def supervise(child: Child, out: TextIO, err: TextIO, budget: DeathBudget | None = None) -> int:
    """Run the child until SIGTERM or SIGINT; the exit status for the command. For the main thread.

    Prints `ready HOST:PORT` on `out` after the first start, one line on `err` per restart.

    :raises EmbeddedError: the first start failed.
    """
    with _signals_stop():
        try:
            child.start()
            print(f"ready {child.bootstrap}", file=out, flush=True)
            return _keep_up(child, budget or DeathBudget(), err)
        except _Stopped:
            return 0
        finally:
            child.stop()


def _keep_up(child: Child, budget: DeathBudget, err: TextIO) -> int:
    event = f"ended with status {child.wait()}"
    while budget.spend():
        _say(err, f"the broker {event}; starting it again")
        try:
            child.start()
            event = f"ended with status {child.wait()}"
        except EmbeddedError as error:
            event = f"did not start again ({error})"
    _say(err, f"the broker {event}, {MAX_DEATHS} times within {DEATHS_WINDOW_S:.0f} s: given up")
    return EXIT_FAILED


def _say(err: TextIO, text: str) -> None:
    err.write(f"prism-embedded-broker: {text}\n")
    err.flush()


@contextmanager
def _signals_stop() -> Iterator[None]:
    def stop(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
