"""A fleet that a run brought up goes down by itself: once no run is under way, and nobody looks on.

Whoever looks on holds a lock of the data folder (shared among all of them): the kernel frees it however
they die. So a fleet goes on when its command is gone, and stays while somebody is asked what to do next.
Whoever takes it down holds the lock alone until it is down: a command that comes meanwhile waits, and then
finds that there is none, and not one whose broker is gone in the next moment.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prism.kafka.errors import BrokerAway
from prism.messages import RunState
from prism_cli.board import Board, RunView
from prism_cli.connection import Connection
from prism_cli.console import printable, say
from prism_cli.exits import BAD_INPUT, CommandFailed

CLIENTS = "clients.lock"
# Summary and report follow the output.
REPORTS_S = 60.0
_LOOK_S = 0.5
# Whoever looks whether somebody looks on holds the lock for a moment himself.
_TRIES = 4
_PAUSE_S = 0.05


@contextmanager
def looking_on(data_dir: Path) -> Iterator[None]:
    """Keep a fleet up that would go down by itself; one that goes down already is waited for.

    Raises CommandFailed (3) for a folder that cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = _opened(data_dir)
    except OSError as error:
        raise CommandFailed(
            BAD_INPUT, f"cannot write: {error.strerror}", str(data_dir), "choose another --data-dir"
        ) from None
    try:
        if not _locked(descriptor, fcntl.LOCK_SH):
            say(f"waiting for the fleet in {printable(str(data_dir))} to be down …")
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(data_dir: Path) -> Iterator[bool]:
    """Yield whether nobody looks on; if so, nobody can begin to before this ends."""
    try:
        descriptor = _opened(data_dir)
    except OSError:  # then nobody can look on
        yield True
        return
    try:
        yield _locked(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _opened(data_dir: Path) -> int:
    return os.open(data_dir / CLIENTS, os.O_RDWR | os.O_CREAT, 0o644)


def _locked(descriptor: int, kind: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(_PAUSE_S)
    return False


class IdleWatch:
    """The thread that asks a fleet to stop once it has been idle for `idle_s` seconds."""

    def __init__(self, connection: Connection, idle_s: float, on_idle: Callable[[], None]) -> None:
        self._connection = connection
        self._idle_s = idle_s
        self._on_idle = on_idle
        # Runs that were seen under way, and when they were seen to have ended.
        self._seen: dict[str, float | None] = {}
        threading.Thread(target=self._watch, name="idle-watch", daemon=True).start()

    def _watch(self) -> None:
        while True:
            if not self._has_become_idle():
                continue
            with alone(self._connection.data_dir) as nobody:
                if nobody:
                    self._on_idle()
                    threading.Event().wait()  # held until this process has ended

    def _has_become_idle(self) -> bool:
        board = Board(self._connection)
        try:
            board.catch_up()
            self._wait(board)
            return True
        except (BrokerAway, CommandFailed):
            # The keeper brings the broker back; what was idle until then has to be looked at anew.
            time.sleep(_LOOK_S)
            return False
        finally:
            board.close()

    def _wait(self, board: Board) -> None:
        since = time.monotonic()
        while time.monotonic() - since < self._idle_s:
            if self._busy(board):
                since = time.monotonic()
            board.poll(_LOOK_S)

    def _busy(self, board: Board) -> bool:
        return any(self._under_way(one) for one in board.runs()) or self._somebody_looks_on()

    def _somebody_looks_on(self) -> bool:
        with alone(self._connection.data_dir) as nobody:
            return not nobody

    def _under_way(self, view: RunView) -> bool:
        if not view.ended:
            self._seen[view.run_id] = None
            return True
        if view.run_id not in self._seen or reported(view):
            return False
        ended = self._seen[view.run_id] or time.monotonic()
        self._seen[view.run_id] = ended
        return time.monotonic() - ended < REPORTS_S


def reported(view: RunView) -> bool:
    """Return whether what is written about an ended run is there, or will not come."""
    return view.progress.reports is not None or view.state is RunState.REFUSED
