"""A fleet that a run brought up goes down by itself: once no run is under way, and nobody looks on.

Whoever looks on holds a lock of the data folder (shared among all of them): the kernel frees it however
they die. So a fleet goes on when its command is gone, and stays while somebody is asked what to do next.
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
from prism_cli.exits import CommandFailed

CLIENTS = "clients.lock"
# Summary and report follow the output.
REPORTS_S = 60.0
_LOOK_S = 0.5


@contextmanager
def looking_on(data_dir: Path) -> Iterator[None]:
    """Keep a fleet up that would go down by itself."""
    data_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_dir / CLIENTS, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def somebody_looks_on(data_dir: Path) -> bool:
    """Return whether a command holds the fleet of this folder."""
    try:
        descriptor = os.open(data_dir / CLIENTS, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
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
            board = Board(self._connection)
            try:
                board.catch_up()
                self._wait(board)
                return
            except (BrokerAway, CommandFailed):
                # The keeper brings the broker back; what was idle until then has to be looked at anew.
                time.sleep(_LOOK_S)
            finally:
                board.close()

    def _wait(self, board: Board) -> None:
        since = time.monotonic()
        while time.monotonic() - since < self._idle_s:
            if self._busy(board):
                since = time.monotonic()
            board.poll(_LOOK_S)
        self._on_idle()

    def _busy(self, board: Board) -> bool:
        data_dir = self._connection.data_dir
        return any(self._under_way(one) for one in board.runs()) or somebody_looks_on(data_dir)

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
