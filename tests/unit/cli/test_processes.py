"""Keepers and their patience: what died is started again, what cannot live is not, a stop is for good."""

import threading
from queue import Empty

import pytest

from prism_cli.processes import MOST_DEATHS, Event, Events, Keeper, Restarts
from prism_cli.up import Reporter, event_text
from prism_embedded.errors import EmbeddedError

WAIT_S = 10.0


class FakeChild:
    """A child that ends when told to."""

    name = "fake"
    id = "fake"
    url = ""
    pid = 7

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.starts = 0
        self.status = 0
        self.end = threading.Event()

    def start(self) -> None:
        self.starts += 1
        if self.refuses:
            raise EmbeddedError("no room")
        self.end.clear()

    def wait(self) -> int | None:
        self.end.wait(WAIT_S)
        return self.status

    def stop(self, timeout_s: float) -> None:
        del timeout_s
        self.end.set()

    def kill(self) -> None:
        self.end.set()

    def last_words(self) -> str:
        return "last words"

    def die(self, status: int) -> None:
        self.status = status
        self.end.set()


class ThreeTries(Restarts):
    """Patience for two deaths, without pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.deaths = 0

    def after(self, status: int | None) -> float | None:
        del status
        self.deaths += 1
        return 0.0 if self.deaths < 3 else None


def next_event(events: Events) -> Event:
    return events.get(timeout=WAIT_S)


def test_a_killed_child_is_started_again_without_end() -> None:
    events, child = Events(), FakeChild()
    keeper = Keeper(child, events)
    keeper.begin()
    assert next_event(events).kind == "started"
    for _ in range(3 * MOST_DEATHS):
        child.die(-9)
        died = next_event(events)
        assert (died.kind, died.status) == ("died", -9)
        assert died.restart_in_s is not None
        assert died.restart_in_s < 1.0
        assert next_event(events).kind == "started"
    keeper.stop(1.0)
    assert next_event(events).kind == "stopped"
    with pytest.raises(Empty):
        events.get(timeout=0.3)


def test_a_child_that_cannot_start_stays_down_after_a_few_tries() -> None:
    events, child = Events(), FakeChild(refuses=True)
    keeper = Keeper(child, events, ThreeTries())
    keeper.begin()
    told = [next_event(events) for _ in range(3)]
    assert [event.kind for event in told] == ["died", "died", "given_up"]
    assert {event.detail for event in told} == {"no room"}
    assert child.starts == 3


def test_a_stopped_child_is_never_started() -> None:
    events, child = Events(), FakeChild()
    keeper = Keeper(child, events)
    keeper.stop(1.0)
    keeper.begin()
    assert next_event(events).kind == "stopped"
    with pytest.raises(Empty):
        events.get(timeout=0.3)
    assert child.starts == 0


def test_patience_ends_when_a_child_dies_the_same_way_again_and_again() -> None:
    now = [0.0]
    restarts = Restarts(clock=lambda: now[0])
    pauses = []
    for _ in range(MOST_DEATHS):
        pauses.append(restarts.after(1))
        now[0] += 1.0
    assert pauses == [0.2, 0.4, 0.8, 1.6, None]


def test_patience_comes_back_with_time() -> None:
    now = [0.0]
    restarts = Restarts(clock=lambda: now[0])
    for _ in range(10 * MOST_DEATHS):
        assert restarts.after(1) is not None
        now[0] += 30.0


def test_deaths_of_other_kinds_are_counted_apart() -> None:
    restarts = Restarts(clock=lambda: 0.0)
    assert all(restarts.after(status) is not None for status in (1, 70, 75, -11) * (MOST_DEATHS - 1))


def test_what_may_start_again_so_often_stays_down_then_whatever_it_died_of() -> None:
    restarts = Restarts(most=2)
    assert [restarts.after(-9) is None for _ in range(4)] == [False, False, True, True]
    assert Restarts(most=0).after(-9) is None


def test_a_wrong_setting_needs_no_second_try() -> None:
    assert Restarts().after(3) is None


def test_events_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    killed = Event("died", "worker-1", 9, -9, restart_in_s=0.1)
    assert event_text(killed) == "worker-1 was ended by SIGKILL; starting it again"
    failed = Event("given_up", "merger", 9, 1, "disk full")
    assert event_text(failed) == "merger ended with status 1: disk full; it stays down"
    assert event_text(Event("started", "merger", 9)) == ""
    reporter = Reporter()
    for _ in range(2):
        reporter(failed)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("merger ended with status 1: disk full; it stays down")
    assert lines[1].endswith("merger ended with status 1, as before; it stays down")
