"""Publication: the same bytes once, whatever order, whatever death."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.messages import Cursor, CutPosition, FileCursor, MergeState, RunRecord, RunState
from prism.service import fault
from prism_merger.accounts import Outcome, Stage
from tests.unit.merger.world import KeptOutlet, World, result, run_record, shuffled

JOB = {"output": {"checkpoints": {"interval": "7"}}}
POINTS = [
    "merger.after_part_written",
    "merger.after_output_written",
    "merger.after_publishing_mark",
    "merger.after_rename",
    "merger.after_manifest",
    "merger.after_published_mark",
    "merger.after_announce",
]


class Killed(BaseException):
    """Stands for SIGKILL."""


def all_results(record: RunRecord, batch: int = 10) -> list[Any]:
    return [
        result(record, sequence, batch, one.label) for one in record.files for sequence in range(one.batches)
    ]


def table(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def published(folder: Path, record: RunRecord, batch: int = 10) -> World:
    world = World(folder, [record])
    world.merge(all_results(record, batch))
    world.finish(record.run_id)
    return world


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    batch=st.integers(1, 9),
    interval=st.integers(1, 15),
    seed=st.integers(0, 10_000),
    twice=st.integers(0, 5),
    commits=st.lists(st.integers(1, 6), min_size=1, max_size=8),
)
def test_any_order_and_repetition_gives_the_same_bytes(
    rows: int, batch: int, interval: int, seed: int, twice: int, commits: list[int]
) -> None:
    record = run_record(rows=rows, batch=batch, job={"output": {"checkpoints": {"interval": interval}}})
    with tempfile.TemporaryDirectory() as left, tempfile.TemporaryDirectory() as right:
        straight = published(Path(left), record, batch)
        world = World(Path(right), [record])
        results = all_results(record, batch)
        pending, number = shuffled(results + results[:twice], seed), 0
        while pending:
            taken = commits[number % len(commits)]
            world.merge(pending[:taken], first_offset=number)
            world.write_parts()
            pending, number = pending[taken:], number + 1
        run = world.finish()
        assert world.files() == straight.files()
        assert run.ok + run.failed == rows
        assert run.extra_calls == twice if twice <= len(results) else len(results)
        assert_parts(world.files(), rows, interval)
        world.close()
        straight.close()


def assert_parts(files: dict[str, bytes], rows: int, interval: int) -> None:
    """Parts are the output cut every `interval` rows, each under the header."""
    header, *lines = table(files["r1_march.csv"])
    parts = [table(files[name]) for name in sorted(files) if name.startswith("checkpoint_")]
    assert len(parts) == -(-rows // interval)
    assert all(part[0] == header for part in parts)
    assert [len(part) - 1 for part in parts[:-1]] == [interval] * (len(parts) - 1)
    assert [line for part in parts for line in part[1:]] == lines


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("passage", [1, 2])
def test_killed_at_any_step_the_next_life_ends_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, passage: int
) -> None:
    record = run_record(rows=25, labels=("march", "april"), job=JOB)
    reference = published(tmp_path / "undisturbed", record)
    world = World(tmp_path / "killed", [record])
    world.merge(all_results(record))
    passed: list[str] = []

    def passing(name: str, detail: str = "") -> None:
        passed.append(name)
        if name == point and passed.count(name) == passage:
            raise Killed(name)

    with monkeypatch.context() as patch:
        patch.setattr(fault, "point", passing)
        try:
            world.finish()
        except Killed:
            world.close()
            world = World(tmp_path / "killed", [record], world.outlet)
            world.finish()
    assert passed.count(point) >= 1
    assert world.files() == reference.files()
    assert world.run().stage is Stage.TOLD
    assert world.outlet.told[-1].state is MergeState.PUBLISHED
    assert {one.sha256 for one in world.outlet.announced} == {
        one.sha256 for one in reference.outlet.announced
    }
    before = [one for one in world.outlet.told if one.state is MergeState.PUBLISHED]
    assert all(len(one.outputs) == 2 for one in before)
    manifest = json.loads(world.places.manifest("r1").read_text())
    assert {one["sha256"] for one in manifest["files"]} == {one.sha256 for one in world.outlet.announced}


def test_a_lost_temporary_file_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run_record(job=JOB)
    world = World(tmp_path, [record])
    world.merge(all_results(record))

    def passing(name: str, detail: str = "") -> None:
        if name == "merger.after_publishing_mark":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fault, "point", passing)
        with pytest.raises(Killed):
            world.finish()
    temporary = world.places.temporary_output("r1", "march")
    temporary.write_bytes(temporary.read_bytes()[:-5])
    again = World(tmp_path, [record])
    again.finish()
    assert len(table(again.files()["r1_march.csv"])) == 26
    assert not temporary.exists()


@pytest.mark.promise(3)
def test_somebody_elses_file_is_never_replaced(tmp_path: Path) -> None:
    record = run_record()
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "r1_march.csv").write_text("mine\n")
    world = published(tmp_path, record)
    assert (tmp_path / "output" / "r1_march.csv").read_text() == "mine\n"
    assert len(table(world.files()["r1_march-2.csv"])) == 26
    manifest = json.loads(world.places.manifest("r1").read_text())["files"][0]
    assert manifest["merged_output"] == "output/r1_march-2.csv"
    assert "not this run's" in manifest["renamed_because"]


@pytest.mark.promise(3)
def test_a_name_taken_in_the_last_moment_is_left_to_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_record()
    world = World(tmp_path, [record])
    world.merge(all_results(record))

    def passing(name: str, detail: str = "") -> None:
        if name == "merger.after_publishing_mark":
            path = tmp_path / "output" / "r1_march.csv"
            if not path.exists():
                path.write_text("mine\n")

    monkeypatch.setattr(fault, "point", passing)
    world.finish()
    assert (tmp_path / "output" / "r1_march.csv").read_text() == "mine\n"
    assert world.outlet.announced[0].path == "output/r1_march-2.csv"


def test_a_lost_store_finds_its_own_file_again(tmp_path: Path) -> None:
    record = run_record()
    first = published(tmp_path, record)
    first.close()
    for one in (tmp_path / "merger-0").iterdir():
        one.unlink()
    second = published(tmp_path, record)
    assert sorted(second.files()) == sorted(first.files())


@pytest.mark.parametrize(
    ("column", "order"), [("Score", "number"), ("RowID", "number"), ("Message", "text"), ("Nowhere", "input")]
)
@pytest.mark.promise(2)
def test_sort_by(tmp_path: Path, column: str, order: str) -> None:
    record = run_record(rows=60, job={"merge": {"sort_by": column}})
    world = World(tmp_path, [record])
    world.merge(shuffled(all_results(record), 5))
    world.finish()
    header, *rows = table(world.files()["r1_march.csv"])
    by_input = sorted(rows, key=lambda row: int(row[0]))
    assert len(rows) == 60
    if order == "input":
        assert rows == by_input
    else:
        at = header.index(column)
        assert rows == sorted(by_input, key=lambda row: int(row[at]) if order == "number" else row[at])
    note = json.loads(world.places.manifest("r1").read_text())["sort_by"]
    assert (note["ignored_because"] is not None) == (order == "input")
    assert not list((tmp_path / "merger-0").glob("sort-*"))


def test_a_run_without_rows_gives_a_header(tmp_path: Path) -> None:
    world = World(tmp_path, [run_record(rows=0)])
    run = world.finish()
    assert run.outcome is Outcome.PUBLISHED
    assert world.files() == {
        "r1_march.csv": b"RowID,Message,Score,Topic,Urgency,Model_Name,Batch_Size,Run_ID,Error\n"
    }


@pytest.mark.parametrize(
    ("merge", "outcome"),
    [
        ({}, Outcome.PUBLISHED),
        ({"condition": "any_success"}, Outcome.PUBLISHED),
        ({"max_failed": "3"}, Outcome.PUBLISHED),
        ({"max_failed": "2"}, Outcome.WITHHELD),
        ({"max_failed": "11%"}, Outcome.WITHHELD),
        ({"max_failed": "12%"}, Outcome.PUBLISHED),
    ],
)
def test_merge_conditions(tmp_path: Path, merge: dict[str, str], outcome: Outcome) -> None:
    world = published(tmp_path, run_record(job={"merge": merge, **JOB}))
    run = world.run()
    assert run.outcome is outcome
    assert bool(world.outlet.announced) is (outcome is Outcome.PUBLISHED)
    assert len(list(tmp_path.glob("checkpoints/r1/*"))) == 4
    assert json.loads(world.places.manifest("r1").read_text())["rows"] == {"in": 25, "ok": 22, "failed": 3}


def test_any_success_without_any_is_withheld(tmp_path: Path) -> None:
    record = run_record(rows=1, job={"merge": {"condition": "any_success"}})
    world = World(tmp_path, [record])
    answer = result(record, 0)
    row = answer.rows[0].model_copy(update={"values": None, "reason": "not_json"})
    world.merge([answer.model_copy(update={"rows": [row]})])
    assert world.finish().outcome is Outcome.WITHHELD


@pytest.mark.promise(1)
@pytest.mark.parametrize("condition", ["all_success", "always"])
@pytest.mark.parametrize(
    ("state", "reason"), [(RunState.CANCELLED, "cancelled"), (RunState.FAILED, "source_changed")]
)
def test_a_broken_off_run_counts_every_row(
    tmp_path: Path, condition: str, state: RunState, reason: str
) -> None:
    record = run_record(rows=60, job={"merge": {"condition": condition}, **JOB})
    world = World(tmp_path, [record])
    world.merge([result(record, number) for number in (0, 1, 4)])
    world.take_in(record.model_copy(update={"state": state, "epoch": 2, "reason": "source_changed"}))
    world.cursor = Cursor(run_id="r1", epoch=2, files={"march": FileCursor(next=CutPosition(sequence=5))})
    assert world.finish(silent_s=5).stage is Stage.MERGING
    run = world.finish(silent_s=11)
    assert run.ok + run.failed == 60
    assert run.failed_by_reason[reason] == 30
    manifest = json.loads(world.places.manifest("r1").read_text())
    assert manifest["status"] == state.value
    ranges = json.loads(world.places.failed_ranges("r1").read_text())
    assert sum(one["count"] for one in ranges) == run.failed
    missing = [tuple(one["row_range"].values()) for one in ranges if one["reason"] == reason]
    assert missing == [(21, 40), (51, 60)]
    if condition == "always":
        assert run.partial
        assert [int(row[0]) for row in table(world.files()["r1_march.csv"])[1:]] == [
            *range(1, 21), *range(41, 51),
        ]  # fmt: skip
        assert world.outlet.announced[0].partial
    else:
        assert world.outlet.announced == []
        assert not list(tmp_path.glob("output/*.csv"))


def test_a_broken_off_run_is_closed_once_all_that_was_fed_is_merged(tmp_path: Path) -> None:
    record = run_record(rows=60)
    world = World(tmp_path, [record])
    world.merge([result(record, number) for number in (0, 1)])
    world.take_in(record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    world.cursor = Cursor(run_id="r1", epoch=2, files={"march": FileCursor(next=CutPosition(sequence=2))})
    assert world.finish(silent_s=1).stage is Stage.MERGING  # what was fed after the cursor may still come
    assert world.finish(silent_s=2).stage is Stage.TOLD


def test_failed_ranges_join_neighbours_of_one_reason(tmp_path: Path) -> None:
    record = run_record(rows=10)
    answer = result(record, 0)
    reasons = [None, "not_json", "not_json", "lost", None, "not_json", "not_json", "not_json", None, None]
    rows = [
        row.model_copy(update={"reason": reason, "values": None if reason else ["a", "b"], "detail": "why"})
        for row, reason in zip(answer.rows, reasons, strict=True)
    ]
    world = World(tmp_path, [record])
    world.merge([answer.model_copy(update={"rows": rows})])
    world.finish()
    ranges = json.loads(world.places.failed_ranges("r1").read_text())
    found = [(*one["row_range"].values(), one["reason"], one["count"]) for one in ranges]
    assert found == [(2, 3, "not_json", 2), (4, 4, "lost", 1), (6, 8, "not_json", 3)]
    assert ranges[0]["row_ids"] == {"first": "002", "last": "003"}
    assert ranges[0]["detail"] == "why"


@pytest.mark.parametrize(("rows", "parts"), [(6, 0), (25, 4)])
def test_parts_go_when_the_job_says_so_and_no_retry_needs_them(tmp_path: Path, rows: int, parts: int) -> None:
    job = {"output": {"checkpoints": {"interval": "7", "cleanup_after_merge": "true"}}}
    world = published(tmp_path, run_record(rows=rows, job=job))
    assert len([name for name in world.files() if name.startswith("checkpoint_")]) == parts


def test_two_labels_under_one_name_get_two_files(tmp_path: Path) -> None:
    job = {"output": {"naming_pattern": "{project}"}}
    world = published(tmp_path, run_record(labels=("march", "april"), job=job))
    assert {"run.csv", "run-2.csv"} <= set(world.files())


def test_an_announcement_that_is_not_acknowledged_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_record()
    world = World(tmp_path, [record])
    world.merge(all_results(record))

    def away() -> None:
        raise OSError("broker away")

    with monkeypatch.context() as patch:
        patch.setattr(world.outlet, "settle", away)
        with pytest.raises(OSError, match="away"):
            world.finish()
    assert world.run().stage is Stage.CLOSED
    assert all(one.state is not MergeState.PUBLISHED for one in world.outlet.told)
    outlet: KeptOutlet = world.outlet
    again = World(tmp_path, [record], outlet)
    again.finish()
    assert [one.sha256 for one in outlet.announced] == [outlet.announced[0].sha256] * 2
    assert outlet.told[-1].state is MergeState.PUBLISHED
