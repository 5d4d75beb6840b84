"""The failures of PRISM v6 that were measured (seeds/BEHAVIOUR.md), each as a run that succeeds here.

The third (a resumed run starts from nothing) is `test_run.py`; the eighth (650 MiB for a million rows) is
shown by `python -m benchmarks memory`.
"""

import json
import os
import signal

import pytest

from tests.acceptance.conftest import MODEL, Fleet, await_true
from tests.acceptance.jobs import Desk, job, table


def test_1_a_batch_of_ten_is_answered_as_ten(desk: Desk) -> None:
    """There: `format: json` gave one object for ten rows, and 2,000 rows became error texts."""
    model = f"model: {{name: {MODEL}, batch_size: 10}}\n"
    job(desk, "ten", table(200), model)
    assert desk.stats()["calls"] == 20
    rows = desk.rows("ten", "t")
    assert {row["Error"] for row in rows} == {""}
    assert not any("ERROR" in cell for row in rows for cell in row.values())


@pytest.mark.promise(7)
def test_2_answers_that_come_in_another_order_go_to_their_rows(desk: Desk) -> None:
    """There: answers were matched by position, and swapped ones labelled the wrong rows in silence."""
    job(desk, "calm", table(60))
    desk.control(faults="swapped=0.5,wrong_identity=0.2")
    job(desk, "swapped", table(60))
    assert desk.stats()["by_fault"], "answers were swapped"
    answers = [[row[name] for name in ("RowID", "Topic", "Key_Point")] for row in desk.rows("swapped", "t")]
    assert answers == [
        [row[name] for name in ("RowID", "Topic", "Key_Point")] for row in desk.rows("calm", "t")
    ]


def test_4_a_killed_worker_hangs_nothing_and_loses_no_row(desk: Desk, jobs_fleet: Fleet) -> None:
    """There: the orchestrator hung for ever, or 1,500 of 2,000 rows were "completed"."""
    desk.control(latency_ms=50.0, slots=2)
    made = Desk.made(desk.folder / "jobs" / "killed", desk.server, t=table(200))
    command = made.begin("--data-dir", str(jobs_fleet.data_dir), "--run-id", "killed")
    desk.await_done("killed", 40)
    os.kill(jobs_fleet.pid_now("worker-1"), signal.SIGKILL)
    assert command.wait(120) == 0, command.communicate()[0]
    assert _ids(desk, "killed") == [str(number) for number in range(1, 201)]


@pytest.mark.parametrize(
    ("run_id", "row_ids"),
    [
        ("gaps", [7, 9, 1000001]),
        ("down", list(range(500, 440, -1))),
        ("texts", [f"A-{number:04d}" for number in range(30)]),
        ("zero", list(range(12))),
    ],
)
def test_5_row_ids_are_names_not_numbers(desk: Desk, run_id: str, row_ids: list[object]) -> None:
    """There: RowIDs that were not 1 to N gave 0 or 667 of 2,000 rows, "completed"."""
    content = "RowID,Message\n" + "".join(f"{one},late shipping of {one}\n" for one in row_ids)
    job(desk, run_id, content)
    assert _ids(desk, run_id) == [str(one) for one in row_ids]


def test_6_without_sentiment_with_strange_labels_and_with_calls_that_hang(desk: Desk) -> None:
    """There: a crash, a lost batch, a call that never ended, and `errors` 0 beside error rows."""
    desk.control(faults="nan=0.1,long_number=0.1,text:HANGS=hang,text:BROKEN=http_500")
    content = "Message\n" + "".join(
        f"message {number}{' HANGS' if number == 17 else ' BROKEN' if number == 33 else ''}\n"
        for number in range(60)
    )
    job(desk, "strange", content, f"model: {{name: {MODEL}, batch_size: 5, retries: 1, delay: 0}}\n", code=6)
    rows = desk.rows("strange", "t")
    failed = {number: row["Error"] for number, row in enumerate(rows) if row["Error"]}
    assert failed == {17: "model_timeout", 33: "model_error"}
    assert all(row["Topic"] == "" for row in rows if row["Error"]), "no error stands in a data cell"

    def errors() -> int:
        files = (desk.folder / "status" / "strange").glob("worker_*.json")
        return sum(json.loads(one.read_text())["errors"] for one in files)

    await_true(lambda: errors() == 2, "the workers' files count the failed rows")


def test_7_checkpoints_at_any_interval(desk: Desk) -> None:
    """There: checkpoints only where rows were a multiple of both batch size and interval."""
    job(desk, "parts", table(50), "output: {checkpoints: {interval: 7}}\n")
    parts = sorted((desk.folder / "checkpoints" / "parts").glob("*.csv"))
    assert [len(one.read_text().splitlines()) - 1 for one in parts] == [7] * 7 + [1]


def _ids(desk: Desk, run_id: str) -> list[str]:
    return [row["RowID"] for row in desk.rows(run_id, "t")]
