"""A run whose every row is done by several models: one output, their answers side by side."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import Cursor, CutPosition, FileCursor, Result, ResultRow, RunFile, RunRecord, RunState
from prism.service import fault
from prism.tables import render_line
from prism_merger.accounts import ModelAccount, Outcome, RunAccount, Stage, run_from_json, run_to_json
from prism_merger.joining import Line, Shape, join
from tests.unit.merger.test_publication import POINTS, Killed
from tests.unit.merger.test_retries import ENDED, end, manifest, rows_of
from tests.unit.merger.world import COLUMNS, KeptOutlet, World, result, run_record, shuffled

MODELS = ("alpha", "beta:7b")
JOB: dict[str, Any] = {
    "model": {"names": list(MODELS), "batch_size": "10"},
    "output": {"formats": ["csv", "jsonl"], "checkpoints": {"interval": "7"}},
}
ROWS = 25
# As world's results have it: every seventh row fails with the first model; another one with the second.
FIRST_FAILED, SECOND_FAILED = [6, 13, 20], [3]


def variant(file: RunFile, number: int) -> RunFile:
    update = {"label": f"{file.label}.m{number + 1}", "origin": file.label, "model": MODELS[number]}
    return file.model_copy(update=update)


def duo(job: dict[str, Any] | None = None, state: RunState = RunState.RUNNING) -> RunRecord:
    record = run_record(rows=ROWS, labels=("march", "april"), job=job or JOB, state=state)
    files = [variant(file, number) for file in record.files for number in (0, 1)]
    return record.model_copy(update={"files": files})


def answered(one: Result, file: RunFile) -> Result:
    """Return a result as the file's model gives it."""
    if file.model == MODELS[0]:
        return one.model_copy(update={"model": file.model, "model_digest": "d1"})
    rows = [
        ResultRow(row_id=row.row_id, cells=row.cells, reason="refused")
        if number in SECOND_FAILED
        else ResultRow(row_id=row.row_id, cells=row.cells, values=["Other", f"low {number}"])
        for number, row in enumerate(one.rows, one.first_row)
    ]
    return one.model_copy(update={"model": file.model, "rows": rows, "model_digest": "d2"})


def results_of(record: RunRecord) -> list[Result]:
    """Return every result of a run; the cells of a file's rows are the same, whichever model did them."""
    found = []
    for file in record.files:
        for sequence in range(file.batches):
            plain = record.model_copy(update={"files": [file.model_copy(update={"label": file.origin})]})
            one = result(plain, sequence, label=file.origin)
            found.append(answered(one, file).model_copy(update={"label": file.label}))
    return found


def published(folder: Path, record: RunRecord | None = None, seed: int = 1) -> World:
    record = record or duo()
    world = World(folder, [record])
    world.merge(shuffled(results_of(record), seed))
    world.finish()
    return world


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_answers_stand_side_by_side_in_the_inputs_order(tmp_path: Path) -> None:
    world = published(tmp_path)
    rows = rows_of(world.files()["r1_march.csv"])
    coded = ["Topic_alpha", "Topic_beta:7b", "Urgency_alpha", "Urgency_beta:7b"]
    errors = ["Error_alpha", "Error_beta:7b"]
    assert list(rows[0]) == [*COLUMNS, *coded, *errors, "Model_Name", "Batch_Size", "Run_ID", "Error"]
    assert [row["RowID"] for row in rows] == [f"{number + 1:03}" for number in range(ROWS)]
    for number, row in enumerate(rows):
        first, second = number in FIRST_FAILED, number in SECOND_FAILED
        assert row["Error_alpha"] == ("schema_violation" if first else "")
        assert row["Error_beta:7b"] == ("refused" if second else "")
        assert row["Error"] == (row["Error_alpha"] or row["Error_beta:7b"])
        assert row["Urgency_alpha"] == ("" if first else "low")
        assert row["Urgency_beta:7b"] == ("" if second else f"low {number}")
        # The model's cells are harmless in a spreadsheet, and once.
        assert row["Topic_alpha"] in ("", "Other", "'=Billing")
        assert row["Message"] == f'text "{number}", with\nnewline ü'
    assert {row["Model_Name"] for row in rows} == {"alpha, beta:7b"}
    told = world.outlet.announced
    assert {(one.label, one.format) for one in told} == {
        (label, form) for label in ("march", "april") for form in ("csv", "jsonl")
    }
    assert {(one.rows, one.rows_ok, one.rows_failed) for one in told} == {(ROWS, ROWS - 4, 4)}


