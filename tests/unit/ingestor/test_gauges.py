"""What the ingestor's metrics show of runs, workers and the broker."""

from types import SimpleNamespace
from typing import Any

import pytest

from prism.messages import RunState, WorkerState
from prism.runs.tracker import BrokerView
from prism_ingestor import metrics
from prism_ingestor.gauges import LATE_S, VIEW_KEPT_S, Gauges
from prism_ingestor.stalls import StallCause


class Desk:
    """Gauges over made-up parts, each of which a test may change."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ledger = SimpleNamespace(runs={})
        self.feeder = SimpleNamespace(feeds={})
        self.workers: list[Any] = []
        view = SimpleNamespace(progress={}, live_workers=lambda: self.workers)
        self.probe = SimpleNamespace(view=None)
        parts: tuple[Any, ...] = (self.ledger, self.feeder, view, self.probe, lambda: self.now)
        self.gauges = Gauges(*parts)
        self.gauges.start()

    def run(self, run_id: str, state: RunState, quiet_s: float, rows: int, budget: str | None = None) -> None:
        self.ledger.runs[run_id] = SimpleNamespace(state=state, rows=100)
        self.feeder.feeds[run_id] = SimpleNamespace(
            run_id=run_id, unmerged=2, unmerged_rows=rows, moved_at=self.now - quiet_s, out_of_budget=budget
        )

    def turn(self) -> None:
        self.gauges.turn(self.now)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"prism_ingestor_{name}", labels)


def test_rows_are_late_where_their_run_should_move_and_does_not(desk: Desk) -> None:
    desk.run("moves", RunState.RUNNING, 10, rows=1)
    desk.run("late", RunState.RUNNING, LATE_S + 1, rows=10)
    desk.run("merging", RunState.MERGING, LATE_S + 1, rows=100)
    desk.run("paused", RunState.PAUSED, LATE_S + 1, rows=1000)
    desk.run("spent", RunState.RUNNING, LATE_S + 1, rows=10_000, budget="enough")
    desk.run("quota", RunState.RUNNING, LATE_S + 1, rows=100_000)
    desk.gauges.stalls = {"late": StallCause.MODEL_SERVER, "quota": StallCause.QUOTA}
    desk.turn()
    assert value("unmerged_rows", progress="late") == 110
    assert value("unmerged_rows", progress="moving") == 111_001
    assert value("unmerged_batches") == 12
    assert (value("runs_open", state="running"), value("runs_open", state="accepted")) == (4, 0)


def test_stalls_and_workers_are_counted_with_zero_for_what_there_is_none_of(desk: Desk) -> None:
    desk.gauges.stalls = {"a": StallCause.NO_WORKER, "b": StallCause.NO_WORKER}
    desk.workers = [SimpleNamespace(state=WorkerState.WAITING)]
    desk.turn()
    assert (value("runs_stalled", cause="no_worker"), value("runs_stalled", cause="merger")) == (2, 0)
    assert (value("live_workers", state="waiting"), value("live_workers", state="running")) == (1, 0)


def test_the_lag_is_that_of_all_partitions_and_never_an_old_one(desk: Desk) -> None:
    desk.run("fed", RunState.RUNNING, 10, rows=1)
    desk.turn()
    assert value("workers_lag_records", partition="0") is None, "nothing was asked yet"
    desk.probe.view = BrokerView({0: 5}, {0: 0, 1: 0}, {0: 7, 1: 3}, {}, asked_at=desk.now)
    assert (value("workers_lag_records", partition="0"), value("workers_lag_records", partition="1")) == (
        2,
        3,
    )
    desk.now += VIEW_KEPT_S + 1
    assert value("workers_lag_records", partition="0") is None


def test_the_lag_is_0_while_nothing_is_fed(desk: Desk) -> None:
    """Without a value the component `hpa` would leave as many workers there as the last run needed."""
    desk.turn()
    desk.probe.view = BrokerView({0: 5}, {0: 0, 1: 0}, {0: 7, 1: 3}, {}, asked_at=desk.now)
    desk.now += VIEW_KEPT_S + 1
    assert [value("workers_lag_records", partition=one) for one in ("0", "1")] == [0, 0]
    desk.gauges.stand_by()
    assert value("workers_lag_records", partition="0") is None


def test_one_that_stands_by_shows_nothing_of_what_it_did(desk: Desk) -> None:
    desk.run("late", RunState.RUNNING, LATE_S + 1, rows=10)
    desk.gauges.stalls = {"late": StallCause.MODEL_SERVER}
    desk.workers = [SimpleNamespace(state=WorkerState.RUNNING)]
    desk.turn()
    desk.gauges.stand_by()
    assert value("unmerged_rows", progress="late") == 0
    assert value("runs_open", state="running") == 0
    assert value("runs_stalled", cause="model_server") == 0
    assert value("live_workers", state="running") == 0
    assert value("run_input_rows", run_id="late") is None
