"""Rows that fail: what `merge` makes of the output, what is told of them, and the retry that completes it."""

import json

import pytest

from tests.acceptance.conftest import MODEL, await_true
from tests.acceptance.jobs import Desk, job, table

ROWS = 60
# A model that never answers one row in ten, until it is mended.
FAULT = "text:BROKEN=http_500"
SECTION = f"model: {{name: {MODEL}, batch_size: 5, retries: 2, delay: 0}}\n"


def content() -> str:
    return table(ROWS, mark=lambda number: "BROKEN" if number % 10 == 3 else "")


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("merge", "published"),
    [
        ("condition: all_success", True),
        ("condition: any_success", True),
        ("condition: always", True),
        ("max_failed: 10%", True),
        ("max_failed: 5", False),
    ],
)
def test_ten_per_cent_failed(desk: Desk, merge: str, published: bool) -> None:
    desk.control(faults=FAULT)
    run_id = "m-" + "".join(one for one in merge if one.isalnum())
    job(desk, run_id, content(), f"{SECTION}merge: {{{merge}}}\n", code=6)
    manifest = desk.manifest(run_id)
    assert manifest["rows"] == {"in": ROWS, "ok": 54, "failed": 6}
    assert desk.output(run_id, "t").exists() is published
    ranges = json.loads((desk.folder / "logs" / run_id / "failed_ranges.json").read_text())
    assert [one["row_range"]["start"] for one in ranges] == [3, 13, 23, 33, 43, 53]
    assert {one["reason"] for one in ranges} == {"model_error"}


def test_no_row_ok_publishes_nothing_where_one_is_wanted(desk: Desk) -> None:
    lines = "RowID,Message\n" + "".join(f"{number},one cell,too many\n" for number in range(6))
    job(desk, "none", lines, f"{SECTION}merge: {{condition: any_success}}\n", code=6)
    assert not desk.output("none", "t").exists()


@pytest.mark.promise(3)
def test_a_retry_completes_the_output_under_its_name(desk: Desk) -> None:
    desk.control(faults=FAULT)
    job(desk, "again", content(), SECTION, code=6)
    failed = (desk.folder / "logs" / "again" / "failed_rows.csv").read_text().splitlines()
    assert failed[0] == "RowID,Title,Message,Sentiment"
    assert len(failed) == 7
    desk.control(faults="", reset=True)
    done = desk.prism("retry", "again", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["run_id"] == "again.r1"
    assert told["rows"] == {"in": 6, "ok": 6, "failed": 0}
    rows = desk.rows("again", "t")
    assert [row["RowID"] for row in rows] == [str(number) for number in range(1, ROWS + 1)]
    assert {row["Error"] for row in rows} == {""}
    assert [row["RowID"] for row in rows if row["Run_ID"] == "again.r1"] == [
        "3",
        "13",
        "23",
        "33",
        "43",
        "53",
    ]
    assert desk.stats()["rows"] == 6, "no other row was paid for again"
    assert [one["run_id"] for one in desk.manifest("again")["retries"]] == ["again.r1"]
    more = desk.prism("retry", "again")
    assert more.returncode == 3
    assert "again.r1 has no failed rows" in more.stderr


def test_a_withheld_output_is_published_as_it_is(desk: Desk) -> None:
    desk.control(faults=FAULT)
    job(desk, "withheld", content(), f"{SECTION}merge: {{max_failed: 0}}\n", code=6)
    assert not desk.output("withheld", "t").exists()
    done = desk.prism("retry", "withheld", "--publish")
    assert done.returncode == 0, done.stderr
    assert sum(bool(row["Error"]) for row in desk.rows("withheld", "t")) == 6


def test_strategy_stop_ends_the_run_with_its_first_failed_row(desk: Desk) -> None:
    desk.control(faults=FAULT, slots=1, latency_ms=50.0)
    rows = table(1000, mark=lambda number: "BROKEN" if number == 3 else "")
    job(desk, "stops", rows, f"{SECTION}error_handling: {{strategy: stop}}\n", code=3)
    status = desk.status("stops")
    assert (status["state"], status["reason"]) == ("failed", "row_failed")
    assert desk.stats()["rows"] < 1000


def test_the_output_waits_for_prism_merge_where_the_job_says_so(desk: Desk) -> None:
    made = Desk.made(desk.folder / "jobs" / "held", desk.server, "merge: {auto_merge: false}\n", t=table(20))
    words = ("--data-dir", str(desk.data_dir), "--run-id", "held", "--detach")
    assert made.run(*words).returncode == 0
    desk.await_done("held", 20)
    await_true(lambda: "prism merge held" in str(desk.status("held")), "it says what it waits for")
    assert not desk.output("held", "t").exists()
    done = desk.prism("merge", "held")
    assert done.returncode == 0, done.stderr
    assert len(desk.rows("held", "t")) == 20


def test_rows_of_manual_ranges_are_taken_and_no_others(desk: Desk) -> None:
    ranges = "split_strategy: manual, manual_ranges: [{start: 41, end: 50}, {start: 3, end: 7}]"
    job(desk, "ranges", table(60), f"parallelization: {{{ranges}}}\n")
    assert [row["RowID"] for row in desk.rows("ranges", "t")] == [
        str(number) for number in [*range(3, 8), *range(41, 51)]
    ]
    assert desk.manifest("ranges")["rows"] == {"in": 15, "ok": 15, "failed": 0}
