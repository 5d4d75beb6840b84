"""The workers' status files: v6's form, numbers that stay, states that are true."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.messages import Heartbeat, RunShare, RunState, WorkerState
from prism_merger import status_files
from prism_merger.losses import Workers
from prism_merger.scribe import Scribe
from prism_merger.status_files import LAST_BEAT_S, StatusFiles
from tests.unit.merger.world import KeptOutlet, World, result, run_record

V6_KEYS = {
    "worker_id", "run_id", "state", "started_at", "updated_at", "row_start", "row_end", "current_row",
    "rows_processed", "total_rows", "progress_pct", "api_calls", "rows_per_sec", "tokens_per_sec",
    "avg_tokens_per_row", "tokens_total", "errors", "last_error", "output_file", "checkpoints", "eta_seconds",
}  # fmt: skip
STARTED = "2026-11-21T10:00:00+00:00"
JOB = {"monitoring": {"dashboard_refresh": "5"}, "output": {"checkpoints": {"interval": "7"}}}


@dataclass
class Office:
    """A merger's status files on a folder, with workers that are told by hand."""

    folder: Path
    now: float = 1000.0
    outlet: KeptOutlet = field(default_factory=KeptOutlet)
    changes: list[tuple[object, ...]] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=lambda: JOB)

    def __post_init__(self) -> None:
        self.scribe = Scribe()
        self.workers = Workers(lambda: self.now)
        self.record = run_record(rows=95, job=self.job)
        self.world = World(self.folder, [self.record], self.outlet)
        self.files = StatusFiles(
            self.world.ledger, self.workers, self.world.places, self.scribe, lambda: self.now,
            lambda: 1_800_000_000.0 + self.now, lambda *said: self.changes.append(said[2:]),
        )  # fmt: skip
        self.world.listen(self.files.note)
        self.world.tell("r1")

    def beat(
        self,
        worker: str = "w1",
        rows: int = 0,
        session: str = "s1",
        state: WorkerState = WorkerState.RUNNING,
        run_id: str = "r1",
    ) -> None:
        share = RunShare(
            rows=rows, failed=rows // 10, calls=rows // 5, tokens=rows * 20, tokens_per_sec=100.0,
            started_at=STARTED, last_error="not_json" if rows >= 10 else None,
        )  # fmt: skip
        beat = Heartbeat(
            worker_id=worker, session=session, state=state, runs={run_id: share},
            updated_at="2026-11-21T10:00:20+00:00",
        )  # fmt: skip
        self.workers.apply(worker, beat.to_bytes(), int(self.now * 1000))

    def turn(self, after_s: float = 5.0) -> None:
        self.now += after_s
        self.files.turn()
        self.workers.losses()
        assert self.scribe.settle()

    def merge(self, *sequences: int) -> None:
        self.world.merge([result(self.record, number) for number in sequences], sequences[0])
        self.world.tell("r1")

    def read(self) -> dict[int, dict[str, Any]]:
        assert self.scribe.settle()
        found = [json.loads(path.read_bytes()) for path in (self.folder / "status" / "r1").glob("*.json")]
        return {one["worker_id"]: one for one in found}

    def states(self) -> dict[str, str]:
        return {one["worker"]: one["state"] for one in self.read().values()}

    def close(self) -> None:
        self.scribe.close()
        self.world.close()


@pytest.mark.parametrize(("said", "seconds"), [({"dashboard_refresh": "60"}, 60.0), ({}, 5.0)])
def test_files_are_written_as_often_as_the_job_says(
    tmp_path: Path, said: dict[str, str], seconds: float
) -> None:
    office = Office(tmp_path, job={"monitoring": said})
    office.turn(0.0)
    office.beat(rows=40)
    office.turn(seconds - 1.0)
    assert office.read() == {}
    office.turn(1.0)
    assert office.read()[1]["rows_processed"] == 40
    office.close()


