"""The desk: one thread for what reads rows, and one of its own for what waits for somebody far away."""

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from prism_merger.desk import Desk, Errand, Steps
from prism_merger.store import RowReader


class Reader:
    def close(self) -> None:
        pass


def make_desk() -> Desk:
    return Desk(lambda: cast(RowReader, Reader()))


def until(desk: Desk, count: int) -> list[tuple[str, BaseException | None]]:
    ended: list[tuple[str, BaseException | None]] = []
    deadline = time.monotonic() + 10
    while len(ended) < count:
        ended += desk.turn()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return ended


@pytest.mark.promise(9)
def test_an_errand_holds_up_no_other_task() -> None:
    desk, gate = make_desk(), threading.Event()
    seen: list[Any] = []

    def slow() -> Steps:
        seen.append((yield Errand(lambda: gate.wait(10))))

    def quick() -> Steps:
        seen.append((yield lambda rows: type(rows).__name__))

    desk.begin("slow", slow())
    desk.begin("quick", quick())
    assert until(desk, 1) == [("quick", None)]
    assert "slow" in desk
    gate.set()
    assert until(desk, 1) == [("slow", None)]
    assert seen == ["Reader", True]
    desk.close()


def test_what_an_errand_raises_ends_its_task() -> None:
    desk = make_desk()

    def refuse() -> None:
        raise OSError("away")

    def task() -> Steps:
        yield Errand(refuse)

    desk.begin("a", task())
    [(name, error)] = until(desk, 1)
    assert (name, str(error)) == ("a", "away")
    desk.close()


def test_what_an_errand_says_after_a_reset_is_dropped() -> None:
    desk, gate, done = make_desk(), threading.Event(), threading.Event()

    def late() -> str:
        gate.wait(10)
        done.set()
        return "late"

    def task(step: Callable[[], str]) -> Steps:
        said = yield Errand(step)
        assert said == "new"

    desk.begin("a", task(late))
    desk.reset()
    desk.begin("a", task(lambda: "new"))
    gate.set()
    assert done.wait(10)
    assert until(desk, 1) == [("a", None)]
    desk.close()
