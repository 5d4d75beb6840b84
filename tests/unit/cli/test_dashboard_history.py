"""What the dashboard remembers: each event once, the newest first, and no blame without proof."""

from datetime import timedelta
from typing import Any

import pytest

from prism.messages import RunState
from prism_cli.board import RunView, WorkerView
from prism_cli.dashboard.history import History, Look
from prism_cli.dashboard.picture import REFRESH_S, refresh_of
from tests.unit.cli import pictures
from tests.unit.cli.views import NOW, run_view, worker_view


class Watcher:
    """Takes looks of a history, second by second."""

    def __init__(self) -> None:
        self.history = History()
        self.now_s = 0.0

    def look(
        self, view: RunView | None = None, *workers: WorkerView, after_s: float = 1.0, **more: Any
    ) -> bool:
        """Look again; return whether there are news."""
        self.now_s += after_s
        at = NOW + timedelta(seconds=self.now_s)
        return self.history.take(Look(at, self.now_s, view, workers, **more))

    def said(self) -> list[str]:
        """Return what happened, the oldest first."""
        return [one.text for one in self.history.events]


def running(**fields: Any) -> RunView:
    """Return a run whose merger speaks."""
    running.count += 1  # type: ignore[attr-defined]
    moment = (NOW + timedelta(seconds=running.count)).isoformat()  # type: ignore[attr-defined]
    return run_view(fields.pop("state", RunState.RUNNING), **{"updated_at": moment, **fields})


running.count = 0  # type: ignore[attr-defined]


def test_each_state_and_each_stall_is_said_once() -> None:
    watcher = Watcher()
    assert watcher.look(running())
    assert not watcher.look(running(rows_ok=5))
    assert watcher.look(running(record_stalled="no worker"))
    assert not watcher.look(running(record_stalled="no worker"))
    assert watcher.look(running())
    assert watcher.look(running(state=RunState.PAUSED))
    assert watcher.said() == [
        "the run is running",
        "stalled: no worker",
        "it moves again",
        "the run is paused",
    ]
    assert watcher.history.newest_first()[0].text == "the run is paused"


def test_failures_count_up_in_one_line_and_wait_for_the_next_drawing() -> None:
    watcher = Watcher()
    watcher.look(running())
    assert not watcher.look(running(failed_by_reason={"not_json": 1}))
    assert not watcher.look(running(failed_by_reason={"not_json": 7, "poison": 1}))
    assert watcher.said() == ["the run is running", "7 rows failed as not_json", "1 row failed as poison"]


def test_a_worker_comes_falls_silent_comes_back_and_stops() -> None:
    watcher = Watcher()
    watcher.look(running())
    assert watcher.look(running(), worker_view())
    assert watcher.look(running(), worker_view(7.0))
    assert not watcher.look(running(), worker_view(8.0))
    assert watcher.look(running(), worker_view())
    assert watcher.look(running(), worker_view(session="new"))
    assert watcher.look(running(), worker_view(session="new", state="waiting", reason="HTTP 503"))
    assert watcher.look(running(), worker_view(session="new"))
    assert watcher.look(running())
    assert watcher.said()[1:] == [
        "worker-1 has joined",
        "worker-1 has fallen silent",
        "worker-1 is back",
        "worker-1 was started anew",
        "worker-1 waits: HTTP 503",
        "worker-1 goes on",
        "worker-1 has stopped",
    ]


def test_an_outage_of_the_broker_is_nobody_elses() -> None:
    watcher = Watcher()
    view = running()
    watcher.look(view, worker_view(0.5))
    watcher.look(view, worker_view(7.0), quiet_s=7.0)
    assert watcher.look(view, worker_view(9.0), quiet_s=9.0, away=True)
    watcher.look(view, worker_view(20.0), quiet_s=20.0, away=True, after_s=11.0)
    assert watcher.history.away_s(watcher.now_s) == 20.0
    watcher.look(view, worker_view(21.0))
    watcher.look(running(), worker_view(0.5), after_s=9.0)
    assert watcher.said()[1:] == ["the broker does not answer; waiting for it", "the broker is back"]
    assert watcher.history.away_s(watcher.now_s) is None


def test_a_fleet_that_is_silent_altogether_is_said_in_the_end() -> None:
    watcher = Watcher()
    view = running()
    watcher.look(view, worker_view(0.5))
    watcher.look(view, worker_view(11.0), quiet_s=11.0, after_s=11.0)
    assert watcher.said()[1:] == [
        "the merger has fallen silent: the counts stand still",
        "worker-1 has fallen silent",
    ]
    watcher.look(running(), worker_view())
    assert watcher.said()[3:] == ["the merger is back", "worker-1 is back"]


def test_a_run_that_has_ended_needs_no_merger() -> None:
    watcher = Watcher()
    view = running(state=RunState.COMPLETED, record_stalled="no worker")
    watcher.look(view)
    watcher.look(view, after_s=100.0)
    assert watcher.said() == ["the run is completed"]


def test_a_run_that_nobody_takes_up_is_worth_a_word_once() -> None:
    watcher = Watcher()
    watcher.look()
    assert watcher.look(after_s=11.0)
    assert not watcher.look()
    assert watcher.said() == ["nobody has taken the run up; is an ingestor running? prism doctor"]


def test_what_is_remembered_is_bounded() -> None:
    watcher = Watcher()
    for at in range(1000):
        watcher.look(running(record_stalled=f"reason {at}", rows_per_s=float(at)))
    assert len(watcher.history.events) == 200
    assert len(watcher.history.rates) == 240
    assert watcher.history.rates[-1] == 999.0


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        ({}, REFRESH_S),
        ({"monitoring": {"status_dir": "status/"}}, REFRESH_S),
        ({"monitoring": {"dashboard_refresh": 5}}, 5.0),
        ({"monitoring": {"dashboard_refresh": 0.001}}, 0.1),
        ({"monitoring": {"dashboard_refresh": "soon"}}, REFRESH_S),
        ({"monitoring": None}, REFRESH_S),
    ],
)
def test_a_job_that_says_how_often_is_obeyed(job: dict[str, Any], seconds: float) -> None:
    assert refresh_of(run_view(record_job=job)) == seconds
    assert refresh_of(None) == REFRESH_S


def test_calls_about_rows_asked_before_are_retries() -> None:
    assert pictures.picture().retries == 12
    assert pictures.picture(repeated_calls=0).retries == 0


def test_a_worker_that_tells_no_shares_is_shown_as_it_is() -> None:
    picture = pictures.picture()
    assert picture.share(worker_view(rows_processed=7)).rows == 7
    other = worker_view(rows_processed=7, runs={"other": {"rows": 7}})
    assert picture.share(other).rows == 0


def test_what_a_newer_version_wrote_is_no_reason_to_die() -> None:
    picture = pictures.picture(record_job={"budget": {"tokens": -1}}, record_model_entry={"price": 3})
    assert picture.cost is None
    assert picture.job.budget.tokens is None