def test_a_file_says_what_v6_said(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.merge(0, 1, 2, 3)
    office.world.write_parts()
    office.beat(rows=40)
    office.turn(1.0)
    found = office.read()[1]
    assert found.keys() >= V6_KEYS
    assert (found["worker_id"], found["worker"], found["run_id"], found["state"]) == (
        1,
        "w1",
        "r1",
        "running",
    )
    assert (found["rows_processed"], found["api_calls"], found["errors"]) == (40, 8, 4)
    assert (found["tokens_total"], found["avg_tokens_per_row"], found["rows_per_sec"]) == (800, 20.0, 2.0)
    assert (found["row_start"], found["row_end"], found["total_rows"], found["current_row"]) == (
        1,
        95,
        95,
        40,
    )
    assert (found["progress_pct"], found["last_error"]) == (42.11, "not_json")
    assert (found["output_file"], found["output_files"]) == ("output/r1_march.csv", ["output/r1_march.csv"])
    assert found["checkpoints"][-1].endswith("_part0005.csv")
    assert "completed_at" not in found
    assert "failed_at" not in found
    office.close()


def test_files_are_written_every_refresh_and_at_the_end(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.beat(rows=0)
    office.turn(1.0)
    assert office.states() == {"w1": "initializing"}
    office.merge(0)
    for _ in range(4):
        office.beat(rows=10)
        office.turn(1.0)
    assert office.states() == {"w1": "initializing"}  # 5 s are not over
    office.turn(1.0)
    assert office.states() == {"w1": "running"}
    office.merge(*range(1, 10))
    office.beat(rows=60)
    office.beat("w2", rows=20)
    office.world.finish()
    office.world.tell("r1")
    found = office.read()
    assert office.states() == {"w1": "completed", "w2": "completed"}
    assert found[1]["progress_pct"] == 100.0
    assert found[1]["completed_at"]
    assert found[1]["rows_processed"] == 60
    # A worker tells its last figures after the end; its state and its time of completion stay.
    office.beat("w2", rows=35, state=WorkerState.STOPPED)
    office.turn(1.0)
    again = office.read()
    assert again[2]["rows_processed"] == 35
    assert (again[2]["state"], again[2]["completed_at"]) == ("completed", found[2]["completed_at"])
    assert not office.files.waiting
    office.beat("w2", rows=99)
    office.turn()
    assert office.read() == again
    office.close()


def test_a_worker_first_heard_of_after_the_end_has_its_file(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.merge(*range(10))
    office.world.finish()
    assert office.read() == {}
    assert office.files.waiting
    office.beat(rows=95)
    office.turn(0.5)
    assert office.read()[1]["state"] == "completed"
    assert not office.files.waiting
    office.close()


def test_who_never_tells_is_not_waited_for(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.merge(*range(10))
    office.world.finish()
    office.turn(LAST_BEAT_S + 0.1)
    assert not office.files.waiting
    office.close()


def test_a_silent_worker_has_failed_until_it_speaks_again(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.beat("w1", rows=10)
    office.beat("w2", rows=10)
    office.turn(1.0)
    for _ in range(2):
        office.beat("w2", rows=20)
        office.turn()
    assert office.states() == {"w1": "failed", "w2": "running"}
    assert office.read()[1]["failed_at"]
    assert office.read()[1]["rows_processed"] == 10
    office.beat("w1", rows=12)
    office.beat("w2", rows=20)
    office.turn()
    assert office.states() == {"w1": "running", "w2": "running"}
    assert "failed_at" not in office.read()[1]
    assert office.changes == [
        (1, "w1", "running"), (2, "w2", "running"), (1, "w1", "failed"), (1, "w1", "running"),
    ]  # fmt: skip
    office.close()


def test_what_comes_after_the_end_changes_no_state(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.beat("w1", rows=10)
    for _ in range(2):
        office.beat("w2", rows=20)
        office.turn(4.0)
    office.merge(*range(10))
    office.world.finish()
    assert office.states() == {"w1": "failed", "w2": "completed"}
    before = office.read()
    office.turn(LAST_BEAT_S)  # silent for longer than a worker that lives
    assert office.read() == before
    assert not office.files.waiting
    office.close()


def test_a_worker_started_again_is_another_one(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.beat("w1", rows=10)
    office.beat("w2", rows=10)
    office.turn(1.0)
    office.beat("w1", rows=14, session="s1")  # its last words, and its successor's first
    office.beat("w1", rows=1, session="s2")
    office.beat("w2", rows=11, state=WorkerState.STOPPED)
    office.turn()
    found = office.read()
    assert {number: one["state"] for number, one in found.items()} == {
        1: "failed",
        2: "completed",
        3: "running",
    }
    assert [found[number]["rows_processed"] for number in (1, 2, 3)] == [14, 11, 1]
    assert (found[3]["worker"], found[3]["session"]) == ("w1", "s2")
    office.close()


def test_rows_that_never_came_back_make_it_failed(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.merge(0, 1)
    office.beat(rows=20)
    office.turn(1.0)
    office.world.take_in(office.record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    office.world.finish(silent_s=60)
    assert office.read()[1]["state"] == "failed"
    assert office.read()[1]["failed_at"]
    office.close()


def test_a_merger_started_again_goes_on_with_the_numbers(tmp_path: Path) -> None:
    office = Office(tmp_path)
    for worker in ("w1", "w2", "w3"):
        office.beat(worker, rows=10)
    office.turn(1.0)
    office.close()
    folder = tmp_path / "status" / "r1"
    (folder / "worker_7.json").write_text("not ours")
    (folder / "worker_3.json").write_text("{")
    (folder / "notes.txt").write_text("x")
    again = Office(tmp_path)
    again.beat("w9", rows=5)
    again.beat("w2", rows=30)
    again.turn(1.0)
    found = {number: json.loads((folder / f"worker_{number}.json").read_text()) for number in (1, 2, 8)}
    assert [(one["worker"], one["state"]) for one in found.values()] == [
        ("w1", "failed"), ("w2", "running"), ("w9", "running"),
    ]  # fmt: skip
    assert (found[1]["rows_processed"], found[2]["rows_processed"]) == (10, 30)
    assert (folder / "worker_7.json").read_text() == "not ours"
    again.close()


@pytest.mark.promise(9)
def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "status").write_text("a file where the folder should be")
    office = Office(tmp_path)
    for number in range(10):
        office.merge(number)
        office.beat(rows=10 * number)
        office.turn()
    assert office.world.finish().announced
    office.turn()
    assert (tmp_path / "output").is_dir()
    assert [one.getMessage() for one in caplog.records].count("file_skipped") == 1
    office.close()


@pytest.mark.promise(8)
def test_names_made_up_without_end_do_not_fill_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_files, "MOST_WORKERS", 5)
    office = Office(tmp_path)
    for number in range(20):
        office.beat(f"../../evil\n{number}" + "x" * 5000, rows=1)
        office.beat("unknown", run_id="../other")
    office.turn(1.0)
    assert sorted(office.read()) == [1, 2, 3, 4, 5]
    assert {path.name for path in tmp_path.iterdir()} == {"merger-0", "status"}
    assert all(path.stat().st_size < 3000 for path in (tmp_path / "status" / "r1").iterdir())
    office.close()


@settings(max_examples=50, deadline=None)
@given(
    started=st.text(max_size=30) | st.just(STARTED),
    updated=st.text(max_size=30),
    rate=st.floats() | st.sampled_from([math.nan, math.inf]),
    rows=st.integers(-(2**63), 2**63 - 1),
    error=st.none() | st.text(max_size=300),
)
def test_whatever_a_worker_says_the_file_is_json(
    started: str, updated: str, rate: float, rows: int, error: str | None
) -> None:
    share = RunShare(rows=rows, tokens=rows, tokens_per_sec=rate, started_at=started, last_error=error)
    beat = Heartbeat(worker_id="w", state=WorkerState.RUNNING, updated_at=updated)
    json.dumps(status_files._figures(beat, share), allow_nan=False)