def test_every_answer_is_counted_for_its_model(tmp_path: Path) -> None:
    world = published(tmp_path)
    found = manifest(world)
    assert found["rows"] == {"in": 4 * ROWS, "ok": 4 * ROWS - 8, "failed": 8}
    by_model = found["by_model"]
    assert by_model["alpha"]["rows"] == {"ok": 2 * ROWS - 6, "failed": 6}
    assert by_model["beta:7b"]["rows"] == {"ok": 2 * ROWS - 2, "failed": 2}
    assert [by_model[name]["calls"] for name in MODELS] == [6, 6]
    assert [by_model[name]["digests"] for name in MODELS] == [["d1"], ["d2"]]
    assert {one["status"] for one in found["files"]} == {"published"}
    told = world.outlet.told[-1]
    assert (told.models["alpha"].rows_failed, told.models["alpha"].prompt_tokens) == (6, 600)
    assert told.labels["Topic_beta:7b"] == {"Other": 2 * ROWS - 2}
    assert "Other" in told.labels["Topic_alpha"]
    assert [one.path for one in told.outputs] == [
        "output/r1_march.csv", "output/r1_march.jsonl", "output/r1_april.csv", "output/r1_april.jsonl",
    ]  # fmt: skip


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_the_next_life_ends_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    calm = published(tmp_path / "calm", seed=2)
    world = World(tmp_path / "killed", [duo()])
    world.merge(shuffled(results_of(duo()), 3))

    def passing(name: str, _: str = "") -> None:
        if name == point:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fault, "point", passing)
        with pytest.raises(Killed):
            world.finish()
    world.close()
    world = World(tmp_path / "killed", [duo()], KeptOutlet())
    world.finish()
    assert world.run().stage is Stage.TOLD
    assert world.files() == calm.files()
    assert manifest(world) == manifest(calm)


def test_an_error_that_is_none_is_null_where_there_is_null(tmp_path: Path) -> None:
    world = published(tmp_path)
    rows = [json.loads(line) for line in world.files()["r1_march.jsonl"].splitlines()]
    assert [row["Error_beta:7b"] for row in rows[2:5]] == [None, "refused", None]
    assert {type(row["Error_alpha"]) for row in rows} == {str, type(None)}
    assert {row["Batch_Size"] for row in rows} == {10}


@pytest.mark.promise(7)
def test_an_answer_of_a_model_that_was_not_asked_is_refused(tmp_path: Path) -> None:
    """A worker of a version that knows of one model asks its own."""
    results = results_of(duo())
    world = World(tmp_path, [duo()])
    world.merge([one.model_copy(update={"model": "prism-embedded"}) for one in results[:2]])
    assert [reason for reason, _ in world.outlet.dead] == ["not_parsed"] * 2
    assert "which was not asked" in world.outlet.dead[0][1]
    world.merge(results, first_offset=10)
    world.finish()
    assert rows_of(world.files()["r1_march.csv"])[0]["Model_Name"] == "alpha, beta:7b"


def test_a_models_name_is_harmless_in_a_spreadsheet() -> None:
    models = ("=1+1|cmd", "b")
    lines = [[(0, render_line(["1", "x", "'=1+1|cmd", "5", "r", ""], ",").encode())], []]
    (found,) = join(Shape(1, 1, models, ",", "gone"), lines)
    assert next(csv.reader([found.content.decode()]))[-4] == "'=1+1|cmd, b"


def test_chosen_columns_and_the_order_are_those_of_the_output(tmp_path: Path) -> None:
    output = {"columns": ["Topic_beta:7b", "RowID", "Error"]}
    job = {**JOB, "output": output, "merge": {"sort_by": "Urgency_beta:7b"}}
    world = published(tmp_path, duo(job))
    rows = rows_of(world.files()["r1_march.csv"])
    assert list(rows[0]) == output["columns"]
    assert len(rows) == ROWS
    order = [int(row["RowID"]) - 1 for row in rows if int(row["RowID"]) - 1 not in SECOND_FAILED]
    assert [f"low {number}" for number in order] == sorted(f"low {number}" for number in order)


@pytest.mark.promise(1)
def test_a_run_that_was_broken_off_has_the_rows_that_any_model_has(tmp_path: Path) -> None:
    job = {**JOB, "merge": {"condition": "always"}}
    record = duo(job)
    world = World(tmp_path, [record])
    kept = [
        one
        for one in results_of(record)
        if one.label == "march.m1" or (one.label, one.sequence) == ("march.m2", 1)
    ]
    world.merge(kept)
    fed = {"march.m1": 3, "march.m2": 2}
    cursors = {label: FileCursor(next=CutPosition(sequence=number)) for label, number in fed.items()}
    world.cursor = Cursor(run_id="r1", epoch=1, files=cursors)
    world.take_in(record.model_copy(update={"state": RunState.CANCELLED}))
    world.finish(silent_s=60.0)
    rows = rows_of(world.files()["r1_march.csv"])
    assert [row["RowID"] for row in rows] == [f"{number + 1:03}" for number in range(ROWS)]
    missing = [number for number, row in enumerate(rows) if row["Error_beta:7b"] == "cancelled"]
    assert missing == [*range(10), *range(20, 25)]
    assert {rows[number]["Topic_beta:7b"] for number in missing} == {""}
    assert "r1_april.csv" in world.files()
    by_model = manifest(world)["by_model"]
    asked = [sum(by_model[name]["rows"].values()) for name in MODELS]
    assert asked == [2 * ROWS, 2 * ROWS], "what never came back failed with the model that was to do it"
    assert rows_of(world.files()["r1_april.csv"]) == []


