"""Restarting what dies, and giving up."""

import io
import os
import signal

import pytest

from prism_embedded.errors import EmbeddedError
from prism_embedded.supervisor import EXIT_FAILED, DeathBudget, supervise


class FakeChild:
    bootstrap = "127.0.0.1:1"

    def __init__(self, *, fails_at: int = 0, signal_at: int = 0) -> None:
        self.starts = self.stops = 0
        self._fails_at, self._signal_at = fails_at, signal_at

    def start(self) -> None:
        self.starts += 1
        if self.starts == self._fails_at:
            raise EmbeddedError("no start")

    def stop(self) -> None:
        self.stops += 1

    def wait(self) -> int | None:
        if self.starts == self._signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return -9


def test_a_budget_of_deaths_within_a_window() -> None:
    now = [0.0]
    budget = DeathBudget(lambda: now[0], deaths=3, window_s=60)
    spent = []
    for moment in (0, 30, 61, 80, 90):
        now[0] = moment
        spent.append(budget.spend())
    assert spent == [True, True, True, False, False]


def test_a_child_that_dies_thrice_is_given_up() -> None:
    child, out, err = FakeChild(), io.StringIO(), io.StringIO()
    assert supervise(child, out, err) == EXIT_FAILED
    assert (child.starts, child.stops) == (3, 1)
    assert out.getvalue() == "ready 127.0.0.1:1\n"
    assert err.getvalue().splitlines()[-1].endswith("3 times within 60 s: given up")


def test_a_failed_restart_counts_as_a_death() -> None:
    child, err = FakeChild(fails_at=2), io.StringIO()
    assert supervise(child, io.StringIO(), err) == EXIT_FAILED
    assert "did not start again (no start)" in err.getvalue()


def test_a_signal_ends_it_with_0_and_the_old_handler_is_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    child = FakeChild(signal_at=2)
    assert supervise(child, io.StringIO(), io.StringIO()) == 0
    assert child.stops == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_first_start_that_fails_is_the_callers_to_tell() -> None:
    child = FakeChild(fails_at=1)
    with pytest.raises(EmbeddedError):
        supervise(child, io.StringIO(), io.StringIO())
    assert child.stops == 1
