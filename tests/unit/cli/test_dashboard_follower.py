"""Following a run in a thread, and orders from the keys: nothing that fails there is lost or fatal."""

import threading
from pathlib import Path

import pytest

from prism.kafka.errors import BrokerAway, BrokerFatal
from prism.messages import CommandName, RunState
from prism_cli.board import RunView, WorkerView
from prism_cli.connection import Connection
from prism_cli.dashboard.follower import Follower, TimedOut
from prism_cli.dashboard.orders import Orders
from prism_cli.dashboard.picture import Picture
from prism_cli.exits import BROKER_AWAY, CommandFailed
from tests.unit.cli.views import nowhere, run_view, worker_view

WAIT_S = 10.0


class FakeBoard:
    """A board whose run takes its course with each poll; the last view stays."""

    def __init__(self, *course: RunView | None, refusals: int = 0) -> None:
        self.connection: Connection = nowhere(Path("data"))
        self.away = False
        self.refreshed = 0
        self.polled = 0
        self._course = list(course)
        self._refusals = refusals

    def poll(self, timeout_s: float) -> int:
        self.polled += 1
        if len(self._course) > 1:
            self._course.pop(0)
        # A real poll waits: without it the test would only spin faster.
        threading.Event().wait(min(timeout_s, 0.005))
        return 1

    def run(self, _run_id: str) -> RunView | None:
        return self._course[0]

    def workers(self) -> list[WorkerView]:
        return [worker_view()]

    def refresh(self, _timeout_s: float) -> None:
        self.refreshed += 1
        if self.refreshed <= self._refusals:
            raise BrokerAway("gone") if self.refreshed % 2 else CommandFailed(BROKER_AWAY, "slow")


class Shown:
    """Collects pictures; its follower is not started by itself."""

    def __init__(self, board: FakeBoard, timeout_s: float | None = None) -> None:
        self.pictures: list[Picture] = []
        self.ended = threading.Event()
        self.seen = threading.Event()
        self.follower = Follower(board, "t1", self._take, self.ended.set, timeout_s)  # type: ignore[arg-type]

    def _take(self, picture: Picture) -> None:
        self.pictures.append(picture)
        self.seen.set()

    def to_the_end(self) -> "Shown":
        self.follower.start()
        assert self.ended.wait(WAIT_S)
        self.follower.join(WAIT_S)
        return self


def often(*views: RunView, times: int = 20) -> list[RunView]:
    return [view for view in views for _ in range(times)]


def test_it_ends_with_the_run_and_what_was_said_last() -> None:
    board = FakeBoard(None, run_view(), run_view(RunState.COMPLETED, rows_ok=10))
    shown = Shown(board).to_the_end()
    assert shown.follower.failure is None
    assert shown.follower.view is not None
    assert shown.follower.view.rows_done == 10
    assert board.refreshed == 1
    assert [one.text for one in shown.pictures[-1].events] == ["the run is completed", "the run is running"]


def test_states_are_drawn_at_once_and_numbers_as_often_as_the_job_says() -> None:
    job = {"monitoring": {"dashboard_refresh": 3600}}
    course = [
        *(run_view(rows_ok=at, record_job=job) for at in range(50)),
        run_view(RunState.PAUSED, rows_ok=50, record_job=job),
        *often(run_view(rows_ok=51, record_job=job)),
        run_view(RunState.COMPLETED, rows_ok=52, record_job=job),
    ]
    shown = Shown(FakeBoard(*course)).to_the_end()
    drawn = [(one.view.state.value, one.view.rows_done) for one in shown.pictures if one.view]
    assert drawn == [("running", 0), ("paused", 50), ("running", 51), ("completed", 52)]


def test_a_broker_that_is_away_at_the_end_is_waited_for() -> None:
    board = FakeBoard(run_view(RunState.COMPLETED, rows_ok=10), refusals=3)
    shown = Shown(board).to_the_end()
    assert board.refreshed == 4
    assert shown.follower.failure is None


def test_a_picture_says_that_the_broker_is_away() -> None:
    board = FakeBoard(run_view())
    board.away = True
    shown = Shown(board)
    shown.follower.start()
    assert shown.seen.wait(WAIT_S)
    shown.follower.leave()
    assert shown.ended.wait(WAIT_S)
    assert shown.pictures[0].away_s is not None
    assert shown.pictures[0].unsure


def test_leaving_is_no_failure_and_the_time_is_one() -> None:
    left = Shown(FakeBoard(run_view()))
    left.follower.leave()
    assert left.to_the_end().follower.failure is None
    late = Shown(FakeBoard(run_view()), timeout_s=0.01).to_the_end()
    assert isinstance(late.follower.failure, TimedOut)


def test_a_client_that_cannot_go_on_ends_it() -> None:
    board = FakeBoard(run_view())

    def break_down(timeout_s: float) -> int:
        raise BrokerFatal("fenced")

    board.poll = break_down  # type: ignore[method-assign]
    shown = Shown(board).to_the_end()
    assert isinstance(shown.follower.failure, BrokerFatal)


class Sender:
    """Sends nothing; fails if told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.sent: list[tuple[str, CommandName]] = []
        self.done = threading.Event()
        self._failure = failure

    def __call__(self, _connection: Connection, run_id: str, wanted: CommandName) -> None:
        self.sent.append((run_id, wanted))
        self.done.set()
        if self._failure is not None:
            raise self._failure


class Desk:
    """Orders with a clock in hand."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.now_s = 0.0
        self.sender = Sender(failure)
        self.orders = Orders(nowhere(Path("data")), "t1", self.sender, lambda: self.now_s)

    def give(self, command: CommandName) -> None:
        """Give an order and await its thread."""
        before = set(threading.enumerate())
        self.orders.give(command)
        for one in set(threading.enumerate()) - before:
            one.join(WAIT_S)
        assert self.sender.done.wait(WAIT_S)

    def notice(self, state: RunState, after_s: float = 0.0) -> str:
        """Look again."""
        self.now_s += after_s
        self.orders.take(run_view(state))
        return self.orders.notice


def test_an_order_is_sent_and_watched_until_it_takes_effect() -> None:
    desk = Desk()
    assert desk.notice(RunState.RUNNING) == ""
    desk.give(CommandName.PAUSE)
    assert desk.sender.sent == [("t1", CommandName.PAUSE)]
    assert desk.notice(RunState.RUNNING) == "asked to pause …"
    assert desk.notice(RunState.PAUSED) == ""
    desk.give(CommandName.RESUME)
    assert desk.notice(RunState.PAUSED, after_s=11.0).startswith(
        "asked to resume, no answer for 10 s; is an ing"
    )
    assert desk.notice(RunState.RUNNING) == ""


def test_an_order_that_comes_too_late_says_so_for_a_while() -> None:
    desk = Desk()
    desk.give(CommandName.CANCEL)
    assert desk.notice(RunState.COMPLETED) == "there is nothing to cancel: the run has ended"
    assert desk.notice(RunState.COMPLETED, after_s=7.0) == ""


@pytest.mark.parametrize("failure", [BrokerAway("no answer"), RuntimeError("no answer")])
def test_an_order_that_cannot_be_sent_says_why(failure: Exception) -> None:
    desk = Desk(failure)
    desk.give(CommandName.PAUSE)
    assert desk.notice(RunState.RUNNING) == "cannot pause: no answer"