ALLOWS = "rows failed, merge.max_failed allows"


def judged(**merge: str) -> dict[str, Any]:
    return {**JOB, "merge": merge}


@pytest.mark.parametrize(
    ("second", "most", "outcome"),
    [
        # Of 100 answers 8 failed, each in a row of its own: 8 of 50 rows.
        ([3], "10%", Outcome.WITHHELD),
        ([3], "16%", Outcome.PUBLISHED),
        ([3], "7", Outcome.WITHHELD),
        ([3], "8", Outcome.PUBLISHED),
        # Of 100 answers 12 failed, two in each such row: 6 of 50 rows.
        (FIRST_FAILED, "6", Outcome.PUBLISHED),
        (FIRST_FAILED, "5", Outcome.WITHHELD),
    ],
)
def test_max_failed_counts_rows_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: list[int], most: str, outcome: Outcome
) -> None:
    monkeypatch.setattr(f"{__name__}.SECOND_FAILED", second)
    world = published(tmp_path, duo(judged(max_failed=most)))
    assert world.run("r1").outcome is outcome
    assert bool(world.outlet.announced) is (outcome is Outcome.PUBLISHED)
    assert ("r1_april.csv" in world.files()) is (outcome is Outcome.PUBLISHED)
    told = f"{2 * len({*FIRST_FAILED, *second})} of 50 {ALLOWS} {most}"
    assert manifest(world)["detail"] == (None if outcome is Outcome.PUBLISHED else told)


def test_any_success_wants_one_answer_of_any_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SECOND_FAILED", range(ROWS))
    world = published(tmp_path, duo(judged(condition="any_success")))
    assert world.run("r1").outcome is Outcome.PUBLISHED


# Retries


@pytest.mark.parametrize(("most", "outcome"), [("4%", Outcome.PUBLISHED), ("1", Outcome.WITHHELD)])
def test_a_retry_is_judged_by_the_rows_that_are_left_in_the_whole_output(
    tmp_path: Path, most: str, outcome: Outcome
) -> None:
    """One model's failed rows are done again: the other's, which nobody asked for again, still count."""
    world = published(tmp_path, duo(judged(max_failed=most)))
    assert world.run("r1").outcome is Outcome.WITHHELD
    end(world, "r1")
    record, found = retry({"march.m1": FIRST_FAILED, "april.m1": FIRST_FAILED})
    world.take_in(record.model_copy(update={"job": judged(max_failed=most)}))
    world.merge(found, first_offset=100)
    run = world.finish("r1.r1")
    assert run.outcome is outcome
    assert run.detail == (None if outcome is Outcome.PUBLISHED else f"2 of 50 {ALLOWS} 1")
    assert ("r1_april.csv" in world.files()) is (outcome is Outcome.PUBLISHED)


def retry(labels: dict[str, list[int]]) -> tuple[RunRecord, list[Result]]:
    """Return a retry of some files' rows, and its results."""
    files = [one for one in duo().files if one.label in labels]
    record = run_record("r1.r1", job=JOB, parent="r1")
    files = [one.model_copy(update={"rows": len(labels[one.label]), "batches": 1}) for one in files]
    record = record.model_copy(update={"files": files, "created_at": "2026-11-21T11:01:00Z"})
    found = [
        Result(
            run_id="r1.r1", label=one.label, sequence=0, first_row=0, model=one.model, batch_size=10,
            rows=[
                ResultRow(row_id=f"{n + 1:03}", cells=[f"{n + 1:03}", "m", "0"], values=["Again", "high"])
                for n in labels[one.label]
            ],
        )
        for one in files
    ]  # fmt: skip
    return record, found


