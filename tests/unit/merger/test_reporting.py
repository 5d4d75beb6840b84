"""The process that writes the reports: begun, begun again, given up; and nothing waits for it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from prism.messages import MergeState
from prism_merger.accounts import ReportsState, RunAccount, Stage
from prism_merger.plans import RunPlan
from prism_merger.recovery import adopt_published
from prism_merger.reporting import COMMAND, MOST_FAILURES, MOST_STARTS, Reporter
from prism_merger.reports.__main__ import main
from tests.unit.merger.report_world import Row, facts, finished, merged
from tests.unit.merger.test_retries import again, parent, retried, retry_record
from tests.unit.merger.world import World

ROWS: list[Row] = [("m", ("Other", "good", "x")), ("n", None)] * 20
NAMES = ["summary_r1.md", "analytics_r1.csv", "report_r1.html"]
DEADLINE_S = 30.0


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A reporter beside a world, and what it tells."""

    def __init__(self, world: World, command: Sequence[str] = COMMAND, enabled: bool = True) -> None:
        self.world = world
        self.clock = Clock()
        self.told: list[ReportsState] = []
        self.told_of: list[str] = []
        self.reporter = Reporter(
            world.store, world.ledger, world.places, world.publisher, self._tell, self.clock, enabled, command
        )

    def _tell(self, run: RunAccount) -> None:
        self.told.append(run.reports)
        self.told_of.append(run.run_id)

    @property
    def run(self) -> RunAccount:
        return self.world.run()

    def turn_until(self, condition: Callable[[], bool], step_s: float = 0.0) -> None:
        until = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < until
            self.reporter.turn()
            self.clock.now += step_s
            time.sleep(0.005)


def command(code: str) -> list[str]:
    """A writer of reports that does something else."""
    return [sys.executable, "-c", code]


def manifest(world: World) -> dict[str, object]:
    return dict(json.loads(world.places.manifest("r1").read_text())["reports"])


def settled(desk: Desk) -> Callable[[], bool]:
    return lambda: desk.run.reports is not ReportsState.DUE


def test_the_reports_of_a_told_run_are_written_named_and_told(tmp_path: Path) -> None:
    desk = Desk(finished(tmp_path, ROWS))
    assert manifest(desk.world)["state"] == "due"
    desk.turn_until(settled(desk))
    names = [f"logs/r1/{name}" for name in NAMES]
    assert manifest(desk.world) == {"state": "written", "files": names, "failures": 0}
    assert all((tmp_path / name).stat().st_size > 500 for name in names)
    assert not list((tmp_path / "logs" / "r1").glob(".*"))
    assert desk.told == [ReportsState.WRITTEN]
    assert desk.run.stage is Stage.TOLD
    reread = desk.world.store.load_run("r1")
    assert reread is not None
    assert reread.reports is ReportsState.WRITTEN


@pytest.mark.parametrize(
    ("monitoring", "wanted"),
    [
        ({"create_summaries": "no"}, NAMES[1:2]),
        ({"create_analytics": "no"}, [NAMES[0], NAMES[2]]),
        ({"create_summaries": "no", "create_analytics": "no"}, []),
    ],
)
def test_what_the_job_does_not_want_is_not_written(
    tmp_path: Path, monitoring: dict[str, str], wanted: list[str]
) -> None:
    desk = Desk(finished(tmp_path, ROWS, job={"monitoring": monitoring}))
    desk.turn_until(settled(desk))
    logs = tmp_path / "logs" / "r1"
    assert [name for name in NAMES if (logs / name).exists()] == wanted
    assert manifest(desk.world)["files"] == [f"logs/r1/{name}" for name in wanted]
    assert desk.run.reports is (ReportsState.WRITTEN if wanted else ReportsState.OFF)


def test_progress_names_them(tmp_path: Path) -> None:
    world = finished(tmp_path, ROWS)
    assert world.outlet.told[-1].reports is None
    world.run().reports = ReportsState.WRITTEN
    world.teller.tell(world.run())
    told = world.outlet.told[-1]
    assert (told.state, told.reports) == (MergeState.PUBLISHED, [f"logs/r1/{name}" for name in NAMES])


@pytest.mark.promise(9)
def test_what_fails_three_times_is_given_up(tmp_path: Path) -> None:
    desk = Desk(finished(tmp_path, ROWS), command("import sys; sys.exit('no pandas today')"))
    desk.turn_until(settled(desk), step_s=1.0)
    assert (desk.run.reports, desk.run.report_starts) == (ReportsState.GIVEN_UP, MOST_FAILURES)
    assert manifest(desk.world) == {"state": "given_up", "files": [], "failures": MOST_FAILURES}
    assert desk.told == [ReportsState.GIVEN_UP]


