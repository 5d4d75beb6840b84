import pytest

from prism.service.readiness import Readiness


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_board_that_nobody_wrote_on_is_not_ready() -> None:
    assert Readiness().reason() == "starting"


def test_named_conditions_are_starting_until_set() -> None:
    board = Readiness("broker", "model")
    board.set("broker", True)
    assert board.reason() == "model: starting"
    board.set("model", False, "ollama at http://x: connection refused")
    assert board.reason() == "model: ollama at http://x: connection refused"
    board.set("model", True)
    assert board.reason() is None


def test_all_reasons_are_given() -> None:
    board = Readiness()
    board.set("a", False, "one")
    board.set("b", False)
    assert board.reason() == "a: one; b: not ready"
    board.forget("a")
    board.forget("b")
    assert board.reason() == "starting"


@pytest.mark.promise(10)
def test_a_silent_loop_is_reported_within_ten_seconds() -> None:
    clock = Clock()
    board = Readiness(clock=clock)
    board.set("broker", True)
    poll = board.heartbeat("poll")
    clock.now += 7
    assert board.reason() is None
    clock.now += 3
    assert board.reason() == "stuck: poll silent for 10 s"
    poll.beat()
    assert board.reason() is None


def test_a_longer_silence_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="max_age_s is 11"):
        Readiness().heartbeat("poll", 11)


def test_a_heartbeat_can_be_forgotten() -> None:
    clock = Clock()
    board = Readiness(clock=clock)
    board.set("broker", True)
    board.heartbeat("lane", 1)
    clock.now += 5
    board.forget("lane")
    assert board.reason() is None
