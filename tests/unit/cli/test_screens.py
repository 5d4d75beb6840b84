"""Status and watch: what a script reads, what a person sees, and the exit code that says the same."""

from pathlib import Path

import pytest
from rich.console import Console

from prism.messages import RunState
from prism_cli import status, watching
from prism_cli.board import RunView, WorkerView
from tests.unit.cli.views import output_file, run_view, worker_view


def drawn(thing: object, width: int = 80) -> str:
    console = Console(width=width, highlight=False, markup=False, force_terminal=False)
    with console.capture() as captured:
        console.print(thing)
    return captured.get()


def test_the_status_of_a_run_has_what_scripts_rely_on() -> None:
    view = run_view(
        RunState.COMPLETED_WITH_FAILURES,
        rows_ok=8,
        rows_failed=2,
        calls=3,
        extra_calls=1,
        rows_per_s=0.0,
        mean_rows_per_s=12.345,
        outputs=[output_file(uri="s3://bucket/t1_march.csv")],
    )
    told = view.as_json()
    assert told["rows"] == {"in": 10, "ok": 8, "failed": 2}
    assert (told["run_id"], told["state"], told["reason"]) == ("t1", "completed_with_failures", None)
    assert (told["calls"], told["extra_calls"], told["rows_per_s"]) == (3, 1, 12.35)
    (output,) = told["outputs"]
    assert (output["path"], output["rows"]) == ("s3://bucket/t1_march.csv", 10)
    assert output["sha256"] == "a" * 64


def test_an_output_that_lies_here_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "output" / "t1_march.csv"
    path.parent.mkdir()
    path.write_text("x")
    view = run_view(outputs=[output_file(uri="file:///elsewhere/t1_march.csv")])
    assert view.as_json(tmp_path)["outputs"][0]["path"] == str(path)


def test_a_refusal_says_reason_line_and_column() -> None:
    place = {"record_line": 3, "record_column": 2}
    view = run_view(RunState.REFUSED, record_reason="not_utf8", record_detail="byte 7 is no UTF-8", **place)
    assert status.explanation(view) == "not_utf8: byte 7 is no UTF-8 (line 3, column 2)"
    told = view.as_json()
    assert (told["reason"], told["line"], told["column"]) == ("not_utf8", 3, 2)


def test_a_place_that_the_detail_names_is_not_said_twice() -> None:
    view = run_view(
        RunState.REFUSED, record_reason="not_utf8", record_detail="not_utf8 at line 3", record_line=3
    )
    assert status.explanation(view) == "not_utf8 at line 3"


def test_nobodys_text_moves_the_cursor() -> None:
    view = run_view(RunState.FAILED, record_detail="a\x1b[2Jb\nc", record_job_name="x\x07")
    for text in (drawn(status.run_screen(view, None)), drawn(watching.moving("t1", view, []))):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "a·[2Jb⏎c" in drawn(status.run_screen(view, None))


def test_a_stalled_run_says_why() -> None:
    view = run_view(record_stalled="no worker")
    assert "running stalled" in drawn(status.run_screen(view, None))
    assert "stalled: no worker" in drawn(watching.moving("t1", view, []))
    assert view.as_json()["stalled"] == "no worker"
    assert view.reason == "no worker"


def test_a_run_that_has_ended_is_not_stalled() -> None:
    view = run_view(RunState.COMPLETED, record_stalled="no worker")
    assert view.reason is None
    assert "stalled" not in drawn(status.run_screen(view, None))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_moving_screen_stays_within_its_width(width: int) -> None:
    view = run_view(rows=500_000, rows_ok=123_456, rows_per_s=1234.5, eta_s=7265, rows_failed=3)
    lines = drawn(watching.moving("feedback_20261121_101112_3-42", view, [worker_view()]), width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 8


def test_the_workers_are_one_line() -> None:
    waiting = worker_view(state="waiting", reason="model server away")
    lost = worker_view(silent_s=9.0, worker_id="worker-2")
    assert watching.workers_line([]) == "no model worker is running"
    assert watching.workers_line([lost]) == "no model worker is running"
    line = watching.workers_line([waiting, lost])
    assert line == "1 worker, 0 calls under way, 1 silent, waiting: model server away"


ENDS = [
    (run_view(RunState.COMPLETED, rows_ok=10), 0),
    (run_view(RunState.COMPLETED_WITH_FAILURES, rows_ok=9, rows_failed=1), 6),
    (run_view(RunState.REFUSED, record_reason="empty_file"), 3),
    (run_view(RunState.FAILED, record_reason="source_changed"), 3),
    (run_view(RunState.CANCELLED), 1),
]


@pytest.mark.parametrize(("view", "code"), ENDS)
def test_a_wait_exits_as_the_run_ended(view: RunView, code: int, tmp_path: Path) -> None:
    assert watching.finish(view, tmp_path, as_json=False) == code


def test_outputs_are_data_and_the_rest_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = run_view(RunState.COMPLETED, rows_ok=10, outputs=[output_file(uri="s3://b/o.csv")])
    watching.finish(view, tmp_path, as_json=False)
    told = capsys.readouterr()
    assert told.out == "s3://b/o.csv\n"
    assert told.err == "t1 completed: 10 of 10, 0 failed\n"


def test_lines_come_when_the_state_changes_and_every_few_seconds() -> None:
    now = [0.0]
    said: list[str] = []
    screen = watching.LineScreen(lambda: now[0], said.append)
    workers: list[WorkerView] = [worker_view()]
    for at, view in [
        (0.0, None),
        (0.5, run_view(RunState.ACCEPTED)),
        (1.0, run_view(RunState.RUNNING)),
        (2.0, run_view(RunState.RUNNING, rows_ok=3)),
        (7.0, run_view(RunState.RUNNING, rows_ok=5)),
        (8.0, run_view(RunState.COMPLETED, rows_ok=10)),
    ]:
        now[0] = at
        screen.show("t1", view, workers)
    assert [line.split(",")[0] for line in said] == [
        "t1 accepted: 0 of 10",
        "t1 running: 0 of 10",
        "t1 running: 5 of 10",
    ]


def test_a_run_that_nobody_takes_up_is_worth_a_word() -> None:
    now = [0.0]
    said: list[str] = []
    screen = watching.LineScreen(lambda: now[0], said.append)
    for at in (1.0, 11.0, 12.0):
        now[0] = at
        screen.show("t1", None, [])
    assert said == ["t1 is not yet taken up; is an ingestor running? prism doctor"]
