"""Follows a run in a thread of its own: reads the topics all the time, hands over a picture now and then.

From `start` to the end of the thread the board belongs to it alone (a Kafka consumer is of one thread), and
so does the history; others only give orders, and read the outcome after `join`. Pictures are immutable.
Numbers are handed over each `refresh_s`, what happens is handed over at once.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from prism.kafka.errors import BrokerAway
from prism.messages import CommandName
from prism_cli.board import Board, RunView
from prism_cli.dashboard.history import History, Look
from prism_cli.dashboard.orders import Orders
from prism_cli.dashboard.picture import Picture, refresh_of
from prism_cli.exits import BROKER_AWAY, CommandFailed

_POLL_S = 0.2
# To read what came with the end: the counts and the outputs.
_LAST_WORDS_S = 5.0


class TimedOut(Exception):
    """The run has not ended within the time that somebody gave it."""


class Follower(threading.Thread):
    """Reads until the run has ended, the time is over, somebody leaves, or the client cannot go on.

    :param show: called in this thread with each picture.
    :param ended: called in this thread, once, at the end. `last` is the last picture then, and `failure` why
        there is nothing more to follow although the run goes on; None when it has ended or somebody left.
    """

    def __init__(
        self,
        board: Board,
        run_id: str,
        show: Callable[[Picture], None],
        ended: Callable[[], None],
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(name="follower", daemon=True)
        self.last: Picture | None = None
        self.failure: BaseException | None = None
        self._board = board
        self._run_id = run_id
        self._show = show
        self._ended = ended
        self._timeout_s = timeout_s
        self._history = History()
        self._orders = Orders(board.connection, run_id)
        self._left = threading.Event()
        self._drawn_at = float("-inf")
        self._heard_at = time.monotonic()

    def order(self, command: CommandName) -> None:
        """Ask for a command on the run. From any thread."""
        self._orders.give(command)

    def leave(self) -> None:
        """Ask the thread to end; the run goes on. From any thread."""
        self._left.set()

    @property
    def view(self) -> RunView | None:
        """The run as it was last seen."""
        return self.last.view if self.last else None

    def run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # whoever joins raises it again, in the thread that can tell a person
            self.failure = error
        finally:
            self._ended()

    def _follow(self) -> None:
        started = time.monotonic()
        while not self._left.is_set():
            if self._look():
                return
            if self._timeout_s is not None and time.monotonic() - started > self._timeout_s:
                raise TimedOut
            if self._board.poll(_POLL_S):
                self._heard_at = time.monotonic()

    def _look(self) -> bool:
        """Hand over what there is to see; return whether the run has ended."""
        view = self._board.run(self._run_id)
        ended = view is not None and view.ended and self._complete()
        if ended:
            view = self._board.run(self._run_id) or view
        at = time.monotonic()
        workers, quiet_s = tuple(self._board.workers()), at - self._heard_at
        look = Look(datetime.now(UTC), at, view, workers, quiet_s, self._board.away)
        news = self._history.take(look) | self._orders.take(view)
        if news or ended or at - self._drawn_at >= refresh_of(view):
            self._drawn_at = at
            self.last = self._picture(look)
            self._show(self.last)
        return ended

    def _complete(self) -> bool:
        """Read all that was said until now; return False while the broker cannot be asked."""
        if self._board.away:
            return False
        try:
            self._board.refresh(_LAST_WORDS_S)
        except BrokerAway:
            return False
        except CommandFailed as error:
            if error.code != BROKER_AWAY:
                raise
            return False
        return True

    def _picture(self, look: Look) -> Picture:
        history = self._history
        return Picture(
            run_id=self._run_id,
            view=look.view,
            now=look.at,
            workers=look.workers,
            events=history.newest_first(),
            rates=tuple(history.rates),
            away_s=history.away_s(look.at_s),
            unsure=look.unsure,
            merger_silent_s=history.merger_silent_s,
            folder=self._board.connection.data_dir,
            notice=self._orders.notice,
        )
