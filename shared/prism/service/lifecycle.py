"""The life of a service process: start, stop signal, drain, exit code.

Why it holds. The interpreter's C signal handler writes the signal's number into a pipe
(`signal.set_wakeup_fd`), whatever the main thread is doing; a daemon thread reads the pipe and does the
rest. So nothing runs inside a signal handler that could meet a lock which the interrupted code holds,
and a main thread that is stuck in a C call cannot delay a stop. The same thread is the watchdog: from the
first signal, or from a failure, the process has `DRAIN_S` seconds, then it is ended by `os._exit`, which
no stuck thread, `atexit` hook or lock can hold up.
"""

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from prism.service import logs, tracing
from prism.service.errors import FatalError

DRAIN_S = 30.0

EXIT_OK = 0
EXIT_FATAL = 1
EXIT_CRASHED = 70
EXIT_STUCK = 75
EXIT_FORCED = 130

log = logs.get_logger(__name__)


class StopSignal:
    """Asks a service to drain and end. Every method may be called from any thread."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, on_request: Callable[[], None] = lambda: None
    ) -> None:
        self._clock = clock
        self._on_request = on_request
        self._event = threading.Event()
        self._lock = threading.Lock()
        # Clock value of the first request; None before it.
        self.requested_at: float | None = None
        # The error of a thread that ended the service; None unless one did.
        self.failure: BaseException | None = None

    def request(self) -> None:
        """Ask to stop. Only the first call sets `requested_at`."""
        with self._lock:
            if self.requested_at is not None:
                return
            self.requested_at = self._clock()
        self._event.set()
        self._on_request()

    def fail(self, error: BaseException) -> None:
        """Ask to stop because of `error`, which decides the exit code; the first one counts."""
        with self._lock:
            if self.failure is None:
                self.failure = error
        self.request()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the request, at most `timeout_s` seconds; return whether it came."""
        return self._event.wait(timeout_s)

    def deadline(self, drain_s: float = DRAIN_S) -> float | None:
        """Return the clock value at which a drain of `drain_s` seconds ends; None before the request."""
        return None if self.requested_at is None else self.requested_at + drain_s

    def remaining(self, drain_s: float = DRAIN_S) -> float:
        """Return the seconds left of a drain of `drain_s`, never below 0; all of them before the request."""
        deadline = self.deadline(drain_s)
        return drain_s if deadline is None else max(0.0, deadline - self._clock())


def run_service(name: str, main: Callable[[StopSignal], None], drain_s: float = DRAIN_S) -> int:
    """Run `main(stop)` in the main thread of a service process and return its exit code.

    0 after a drain; 1 after a FatalError; 70 after an unexpected exception, in any thread; what SystemExit
    says. One line is logged for each. The process is ended with 75 when it does not end within `drain_s`
    seconds of the request or the failure, and with 130 on a second signal. To be called once, by the
    console script: `sys.exit(run_service("ingestor", main))`.
    """
    logs.configure(service=name, instance=str(os.getpid()))
    guard = _Guard(drain_s)
    guard.start()
    _no_tracebacks(guard.stop)
    code = _run(main, guard.stop)
    tracing.close(min(tracing.CLOSE_S, guard.stop.remaining(drain_s)))
    # A lingering thread must not keep an ended service alive.
    guard.arm()
    return code


def _run(main: Callable[[StopSignal], None], stop: StopSignal) -> int:
    try:
        main(stop)
    except SystemExit as error:
        return _exit_code(error)
    except BaseException as error:
        return _report(error)
    return EXIT_OK if stop.failure is None else _report(stop.failure)


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or EXIT_OK
    log.error("fatal", what=str(error.code))
    return EXIT_FATAL


def _report(error: BaseException) -> int:
    if isinstance(error, FatalError):
        log.error("fatal", what=error.what, where=error.where, next=error.next)
        return EXIT_FATAL
    log.error("crashed", error=error, at=place_of(error))
    return EXIT_CRASHED


def place_of(error: BaseException) -> str:
    """Return `package/file.py:line` where `error` was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unknown"
    return f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}"


def _no_tracebacks(stop: StopSignal) -> None:
    """Give what would end as a raw traceback on stderr its one line; a dead thread ends the service."""

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or isinstance(args.exc_value, SystemExit):
            return
        thread = args.thread.name if args.thread else "unknown"
        log.error("thread_died", thread=thread, error=args.exc_value, at=place_of(args.exc_value))
        stop.fail(args.exc_value)

    def in_finalizer(args: "sys.UnraisableHookArgs") -> None:
        log.error("error_in_finalizer", error=args.exc_value, object=repr(args.object))

    def outside(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        del kind, trace
        _report(error)

    threading.excepthook = in_thread
    sys.unraisablehook = in_finalizer
    sys.excepthook = outside


class _Guard:
    """The thread that hears signals and ends a process that does not end by itself."""

    def __init__(self, drain_s: float) -> None:
        self.stop = StopSignal(on_request=self.arm)
        self._drain_s = drain_s
        self._ends_at: float | None = None
        self._wakeups, self._writer = os.pipe()

    def start(self) -> None:
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Without a Python handler the default action would come first.
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def arm(self) -> None:
        """Start the countdown, if it does not run yet."""
        os.write(self._writer, b"\0")

    def _watch(self) -> None:
        heard = 0
        while True:
            readable, _, _ = select.select([self._wakeups], [], [], self._timeout())
            if not readable:
                self._end("drain_took_too_long", EXIT_STUCK)
            for number in os.read(self._wakeups, 64):
                heard += number in (signal.SIGTERM, signal.SIGINT)
                self._begin(number)
            if heard > 1:
                self._end("forced_exit", EXIT_FORCED)

    def _begin(self, number: int) -> None:
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self._drain_s
        if number in (signal.SIGTERM, signal.SIGINT) and not self.stop.is_set():
            log.info("stop_requested", signal=signal.Signals(number).name, drain_s=self._drain_s)
            self.stop.request()

    def _timeout(self) -> float | None:
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _end(self, action: str, code: int) -> None:
        # The line is tried for a second: a thread that hangs while it logs must not hold the exit up.
        line = threading.Thread(target=_last_words, args=(action,), daemon=True)
        line.start()
        line.join(1.0)
        os._exit(code)


def _last_words(action: str) -> None:
    if action == "forced_exit":
        log.error("forced_exit", reason="second signal")
    else:
        log.error("drain_took_too_long", threads=[thread.name for thread in threading.enumerate()])