@pytest.mark.promise(1)
@pytest.mark.parametrize("labels", [("march.m2",), ("march.m1", "march.m2")])
def test_a_retry_completes_each_models_column_alone(tmp_path: Path, labels: tuple[str, ...]) -> None:
    world = published(tmp_path)
    end(world, "r1")
    before, untouched = rows_of(world.files()["r1_march.csv"]), world.files()["r1_april.csv"]
    failed = {"march.m1": FIRST_FAILED, "march.m2": SECOND_FAILED}
    record, found = retry({label: failed[label] for label in labels})
    world.take_in(record)
    world.merge(found, first_offset=100)
    world.finish("r1.r1")
    after = rows_of(world.files()["r1_march.csv"])
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        for label, model in zip(("march.m1", "march.m2"), MODELS, strict=True):
            done = label in labels and number in failed[label]
            assert new[f"Topic_{model}"] == ("Again" if done else old[f"Topic_{model}"])
            assert new[f"Error_{model}"] == ("" if done else old[f"Error_{model}"])
    assert world.files()["r1_april.csv"] == untouched
    left = 0 if len(labels) == 2 else len(FIRST_FAILED)
    told = world.outlet.announced[-1]
    assert (told.run_id, told.label, told.rows, told.rows_failed) == ("r1.r1", "march", ROWS, left)
    shown = {one["path"]: one["sha256"] for file in manifest(world)["files"] for one in file["outputs"]}
    assert shown["output/r1_march.csv"] == next(
        one.sha256 for one in world.outlet.announced if (one.run_id, one.format) == ("r1.r1", "csv")
    )


@pytest.mark.promise(8)
def test_where_it_completes_nothing_rows_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    world = published(tmp_path)
    end(world, "r1")
    before = world.files()["r1_march.csv"]
    world.places.part("r1", "march.m1", 1).unlink()
    record, found = retry({"march.m1": FIRST_FAILED, "march.m2": SECOND_FAILED})
    world.take_in(record)
    world.merge(found, first_offset=100)
    run = world.finish("r1.r1")
    assert run.outcome is Outcome.WITHHELD
    assert "could not be completed" in (run.detail or "")
    assert world.files()["r1_march.csv"] == before
    assert not [name for name in world.files() if name.startswith("r1.r1_")]


@pytest.mark.promise(1)
def test_a_lost_volume_takes_nothing_from_the_parents_manifest(tmp_path: Path) -> None:
    world = published(tmp_path / "lost")
    end(world, "r1")
    before = manifest(world)
    world.close()
    (tmp_path / "lost" / "merger-0" / "store.sqlite").unlink()
    world = World(tmp_path / "lost")
    ended = duo(state=ENDED)
    world.table.apply("r1", ended.to_bytes())
    world.ledger.leave_ended_alone()
    record, found = retry({"march.m1": FIRST_FAILED})
    world.take_in(record)
    world.merge(found, first_offset=100)
    world.finish("r1.r1")
    assert manifest(world) == before
    assert "r1.r1_march.m1.csv" in world.files()


def test_an_account_of_a_newer_version_is_read() -> None:
    run = RunAccount("r1", {}, by_model={"a": ModelAccount(ok=1)})
    newer = json.loads(run_to_json(run)) | {"later": 1}
    newer["by_model"]["a"]["later"] = 2
    assert run_from_json(json.dumps(newer), {}) == run


def test_without_its_parent_each_models_rows_are_published_alone(tmp_path: Path) -> None:
    record, found = retry({"march.m1": FIRST_FAILED, "march.m2": SECOND_FAILED})
    world = World(tmp_path, [record])
    world.merge(found)
    world.finish("r1.r1")
    alone = {name: rows_of(content) for name, content in world.files().items() if name.endswith(".csv")}
    assert [row["RowID"] for row in alone["r1.r1_march.m1.csv"]] == ["007", "014", "021"]
    assert [row["RowID"] for row in alone["r1.r1_march.m2.csv"]] == ["004"]
    assert {one.label for one in world.outlet.announced} == {"march.m1", "march.m2"}


# The join alone

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@pytest.mark.promise(1)
@pytest.mark.promise(8)
@given(
    rows=st.lists(
        st.tuples(CELL, st.lists(st.none() | st.tuples(CELL, st.booleans()), min_size=3, max_size=3))
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_every_answer_stays_with_its_row_and_its_model(
    rows: list[tuple[str, list[tuple[str, bool] | None]]], delimiter: str
) -> None:
    models = ("a", "b", "c")
    streams: list[list[tuple[int, bytes]]] = [[], [], []]
    for ordinal, (text, answers) in enumerate(rows):
        for model, answer in enumerate(answers):
            if answer is not None:
                value, failed = answer
                cells = [text, "" if failed else value, models[model], "5", "r", "bad" if failed else ""]
                streams[model].append((ordinal, render_line(cells, delimiter).encode()))
    found = list(join(Shape(1, 1, models, delimiter, "gone"), streams))
    there = [(text, answers) for text, answers in rows if any(one is not None for one in answers)]
    assert len(found) == len(there)
    for line, (text, answers) in zip(found, there, strict=True):
        values = ["" if one is None or one[1] else one[0] for one in answers]
        errors = ["gone" if one is None else "bad" if one[1] else "" for one in answers]
        first = next((one for one in errors if one), "")
        cells = [text, *values, *errors, "a, b, c", "5", "r", first]
        assert line == Line(render_line(cells, delimiter).encode(), bool(first))
