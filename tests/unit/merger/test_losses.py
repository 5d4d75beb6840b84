"""The bound on the calls of killed workers."""

import pytest

from prism.messages import Heartbeat, WorkerState
from prism_merger.losses import Workers


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def beat(
    session: str = "s1",
    state: WorkerState = WorkerState.RUNNING,
    flight: tuple[str, ...] = (),
    limit: int = 3,
) -> bytes:
    return Heartbeat(
        worker_id="w1", session=session, state=state, limit=limit, in_flight=list(flight)
    ).to_bytes()


@pytest.mark.promise(5)
def test_a_silent_session_counts_its_runs_once() -> None:
    clock = Clock()
    workers = Workers(clock)
    workers.apply("w1", beat(flight=("a/x/1", "a/x/2", "b/x/1", "a/y/9", "a/y/10")), 1_000_000)
    clock.now = 1005.9
    assert workers.losses() == []
    clock.now = 1006.1
    assert [(one.session, one.calls) for one in workers.losses()] == [("s1", {"a": 4, "b": 3})]
    assert workers.losses() == []


@pytest.mark.promise(5)
def test_a_new_session_without_a_stop_is_a_loss() -> None:
    workers = Workers(Clock())
    workers.apply("w1", beat(flight=("a/x/1",)), 1_000_000)
    workers.apply("w1", beat("s2"), 1_000_500)
    assert [one.calls for one in workers.losses()] == [{"a": 3}]


def test_a_clean_stop_an_idle_worker_and_nonsense_are_none() -> None:
    clock = Clock()
    workers = Workers(clock)
    workers.apply("w1", beat(flight=("a/x/1",)), 1_000_000)
    workers.apply("w1", beat(state=WorkerState.STOPPED, flight=("a/x/1",)), 1_000_500)
    workers.apply("w1", beat("s2"), 1_001_000)
    workers.apply("w1", b"{", 1_001_000)
    clock.now = 1100.0
    assert workers.losses() == []
    workers.apply("w1", None, 1_001_000)
    assert workers.losses() == []
