"""Pause, resume and cancel from the keys: sent by threads of their own, watched until they take effect."""

import threading
import time
from collections.abc import Callable

from prism.messages import CommandName
from prism_cli import control
from prism_cli.board import RunView
from prism_cli.connection import Connection

# An ingestor that is there obeys within a second; after this it is worth a word.
_EFFECT_S = 10.0
_SHOWN_S = 6.0

Send = Callable[[Connection, str, CommandName], None]


class Orders:
    """The last command and what came of it. `give` may be called by any thread, the rest by one."""

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        send: Send = control.send,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.notice = ""
        self._connection = connection
        self._run_id = run_id
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: CommandName | None = None
        self._failure = ""
        self._given_at = 0.0
        self._until: float | None = None

    def give(self, command: CommandName) -> None:
        """Send a command. What came of it is in `notice` after a later `take`."""
        with self._lock:
            self._wanted, self._failure, self._given_at = command, "", self._clock()
            self._until = None
        threading.Thread(target=self._deliver, args=(command,), name="order", daemon=True).start()

    def take(self, view: RunView | None) -> bool:
        """Look what the run makes of the last command; return whether `notice` has changed."""
        before = self.notice
        with self._lock:
            self.notice = self._judge(view)
        return self.notice != before

    def _judge(self, view: RunView | None) -> str:
        if self._wanted is None:
            return "" if self._until is None or self._clock() > self._until else self.notice
        if self._failure:
            return self._closed(f"cannot {self._wanted.value}: {self._failure}")
        if view is not None and control.obeyed(self._wanted, view.state):
            return self._closed("")
        if view is not None and view.ended:
            return self._closed(f"there is nothing to {self._wanted.value}: the run has ended")
        if self._clock() - self._given_at > _EFFECT_S:
            return (
                f"asked to {self._wanted.value}, no answer for {_EFFECT_S:.0f} s; is an ingestor running? "
                "prism doctor"
            )
        return f"asked to {self._wanted.value} …"

    def _closed(self, notice: str) -> str:
        self._wanted = None
        self._until = self._clock() + _SHOWN_S
        return notice

    def _deliver(self, command: CommandName) -> None:
        try:
            self._send(self._connection, self._run_id, command)
        except Exception as error:  # whatever it is, the person at the keys is told
            with self._lock:
                if self._wanted is command:
                    self._failure = str(error) or type(error).__name__
