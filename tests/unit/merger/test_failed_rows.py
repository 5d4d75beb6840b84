"""`failed_rows.csv`: what failed, as it came, fit to be sent again."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism.messages import Cursor, CutPosition, FileCursor, Result, ResultRow, RunRecord, RunState
from tests.unit.merger.world import COLUMNS, World, result, run_record

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def rows_of(path: Path, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter=delimiter))


def with_delimiter(record: RunRecord, delimiter: str) -> RunRecord:
    files = [one.model_copy(update={"delimiter": delimiter}) for one in record.files]
    return record.model_copy(update={"files": files})


@pytest.mark.promise(1)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.lists(CELLS, min_size=3, max_size=3), st.booleans()), min_size=1, max_size=23),
    batch=st.integers(1, 6),
    delimiter=st.sampled_from(",;\t|"),
)
def test_exactly_the_failed_rows_in_order_as_they_came(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[list[str], bool]],
    batch: int,
    delimiter: str,
) -> None:
    record = with_delimiter(run_record(rows=len(rows), batch=batch), delimiter)
    world = World(tmp_path_factory.mktemp("w"), [record])
    world.merge(
        reversed([batch_of(record, sequence, rows, batch) for sequence in range(-(-len(rows) // batch))])
    )
    world.finish()
    path = world.places.failed_rows("r1", "march", alone=True)
    failed = [cells for cells, bad in rows if bad]
    assert path.exists() == bool(failed)
    if failed:
        assert rows_of(path, delimiter) == [COLUMNS, *failed]
    world.close()


@pytest.mark.parametrize("saved", ["yes", "no"])
def test_a_job_may_want_no_files_of_failed_rows(tmp_path: Path, saved: str) -> None:
    record = run_record(rows=2, job={"error_handling": {"save_failed_ranges": saved}})
    world = World(tmp_path, [record])
    world.merge([batch_of(record, 0, [(["1", "a", "0"], True), (["2", "b", "0"], False)], 10)])
    assert world.finish().failed == 1
    written = world.places.failed_rows("r1", "march", alone=True), world.places.failed_ranges("r1")
    assert [one.exists() for one in written] == [saved == "yes"] * 2
    told = json.loads(world.places.manifest("r1").read_text())
    assert bool(told["failed_ranges"]) is (saved == "yes")
    assert told["rows"] == {"in": 2, "ok": 1, "failed": 1}


@pytest.mark.parametrize("cells", [["1", "a"], ["1", "a", "b", "c", "d"]])
def test_a_row_with_a_wrong_number_of_cells_is_not_mended_by_being_written(
    tmp_path: Path, cells: list[str]
) -> None:
    record = run_record(rows=1)
    world = World(tmp_path, [record])
    answer = batch_of(record, 0, [(cells, True)], 10)
    row = answer.rows[0].model_copy(update={"reason": "wrong_cell_count"})
    world.merge([answer.model_copy(update={"rows": [row]})])
    world.finish()
    found = rows_of(world.places.failed_rows("r1", "march", alone=True))
    assert len(found[1]) == len(COLUMNS) + 1


def batch_of(record: RunRecord, sequence: int, rows: list[tuple[list[str], bool]], batch: int) -> Result:
    chosen = rows[sequence * batch : (sequence + 1) * batch]
    return Result(
        run_id=record.run_id, label="march", sequence=sequence, first_row=sequence * batch, model="m",
        rows=[
            ResultRow(row_id="x", cells=cells, reason="not_json", detail="no")
            if bad
            else ResultRow(row_id="x", cells=cells, values=["a", "b"])
            for cells, bad in chosen
        ],
    )  # fmt: skip


def test_several_files_have_names_of_their_own_in_the_manifest(tmp_path: Path) -> None:
    record = run_record(rows=14, labels=("march", "april"))
    world = World(tmp_path, [record])
    world.merge([result(record, number, label=one.label) for one in record.files for number in range(2)])
    world.finish()
    files = json.loads(world.places.manifest("r1").read_text())["files"]
    names = [one["failed_rows"] for one in files]
    assert names == ["logs/r1/failed_rows_march.csv", "logs/r1/failed_rows_april.csv"]
    assert [len(rows_of(tmp_path / name)) - 1 for name in names] == [2, 2]


def test_no_failures_no_file_and_no_name(tmp_path: Path) -> None:
    record = run_record(rows=6)
    world = World(tmp_path, [record])
    world.merge([result(record, 0)])
    world.finish()
    assert json.loads(world.places.manifest("r1").read_text())["files"][0]["failed_rows"] is None
    assert not world.places.failed_rows("r1", "march", alone=True).exists()


def test_rows_that_never_came_back_are_not_in_it(tmp_path: Path) -> None:
    record = run_record(rows=40)
    world = World(tmp_path, [record])
    world.merge([result(record, 0), result(record, 2)])
    world.take_in(record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    fed = FileCursor(next=CutPosition(sequence=4))
    world.cursor = Cursor(run_id="r1", epoch=2, files={"march": fed})
    run = world.finish(silent_s=60.0)
    assert (run.files["march"].failed, run.files["march"].missing) == (3, 20)
    path = world.places.failed_rows("r1", "march", alone=True)
    assert [row[0] for row in rows_of(path)] == ["RowID", "007", "021", "028"]