@pytest.mark.promise(9)
def test_what_nobody_foresaw_of_a_run_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(finished(tmp_path, ROWS))
    plan = desk.world.ledger.plan

    def broken_while_due(run_id: str) -> RunPlan:
        if desk.run.reports is ReportsState.DUE:
            raise ZeroDivisionError
        return plan(run_id)

    monkeypatch.setattr(desk.world.ledger, "plan", broken_while_due)
    desk.turn_until(settled(desk), step_s=10.0)
    assert desk.run.reports is ReportsState.GIVEN_UP


def test_after_a_failure_it_waits_before_it_tries_again(tmp_path: Path) -> None:
    desk = Desk(finished(tmp_path, ROWS), command("raise SystemExit(1)"))
    desk.turn_until(lambda: desk.run.report_failures == 1)
    for _ in range(20):
        desk.reporter.turn()
    assert desk.run.report_starts == 1
    desk.clock.now += 1.0
    desk.turn_until(lambda: desk.run.report_failures == 2)


@pytest.mark.promise(9)
def test_a_writer_that_hangs_is_killed_in_the_end(tmp_path: Path) -> None:
    desk = Desk(finished(tmp_path, ROWS), command("import time; time.sleep(600)"))
    desk.reporter.turn()
    pid = child_of(desk)
    desk.reporter.turn()
    assert alive(pid)
    desk.clock.now += 1_000.0
    desk.reporter.turn()
    assert not alive(pid)
    assert desk.run.report_failures == 1


def test_a_merger_that_dies_each_time_gives_up_too(tmp_path: Path) -> None:
    world = finished(tmp_path, ROWS)
    for _ in range(MOST_STARTS):
        desk = Desk(world, command("import time; time.sleep(600)"))
        desk.reporter.turn()
        desk.reporter.close()
    assert world.run().report_failures == 0
    desk = Desk(world)
    desk.turn_until(settled(desk))
    assert world.run().reports is ReportsState.GIVEN_UP


@pytest.mark.promise(4)
def test_the_next_life_begins_again_and_the_last_ones_writer_is_gone(tmp_path: Path) -> None:
    world = finished(tmp_path, ROWS)
    desk = Desk(world)
    desk.reporter.turn()
    pid = child_of(desk)
    # As when the merger dies: nothing is left of it but what is on disk, and the pipe ends.
    writing = desk.reporter._writing
    assert writing is not None
    assert writing.process.stdin is not None
    os.kill(pid, signal.SIGSTOP)
    world.close()
    writing.process.stdin.close()
    again = Desk(World(tmp_path))
    assert again.run.report_starts == 1
    os.kill(pid, signal.SIGCONT)
    assert writing.process.wait(DEADLINE_S) != 0
    again.turn_until(settled(again))
    assert again.run.reports is ReportsState.WRITTEN
    assert sorted(one.name for one in (tmp_path / "logs" / "r1").iterdir()) == sorted(
        [*NAMES, "run_manifest.json", "failed_ranges.json", "failed_rows.csv"]
    )


def test_turned_off_it_says_so_and_starts_nothing(tmp_path: Path) -> None:
    desk = Desk(finished(tmp_path, ROWS), command("raise AssertionError"), enabled=False)
    desk.reporter.turn()
    assert (desk.run.reports, desk.run.report_starts) == (ReportsState.OFF, 0)
    assert manifest(desk.world)["state"] == "off"


def test_after_a_lost_volume_reports_that_stand_are_not_written_again(tmp_path: Path) -> None:
    old, record = merged(tmp_path, ROWS)
    run = old.finish()
    for path in old.places.reports("r1"):
        path.write_text("told")
    run.reports = ReportsState.WRITTEN
    old.publisher.refresh_manifest(run)
    old.close()
    for one in (tmp_path / "merger-0").iterdir():
        one.unlink()
    world = World(tmp_path, [record])
    run = adopt_published(world.run(), world.ledger.plan("r1"), world.store, world.places, {})
    assert run.reports is ReportsState.WRITTEN
    (tmp_path / "logs" / "r1" / NAMES[0]).unlink()
    run = adopt_published(world.run(), world.ledger.plan("r1"), world.store, world.places, {})
    assert run.reports is ReportsState.DUE


