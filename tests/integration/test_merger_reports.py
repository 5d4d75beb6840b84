"""What a finished run leaves, from the merger as a process: also when it, or what writes it, is killed."""

import csv
import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prism.messages import Cursor, CutPosition, FileCursor, MergeState, Progress, RunRecord, RunState
from tests.integration.merger_fleet import DEADLINE_S, Fleet, await_true
from tests.unit.merger.world import COLUMNS, result, run_record

ON = {"PRISM_MERGER_REPORTS": "true"}


@pytest.fixture
def fleet(shared_broker: str, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(shared_broker, tmp_path, f"t{time.monotonic_ns()}.")
    try:
        yield made
    finally:
        made.close()


def run_through(fleet: Fleet, record: RunRecord, partition: int = 0) -> None:
    fleet.put_run(record)
    batches = record.files[0].batches
    fleet.put_results([result(record, number) for number in range(batches)], partition)


def await_reports(fleet: Fleet, run_id: str) -> Progress:
    await_true(
        lambda: (told := fleet.progress(run_id)) is not None and bool(told.reports), "reports", fleet.log
    )
    told = fleet.progress(run_id)
    assert told is not None
    return told


def writer_of(pid: int) -> psutil.Process | None:
    """The process that writes reports for a merger, once it is there."""
    try:
        return next(iter(psutil.Process(pid).children()), None)
    except psutil.NoSuchProcess:
        return None


def await_writer(fleet: Fleet, pid: int) -> psutil.Process:
    await_true(lambda: writer_of(pid) is not None, "a writer", fleet.log)
    found = writer_of(pid)
    assert found is not None
    return found


@pytest.mark.promise(1)
def test_a_run_leaves_its_reports_and_failed_rows(fleet: Fleet) -> None:
    record = run_record("a", rows=95)
    process = fleet.merger(**ON)
    run_through(fleet, record)
    done = fleet.await_state("a", MergeState.PUBLISHED)
    # The failed rows are there before anybody is told; the lines are the input's own.
    text = (fleet.data_dir / fleet.manifest("a")["files"][0]["failed_rows"]).read_text()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == COLUMNS
    assert [row[0] for row in rows[1:]] == [f"{number:03}" for number in range(7, 96, 7)]
    assert done.rows_failed == len(rows) - 1
    told = await_reports(fleet, "a")
    assert told.reports == [f"logs/a/{name}" for name in ("summary_a.md", "analytics_a.csv", "report_a.html")]
    summary = (fleet.data_dir / told.reports[0]).read_text()
    assert "95 rows: 82 ok, 13 failed (13.7 %)" in summary
    # Counted from the rows, which the store may drop only afterwards.
    assert "| `schema_violation` |   13 | 100.0 % |" in summary
    assert "left out" not in summary
    await_true(lambda: fleet.manifest("a")["reports"]["state"] == "written", "manifest", fleet.log)
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.promise(9)
def test_a_stopped_writer_holds_up_no_other_run_and_dies_with_the_merger(fleet: Fleet) -> None:
    process = fleet.merger(**ON)
    run_through(fleet, run_record("a", rows=95))
    writer = await_writer(fleet, process.pid)
    writer.suspend()
    run_through(fleet, run_record("b", rows=40, partition=1), partition=1)
    fleet.await_state("b", MergeState.PUBLISHED)
    assert process.poll() is None
    process.kill()
    process.wait(DEADLINE_S)
    writer.resume()
    gone, alive = psutil.wait_procs([writer], timeout=DEADLINE_S)
    assert (len(gone), alive) == (1, [])
    fleet.merger(**ON)
    for run_id in ("a", "b"):
        assert len(await_reports(fleet, run_id).reports or []) == 3


def test_a_killed_writer_is_followed_by_another(fleet: Fleet) -> None:
    process = fleet.merger(**ON)
    run_through(fleet, run_record("a", rows=95))
    os.kill(await_writer(fleet, process.pid).pid, signal.SIGKILL)
    await_reports(fleet, "a")
    assert fleet.manifest("a")["reports"]["failures"] == 1
    assert "reports_failed" in (fleet.data_dir / "merger.log").read_text()


def test_a_cancelled_run_is_told_of_what_it_has(fleet: Fleet) -> None:
    record = run_record("a", rows=95)
    fleet.put_run(record)
    fleet.put_results([result(record, number) for number in range(3)])
    fleet.put_cursor(Cursor(run_id="a", epoch=1, files={"march": FileCursor(next=CutPosition(sequence=3))}))
    fleet.merger(**ON)
    await_true(lambda: (one := fleet.progress("a")) is not None and one.read_to == 3, "read", fleet.log)
    fleet.put_run(record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    fleet.await_state("a", MergeState.WITHHELD)
    await_reports(fleet, "a")
    text = (fleet.data_dir / "logs" / "a" / "summary_a.md").read_text()
    assert "**cancelled** — 95 rows: 26 ok, 69 failed" in text
    assert "65 rows never came back; they count as failed." in text
    assert "| `cancelled`" in text
