"""A run's failed rows done again: the same output, complete, once, whatever dies meanwhile."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from prism.messages import Result, ResultRow, RunRecord, RunState
from prism.service import fault
from prism_merger.accounts import Outcome, Stage
from prism_merger.shelves import StoreAway
from tests.unit.merger.test_publication import POINTS, Killed, all_results
from tests.unit.merger.world import World, run_record

JOB: dict[str, Any] = {"output": {"checkpoints": {"interval": "7"}}}
ROWS = 25
FAILED = [6, 13, 20]  # as world's results have it: every seventh row
ENDED = RunState.COMPLETED_WITH_FAILURES


def retry_record(number: int, rows: int, job: dict[str, Any] | None = None) -> RunRecord:
    record = run_record(f"r1.r{number}", rows, 10, job=job or JOB, parent="r1")
    return record.model_copy(update={"created_at": f"2026-11-21T11:0{number}:00Z"})


def again(record: RunRecord, numbers: list[int], failing: tuple[int, ...] = ()) -> Result:
    """Return a retry's result: of the parent's rows with these numbers."""
    rows = []
    for number in numbers:
        cells = [f"{number + 1:03}", "again", "0"]
        if number in failing:
            rows.append(ResultRow(row_id=cells[0], cells=cells, reason="not_json"))
        else:
            rows.append(ResultRow(row_id=cells[0], cells=cells, values=["Other", "low"]))
    return Result(
        run_id=record.run_id, label="march", sequence=0, first_row=0, rows=rows, model="m", batch_size=10
    )


def parent(folder: Path, job: dict[str, Any] | None = None) -> World:
    world = World(folder, [run_record(rows=ROWS, job=job or JOB)])
    world.merge(all_results(run_record(rows=ROWS)))
    world.finish()
    end(world, "r1")
    return world


def end(world: World, run_id: str) -> None:
    """The ingestor says that a run has ended."""
    record = world.table.runs[run_id]
    ended = record.model_copy(update={"state": ENDED})
    world.table.apply(run_id, ended.to_bytes())


def retried(world: World, record: RunRecord, result: Result | None) -> None:
    world.take_in(record)
    world.merge([result] if result else [], first_offset=100)
    world.finish(record.run_id)
    end(world, record.run_id)


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def manifest(world: World, run_id: str = "r1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.places.manifest(run_id).read_text())
    return found


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_retries_complete_the_output_row_by_row(tmp_path: Path) -> None:
    world = parent(tmp_path)
    before = rows_of(world.files()["r1_march.csv"])
    retried(world, retry_record(1, 3), again(retry_record(1, 3), FAILED, failing=(13,)))
    after = rows_of(world.files()["r1_march.csv"])
    assert [row["RowID"] for row in after] == [row["RowID"] for row in before]
    assert [number for number, row in enumerate(after) if row["Error"]] == [13]
    assert [number for number, row in enumerate(after) if row["Run_ID"] == "r1.r1"] == FAILED
    assert [row for number, row in enumerate(after) if number not in FAILED] == [
        row for number, row in enumerate(before) if number not in FAILED
    ]
    retried(world, retry_record(2, 1), again(retry_record(2, 1), [13]))
    complete = rows_of(world.files()["r1_march.csv"])
    assert {row["Error"] for row in complete} == {""}
    assert len(complete) == ROWS
    assert [name for name in world.files() if not name.startswith("checkpoint_")] == ["r1_march.csv"]


def test_both_manifests_and_the_announcement_tell_of_it(tmp_path: Path) -> None:
    world = parent(tmp_path)
    retried(world, retry_record(1, 3), again(retry_record(1, 3), FAILED, failing=(13,)))
    child, first = manifest(world, "r1.r1"), manifest(world, "r1")
    assert child["parent"] == "r1"
    assert child["rows"] == {"in": 3, "ok": 2, "failed": 1}
    assert [one["run_id"] for one in first["retries"]] == ["r1.r1"]
    assert first["files"][0]["sha256"] == child["files"][0]["sha256"]
    assert child["files"][0]["rows_out"] == ROWS
    told = world.outlet.announced[-1]
    assert (told.run_id, told.rows, told.rows_ok, told.rows_failed) == ("r1.r1", ROWS, ROWS - 1, 1)


@pytest.mark.promise(3)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_of_a_retry_the_output_is_whole_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    record = retry_record(1, 3)
    calm = parent(tmp_path / "calm")
    retried(calm, record, again(record, FAILED))
    world = parent(tmp_path / "killed")
    before = world.files()["r1_march.csv"]
    world.take_in(record)
    world.merge([again(record, FAILED)], first_offset=100)

    def passing(name: str, detail: str = "") -> None:
        if name == point:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fault, "point", passing)
        with pytest.raises(Killed):
            world.finish("r1.r1")
    assert world.files()["r1_march.csv"] in (before, calm.files()["r1_march.csv"])
    ended = run_record(rows=ROWS, job=JOB).model_copy(update={"state": ENDED})
    world.close()
    world = World(tmp_path / "killed", [ended, record])
    world.finish("r1.r1")
    assert world.run("r1.r1").stage is Stage.TOLD
    assert world.files() == calm.files()
    assert manifest(world, "r1")["files"] == manifest(calm, "r1")["files"]


@pytest.mark.promise(3)
def test_an_output_that_somebody_has_changed_is_not_replaced(tmp_path: Path) -> None:
    world = parent(tmp_path)
    mine = b"edited by hand\n"
    world.places.output("r1_march.csv").write_bytes(mine)
    retried(world, retry_record(1, 3), again(retry_record(1, 3), FAILED))
    assert world.files()["r1_march.csv"] == mine
    assert len(rows_of(world.files()["r1_march-2.csv"])) == ROWS


def test_without_the_parts_the_retried_rows_are_published_alone(tmp_path: Path) -> None:
    world = parent(tmp_path)
    before = world.files()["r1_march.csv"]
    world.places.part("r1", "march", 2).unlink()
    retried(world, retry_record(1, 3), again(retry_record(1, 3), FAILED))
    assert world.files()["r1_march.csv"] == before
    assert len(rows_of(world.files()["r1.r1_march.csv"])) == 3
    assert "could not be completed" in str(manifest(world, "r1.r1")["detail"])


def test_a_retry_of_a_run_that_is_not_here_says_so(tmp_path: Path) -> None:
    record = retry_record(1, 3)
    world = World(tmp_path, [record])
    world.merge([again(record, FAILED)])
    world.finish("r1.r1")
    assert len(rows_of(world.files()["r1.r1_march.csv"])) == 3
    assert "nothing is known here of the rows of r1" in str(manifest(world, "r1.r1")["detail"])


@pytest.mark.parametrize(
    ("failing", "outcome"), [((13,), Outcome.PUBLISHED), (tuple(FAILED), Outcome.WITHHELD)]
)
def test_max_failed_is_of_the_whole_output(
    tmp_path: Path, failing: tuple[int, ...], outcome: Outcome
) -> None:
    job = {**JOB, "merge": {"max_failed": "5%"}}
    world = parent(tmp_path, job)
    assert world.run("r1").outcome is Outcome.WITHHELD
    record = retry_record(1, 3, job)
    retried(world, record, again(record, FAILED, failing))
    assert world.run("r1.r1").outcome is outcome
    assert ("r1_march.csv" in world.files()) is (outcome is Outcome.PUBLISHED)


def test_a_withheld_output_is_published_as_it_is_by_a_retry_without_rows(tmp_path: Path) -> None:
    world = parent(tmp_path, {**JOB, "merge": {"max_failed": "5%"}})
    retried(world, retry_record(1, 0), None)
    rows = rows_of(world.files()["r1_march.csv"])
    assert [number for number, row in enumerate(rows) if row["Error"]] == FAILED


def whole_files(world: World) -> dict[str, int]:
    """Return how many rows each published file has."""
    return {name: len(rows_of(one)) for name, one in world.files().items() if name.endswith("march.csv")}


@pytest.mark.promise(3)
def test_a_retry_of_a_retry_never_takes_the_place_of_the_whole_output(tmp_path: Path) -> None:
    world = parent(tmp_path)
    retried(world, retry_record(1, 3), again(retry_record(1, 3), FAILED, failing=(13,)))
    nested = run_record("r1.r1.r1", 1, 10, job=JOB, parent="r1.r1")
    retried(world, nested, again(nested, [13]))
    assert whole_files(world) == {"r1_march.csv": ROWS, "r1.r1.r1_march.csv": 1}
    assert manifest(world, "r1.r1")["files"][0]["rows_out"] == ROWS


@pytest.mark.promise(3)
def test_rows_that_are_published_alone_are_not_the_parents_output(tmp_path: Path) -> None:
    world = parent(tmp_path)
    before = manifest(world, "r1")["files"]
    part = world.places.part("r1", "march", 2)
    kept = part.read_bytes()
    part.unlink()
    retried(world, retry_record(1, 3), again(retry_record(1, 3), FAILED, failing=(13,)))
    assert manifest(world, "r1")["files"] == before
    part.write_bytes(kept)
    retried(world, retry_record(2, 1), again(retry_record(2, 1), [13]))
    assert whole_files(world) == {"r1_march.csv": ROWS, "r1.r1_march.csv": 3}


@pytest.mark.promise(3)
def test_a_cancelled_retry_changes_neither_the_output_nor_what_the_parent_says_of_it(tmp_path: Path) -> None:
    job = {**JOB, "merge": {"condition": "always"}}
    world = parent(tmp_path, job)
    before = manifest(world, "r1")["files"]
    record = retry_record(1, 3, job)
    world.take_in(record.model_copy(update={"files": [record.files[0].model_copy(update={"batches": 2})]}))
    world.merge([again(record, FAILED[:2])], first_offset=100)
    world.take_in(world.table.runs["r1.r1"].model_copy(update={"state": RunState.CANCELLED}))
    world.finish("r1.r1", silent_s=20)
    assert manifest(world, "r1")["files"] == before
    record = retry_record(2, 3, job)
    retried(world, record, again(record, FAILED))
    assert whole_files(world) == {"r1_march.csv": ROWS, "r1.r1_march.csv": 2}
    assert {row["Error"] for row in rows_of(world.files()["r1_march.csv"])} == {""}


def test_a_withheld_run_is_published_with_its_files_without_failed_rows(tmp_path: Path) -> None:
    job = {**JOB, "merge": {"max_failed": "5%"}}
    record = run_record(rows=ROWS, job=job, labels=("march", "empty"))
    empty = record.files[1].model_copy(update={"rows": 0, "batches": 0})
    record = record.model_copy(update={"files": [record.files[0], empty]})
    world = World(tmp_path, [record])
    world.merge(all_results(run_record(rows=ROWS)))
    world.finish()
    end(world, "r1")
    assert world.run("r1").outcome is Outcome.WITHHELD
    nothing = run_record("r1.r1", 0, 10, job=JOB, labels=("march", "empty"), parent="r1")
    retried(world, nothing, None)
    published = {name: len(rows_of(one)) for name, one in world.files().items() if name.startswith("r1_")}
    assert published == {"r1_march.csv": ROWS, "r1_empty.csv": 0}


def in_store(folder: Path, uri: str) -> World:
    job: dict[str, Any] = {"output": {**JOB["output"], "directory": uri}}
    world = World(folder, [run_record(rows=ROWS, job=job)], schemes=frozenset({"file", "memory"}))
    world.merge(all_results(run_record(rows=ROWS)))
    world.finish()
    end(world, "r1")
    record = retry_record(1, 3, job)
    world.take_in(record)
    world.merge([again(record, FAILED)], first_offset=100)
    return world


@pytest.mark.promise(3)
def test_a_put_that_breaks_off_leaves_the_published_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of files shows what has come of a file, under whatever name it is put."""
    world = in_store(tmp_path, f"file://{tmp_path}/store")
    path = tmp_path / "store" / "r1_march.csv"
    before = path.read_bytes()

    def put_half(_store: Any, here: str, there: str, **_: Any) -> None:
        Path(there).write_bytes(Path(here).read_bytes()[:100])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "put_file", put_half)
        with pytest.raises((Killed, StoreAway)):
            world.finish("r1.r1")
    assert path.read_bytes() == before
    world.finish("r1.r1")
    assert len(rows_of(path.read_bytes())) == ROWS
    assert b"r1.r1" in path.read_bytes()
    assert [one.name for one in (tmp_path / "store").iterdir()] == ["r1_march.csv"]


def test_an_output_that_was_taken_out_of_a_store_holds_up_no_retry(tmp_path: Path) -> None:
    world = in_store(tmp_path, "memory://retries/prism")
    store = fsspec.filesystem("memory")
    store.rm("/retries/prism/r1_march.csv")
    world.finish("r1.r1")
    (found,) = store.ls("/retries/prism", detail=False)
    assert len(rows_of(store.cat(found))) == ROWS
    store.rm("/retries", recursive=True)


@pytest.mark.promise(3)
def test_answers_to_another_prompt_are_not_put_into_an_output(tmp_path: Path) -> None:
    world = parent(tmp_path)
    before = world.files()["r1_march.csv"]
    prompt = {"system_prompt": "Say it otherwise.", "columns_to_code": ["Urgency", "Topic"]}
    record = retry_record(1, 3).model_copy(update={"prompt": prompt})
    retried(world, record, again(record, FAILED))
    assert world.files()["r1_march.csv"] == before
    assert whole_files(world) == {"r1_march.csv": ROWS, "r1.r1_march.csv": 3}