def test_the_command_explains_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ran(*arguments: str) -> tuple[int, str]:
        return main(list(arguments)), capsys.readouterr().err

    assert ran() == (2, "usage: python -m prism_merger.reports FACTS.json\n")
    path = tmp_path / "facts.json"
    status, said = ran(str(path))
    assert (status, said.count("\n"), "No such file" in said) == (1, 1, True)
    path.write_text(facts(finished(tmp_path / "run", ROWS)).model_dump_json().replace('"in":40', '"in":41'))
    status, said = ran(str(path))
    assert (status, said.count("\n"), "41 rows in, 20 ok and 20 failed" in said) == (1, 1, True)


def test_the_merger_itself_has_neither_pandas_nor_plotly() -> None:
    heavy = {"pandas", "numpy", "plotly", "pycm", "nltk"}
    code = f"import sys, prism_merger.__main__; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def child_of(desk: Desk) -> int:
    writing = desk.reporter._writing
    assert writing is not None
    return writing.process.pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# After a retry

FAILING = [6, 13, 20]  # as world's results have it: every seventh row


def told_parent(folder: Path, job: dict[str, Any] | None = None) -> Desk:
    """A run with failed rows whose reports are written and whose rows are gone from the store."""
    desk = Desk(parent(folder, job))
    desk.turn_until(settled(desk))
    store, run = desk.world.store, desk.run
    run.stage = Stage.DONE
    with store.transaction():
        while any(store.drop_rows(one.file_id, 100) for one in run.files.values()):
            pass
        store.save_run(run)
    desk.world.ledger.release(run)
    return desk


def both_settled(desk: Desk) -> Callable[[], bool]:
    def all_are() -> bool:
        runs = [desk.world.ledger.find(one) for one in ("r1", "r1.r1")]
        return all(one is not None and one.reports is not ReportsState.DUE for one in runs)

    return all_are


def summary_of(world: World, run_id: str = "r1") -> str:
    return (world.places.summary(run_id)).read_text()


@pytest.mark.promise(1)
def test_after_a_retry_a_runs_reports_tell_of_its_whole_output(tmp_path: Path) -> None:
    desk = told_parent(tmp_path)
    assert "22 ok, 3 failed" in summary_of(desk.world)
    retried(desk.world, retry_record(1, 3), again(retry_record(1, 3), FAILING, failing=(13,)))
    desk.turn_until(both_settled(desk))
    whole = summary_of(desk.world)
    assert "25 rows: 24 ok, 1 failed" in whole
    assert "What the rows say is left out" not in whole
    assert "completed by" in whole
    assert "r1.r1: 2 of 3 answers" in whole
    assert "3 rows: 2 ok, 1 failed" in summary_of(desk.world, "r1.r1")
    # The reports of the run first: whoever waits for the retry's has both.
    assert desk.told_of[-2:] == ["r1", "r1.r1"]


def test_a_retry_that_ends_while_reports_are_written_has_them_written_again(tmp_path: Path) -> None:
    desk = Desk(parent(tmp_path))
    desk.reporter.turn()  # begins with the rows as they were
    retried(desk.world, retry_record(1, 3), again(retry_record(1, 3), FAILING))
    desk.turn_until(both_settled(desk))
    assert "25 rows: 25 ok." in summary_of(desk.world)


def test_where_no_csv_has_all_rows_the_reports_of_the_run_alone_stay(tmp_path: Path) -> None:
    desk = told_parent(tmp_path, {"output": {"checkpoints": {"interval": "7"}, "formats": ["jsonl"]}})
    before = summary_of(desk.world)
    retried(desk.world, retry_record(1, 3), again(retry_record(1, 3), FAILING))
    desk.turn_until(both_settled(desk))
    assert summary_of(desk.world) == before
    assert desk.run.completed_by == []


@pytest.mark.promise(1)
def test_a_retry_that_an_earlier_version_took_in_is_counted_too(tmp_path: Path) -> None:
    desk = told_parent(tmp_path)
    retried(desk.world, retry_record(1, 3), again(retry_record(1, 3), FAILING, failing=(13,)))
    desk.turn_until(both_settled(desk))
    run = desk.world.ledger.find("r1")
    assert run is not None
    run.completed_by = []  # as a store is that was written before it was noted
    with desk.world.store.transaction():
        desk.world.store.save_run(run)
    retried(desk.world, retry_record(2, 1), again(retry_record(2, 1), [13]))
    desk.turn_until(both_settled(desk))
    whole = summary_of(desk.world)
    assert "25 rows: 25 ok." in whole
    assert "What the rows say is left out" not in whole
