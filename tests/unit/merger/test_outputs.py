"""Outputs in every format: the same rows, the chosen columns, in any column's order, once."""

import hashlib
import io
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import MergeState, RunRecord
from prism.runs.columns import output_columns
from prism.service import fault
from prism.service.readiness import Readiness
from prism.tables import render_line
from prism_merger.accounts import Outcome, Stage, file_from_json
from prism_merger.desk import Desk
from prism_merger.finishing import Finisher
from prism_merger.layouts import CHUNKS, Layout
from prism_merger.recovery import adopt_published
from prism_merger.shelves import StoreAway
from prism_merger.store import RowReader
from tests.unit.merger.test_publication import Killed, all_results, published, table
from tests.unit.merger.world import World, run_record

FORMATS = ["csv", "jsonl", "parquet"]
ALL = {"output": {"formats": FORMATS, "checkpoints": {"interval": "7"}}}
COLUMNS = output_columns(["RowID", "Message"], ["Topic"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def rows_of(files: dict[str, bytes], stem: str, form: str) -> tuple[list[str], list[list[str]]]:
    """Return names and rows of an output, as text, whatever its format."""
    content = files[f"{stem}.{form}"]
    if form == "csv":
        header, *rows = table(content)
        return header, rows
    if form == "jsonl":
        objects = [json.loads(line) for line in content.decode().removesuffix("\n").split("\n")]
    else:
        objects = pq.read_table(io.BytesIO(content)).to_pylist()
    return list(objects[0]), [["" if one is None else str(one) for one in row.values()] for row in objects]


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), min_size=1, max_size=20),
    block=st.integers(1, 7),
    delimiter=st.sampled_from(",;\t"),
)
def test_any_cells_are_the_same_in_every_format(
    rows: list[tuple[str, ...]], block: int, delimiter: str
) -> None:
    cells = [[row_id, text, topic, "m", "10", "r", error] for row_id, text, topic, error in rows]
    lines = [render_line(row, delimiter).encode() for row in cells]
    blocks = [lines[start : start + block] for start in range(0, len(lines), block)]
    layout = Layout.of(COLUMNS, None, delimiter)
    assert b"".join(CHUNKS["csv"](layout, blocks)) == b"".join(
        [render_line(COLUMNS, delimiter).encode(), *lines]
    )
    for form in ("jsonl", "parquet"):
        content = b"".join(CHUNKS[form](layout, blocks))
        assert rows_of({f"t.{form}": content}, "t", form) == (COLUMNS, cells)


def test_types_of_the_other_formats(tmp_path: Path) -> None:
    files = published(tmp_path, run_record(job=ALL)).files()
    objects = [json.loads(line) for line in files["r1_march.jsonl"].splitlines()]
    assert {type(one["Batch_Size"]) for one in objects} == {int}
    assert [one["Error"] for one in objects[:7]] == [None] * 6 + ["schema_violation"]
    schema = pq.read_schema(io.BytesIO(files["r1_march.parquet"]))
    assert {str(one.type) for one in schema} == {"string", "int32"}
    assert [one.name for one in schema if one.nullable] == ["Error"]
    assert pq.read_table(io.BytesIO(files["r1_march.parquet"]))["Error"].null_count == 22


def test_row_groups_are_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prism_merger.layouts.GROUP_ROWS", 4)
    monkeypatch.setattr("prism_merger.layouts.GROUP_BYTES", 150)
    monkeypatch.setattr("prism_merger.layouts.PIECE_ROWS", 2)
    monkeypatch.setattr("prism_merger.layouts.PIECE_BYTES", 100)
    layout = Layout.of(COLUMNS, None, ",")
    short = [render_line([str(n), "", "", "m", "1", "r", ""]).encode() for n in range(9)]
    long = [render_line([str(n), "x" * 100, "", "m", "1", "r", ""]).encode() for n in range(3)]
    content = b"".join(CHUNKS["parquet"](layout, [short, long]))
    metadata = pq.read_metadata(io.BytesIO(content))
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [4, 4, 3, 1]


def test_a_run_without_rows_in_every_format(tmp_path: Path) -> None:
    world = World(tmp_path, [run_record(rows=0, job=ALL)])
    assert world.finish().outcome is Outcome.PUBLISHED
    assert world.files()["r1_march.jsonl"] == b""
    assert pq.read_table(io.BytesIO(world.files()["r1_march.parquet"])).num_rows == 0


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "point",
    [
        "merger.after_output_written",
        "merger.after_publishing_mark",
        "merger.after_rename",
        "merger.after_manifest",
        "merger.after_published_mark",
        "merger.after_announce",
    ],
)
@pytest.mark.parametrize("target", ["folder", "store"])
def test_killed_between_formats_the_next_life_ends_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, target: str
) -> None:
    for passage in range(1, 7):
        folder = tmp_path / str(passage)
        job = ALL if target == "folder" else to_store(folder / "store")
        killed_once(folder, job, monkeypatch, point, passage)


def to_store(folder: Path) -> dict[str, Any]:
    return {"output": {**ALL["output"], "directory": f"file://{folder}"}}


def killed_once(
    folder: Path, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch, point: str, passage: int
) -> None:
    record = run_record(rows=25, labels=("march", "april"), job=job)
    schemes = frozenset({"file"})
    world = World(folder, [record], schemes=schemes)
    world.merge(all_results(record))
    passed: list[str] = []

    def passing(name: str, detail: str = "") -> None:
        del detail
        passed.append(name)
        if name == point and passed.count(name) == passage:
            raise Killed(name)

    with monkeypatch.context() as patch:
        patch.setattr(fault, "point", passing)
        try:
            world.finish()
        except Killed:
            world.close()
            world = World(folder, [record], world.outlet, schemes)
            world.finish()
    assert world.run().stage is Stage.TOLD
    # What is durable is not written a second time.
    written = passed.count("merger.after_output_written")
    assert written == (7 if point == "merger.after_output_written" else 6)
    here = world.places.outputs if job is ALL else folder / "store"
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(f"r1_{label}.{form}" for label in ("march", "april") for form in FORMATS)
    announced = {(one.label, one.format): one for one in world.outlet.announced}
    assert len(announced) == 6
    for one in announced.values():
        content = (here / f"r1_{one.label}.{one.format}").read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (one.sha256, one.bytes)
        assert one.rows == 25
    outputs = world.outlet.told[-1].outputs
    assert {(one.label, one.format, one.sha256) for one in outputs} == {
        (*key, one.sha256) for key, one in announced.items()
    }
    assert list(folder.glob("output/.*")) == []


@pytest.mark.promise(3)
def test_each_format_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "r1_march.jsonl").write_text("mine\n")
    world = published(tmp_path, run_record(job=ALL))
    assert world.files()["r1_march.jsonl"] == b"mine\n"
    outputs = json.loads(world.places.manifest("r1").read_text())["files"][0]["outputs"]
    assert [one["path"] for one in outputs] == [
        "output/r1_march.csv",
        "output/r1_march-2.jsonl",
        "output/r1_march.parquet",
    ]
    assert [bool(one["renamed_because"]) for one in outputs] == [False, True, False]


def test_a_csv_alone_is_what_it_was(tmp_path: Path) -> None:
    """The bytes that the version before formats wrote for these rows."""
    files = published(tmp_path, run_record()).files()
    digest = hashlib.sha256(files["r1_march.csv"]).hexdigest()
    assert digest == OF_THE_LAST_VERSION


OF_THE_LAST_VERSION = "3016946ce87851c96aa13f02291717fce2b67eb01bb7e77c1ce8660c54894f4c"


# Columns


@pytest.mark.parametrize("form", FORMATS)
def test_chosen_columns_in_their_order(tmp_path: Path, form: str) -> None:
    chosen = ["Topic", "Error", "RowID", "Batch_Size"]
    whole = published(tmp_path / "whole", run_record()).files()
    job = {"output": {"formats": [form], "columns": chosen}}
    world = published(tmp_path / "some", run_record(job=job))
    header, rows = rows_of(world.files(), "r1_march", form)
    names, lines = rows_of(whole, "r1_march", "csv")
    assert header == chosen
    assert rows == [[line[names.index(name)] for name in chosen] for line in lines]


def test_parts_keep_every_column(tmp_path: Path) -> None:
    job = {"output": {"columns": ["RowID"], "checkpoints": {"interval": "7"}}}
    files = published(tmp_path, run_record(job=job)).files()
    parts = [name for name in files if name.startswith("checkpoint_")]
    assert len(parts) == 4
    assert all(len(table(files[name])[0]) == 9 for name in parts)


@pytest.mark.parametrize("column", ["Topic", "Error", "Batch_Size", "Validated_Score"])
@pytest.mark.promise(2)
def test_sort_by_coded_columns_and_ours(tmp_path: Path, column: str) -> None:
    job = {"merge": {"sort_by": column}, "output": {"formats": FORMATS}}
    record = run_record(rows=40, job=job)
    if column == "Validated_Score":
        prompt = {"system_prompt": "Say.", "columns_to_code": ["Score", "Urgency"]}
        record = record.model_copy(update={"prompt": prompt})
    files = published(tmp_path, record).files()
    header, rows = rows_of(files, "r1_march", "csv")
    by_input = sorted(rows, key=lambda row: int(row[0]))
    assert rows == sorted(by_input, key=lambda row: row[header.index(column)])
    assert rows_of(files, "r1_march", "jsonl") == rows_of(files, "r1_march", "parquet") == (header, rows)


# What older versions left


def test_an_account_of_before_there_were_formats_is_read() -> None:
    old: dict[str, Any] = {
        "label": "march", "ok": 3, "failed": 1, "missing": 0, "parts": 1, "part_sequence": 2,
        "merged": [2, 4, []], "has_name": True,
        "output": {"name": "n.csv", "sha256": "00", "bytes": 9, "rows": 4, "renamed_because": ""},
    }  # fmt: skip
    file = file_from_json(7, json.dumps(old))
    mark = file.published("csv")
    assert mark is not None
    assert (mark.name, mark.rows, file.ok) == ("n.csv", 4, 3)
    marked = file_from_json(7, json.dumps({**old, "has_name": False}))
    assert marked.published("csv") is None
    assert marked.outputs["csv"].sha256 == "00"
    assert file_from_json(7, json.dumps({**old, "has_name": False, "output": None})).outputs == {}


def test_a_publication_that_the_last_version_began_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_record()
    world = World(tmp_path, [record])
    world.merge(all_results(record))
    passed: list[str] = []

    def passing(name: str, detail: str = "") -> None:
        del detail
        passed.append(name)
        if name == "merger.after_publishing_mark":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fault, "point", passing)
        with pytest.raises(Killed):
            world.finish()
        world.close()
        with closing(sqlite3.connect(tmp_path / "merger-0" / "store.sqlite", isolation_level=None)) as store:
            for file_id, text in store.execute("SELECT file_id, account FROM files").fetchall():
                store.execute("UPDATE files SET account=? WHERE file_id=?", (as_before(text), file_id))
            for run_id, text in store.execute("SELECT run_id, account FROM runs").fetchall():
                account = json.loads(text)
                del account["waits_for"]
                store.execute("UPDATE runs SET account=? WHERE run_id=?", (json.dumps(account), run_id))
        passed.clear()
        world = World(tmp_path, [record], world.outlet)
        assert world.finish().stage is Stage.TOLD
    assert "merger.after_output_written" not in passed
    assert [one.path for one in world.outlet.announced] == ["output/r1_march.csv"]


def as_before(text: str) -> str:
    """Return a file's account as the version before formats wrote it."""
    account = json.loads(text)
    mark = account.pop("outputs")["csv"]
    del mark["uri"]
    return json.dumps({**account, "has_name": mark.pop("named"), "output": mark})


def test_a_manifest_of_before_there_were_formats_is_restored(tmp_path: Path) -> None:
    record = run_record()
    first = published(tmp_path, record)
    manifest = json.loads(first.places.manifest("r1").read_text())
    for one in manifest["files"]:
        del one["outputs"]
    first.places.manifest("r1").write_text(json.dumps(manifest))
    world = lost_store(tmp_path, record)
    run = adopt_published(world.run(), world.ledger.plan("r1"), world.store, world.places, {})
    assert run.stage is Stage.CLOSED
    assert run.files["march"].published("csv") is not None


def lost_store(folder: Path, record: RunRecord) -> World:
    for one in (folder / "merger-0").iterdir():
        one.unlink()
    return World(folder, [record])


@pytest.mark.parametrize("lost", [None, "jsonl"])
def test_announcements_give_a_file_back_only_if_every_format_was_announced(
    tmp_path: Path, lost: str | None
) -> None:
    record = run_record(job=ALL)
    first = published(tmp_path, record)
    first.places.manifest("r1").unlink()
    events = {
        (one.run_id, one.label, one.format): one for one in first.outlet.announced if one.format != lost
    }
    before = first.files()
    world = lost_store(tmp_path, record)
    run = adopt_published(world.run(), world.ledger.plan("r1"), world.store, world.places, events)
    world.ledger.keep(run)
    assert (run.stage is Stage.CLOSED) == (lost is None)
    if lost:
        world.merge(all_results(record))
    world.finish()
    assert world.files() == before


# Stores


@pytest.fixture
def bucket() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


IN_STORE = {"output": {"directory": "memory://bucket/prism/", "formats": ["csv", "parquet"]}}
MEMORY = frozenset({"memory"})


def stored(folder: Path, formats: Sequence[str] = ("csv", "parquet")) -> World:
    record = run_record(job={"output": {**IN_STORE["output"], "formats": list(formats)}})
    world = World(folder, [record], schemes=MEMORY)
    world.merge(all_results(record))
    return world


@pytest.mark.promise(3)
def test_an_output_in_a_store(tmp_path: Path, bucket: Any) -> None:
    world = stored(tmp_path)
    world.finish()
    here = published(tmp_path / "here", run_record(job={"output": {"formats": ["csv", "parquet"]}})).files()
    for form in ("csv", "parquet"):
        assert bucket.cat(f"/bucket/prism/r1_march.{form}") == here[f"r1_march.{form}"]
    assert [(one.uri, one.path) for one in world.outlet.announced] == [
        ("memory://bucket/prism/r1_march.csv", ""),
        ("memory://bucket/prism/r1_march.parquet", ""),
    ]
    entry = json.loads(world.places.manifest("r1").read_text())["files"][0]
    assert entry["merged_output"] == "memory://bucket/prism/r1_march.csv"
    assert entry["expected_outputs"] == [one.uri for one in world.outlet.announced]
    assert list(tmp_path.glob("output/*")) + list(tmp_path.glob("output/.*")) == []
    world.close()
    again = lost_store(tmp_path, run_record(job=IN_STORE))
    run = adopt_published(again.run(), again.ledger.plan("r1"), again.store, again.places, {})
    assert run.files["march"].outputs == world.run().files["march"].outputs


@pytest.mark.promise(3)
def test_somebody_elses_object_is_never_replaced(tmp_path: Path, bucket: Any) -> None:
    bucket.pipe("/bucket/prism/r1_march.csv", b"mine\n")
    world = stored(tmp_path, ["csv"])
    world.finish()
    assert bucket.cat("/bucket/prism/r1_march.csv") == b"mine\n"
    assert world.outlet.announced[0].uri == "memory://bucket/prism/r1_march-2.csv"


def test_a_store_that_is_away_is_waited_for(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stored(tmp_path, ["csv"])

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("503 Slow Down")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "put_file", refuse)
        with pytest.raises(StoreAway, match="memory://bucket/prism cannot be written: 503 Slow Down"):
            world.finish()
    assert world.run().stage is Stage.PUBLISHING
    assert world.outlet.announced == []
    assert len(list(tmp_path.glob("output/.*"))) == 1  # written once, put later
    world.finish()
    assert world.run().stage is Stage.TOLD
    assert bucket.exists("/bucket/prism/r1_march.csv")


def test_an_object_that_came_short_is_not_announced(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = stored(tmp_path, ["csv"])
    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "put_file", lambda self, _, path: self.pipe(path, b"short"))
        with pytest.raises(StoreAway, match="has 5 bytes"):
            world.finish()
    world.finish()
    assert world.outlet.announced[0].uri == "memory://bucket/prism/r1_march-2.csv"


def test_a_store_that_nobody_allowed_gets_nothing(tmp_path: Path, bucket: Any) -> None:
    record = run_record(job=IN_STORE)
    world = World(tmp_path, [record])
    world.merge(all_results(record))
    run = world.finish()
    assert run.outcome is Outcome.WITHHELD
    assert "PRISM_OUTPUT_SCHEMES" in (run.detail or "")
    assert bucket.find("/bucket") == []


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path) -> None:
    record = run_record(job={"output": {"directory": "abfs://box/prism"}})
    world = World(tmp_path, [record], schemes=frozenset({"abfs"}))
    world.merge(all_results(record))
    with pytest.raises(StoreAway, match="adlfs"):
        world.finish()


@pytest.mark.promise(10)
def test_whoever_asks_hears_what_a_publication_waits_for(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, now, readiness = stored(tmp_path, ["csv"]), [0.0], Readiness("files")
    readiness.set("files", True)
    desk = Desk(lambda: RowReader(world.store.path))
    finisher = Finisher(
        world.store,
        world.ledger,
        world.table,
        desk,
        world.publisher,
        readiness,
        lambda: now[0],
        10.0,
        tmp_path,
    )

    def turn_until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not reached():
            assert time.monotonic() < deadline
            now[0] += 0.3
            finisher.turn([])

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "put_file", refuse)
        turn_until(lambda: bool(world.run().waits_for))
        world.teller.tell(world.run())
        said = world.outlet.told[-1]
        assert said.state is MergeState.PUBLISHING
        assert said.detail == "cannot publish r1: memory://bucket/prism cannot be written: no route to host"
        assert "no route to host" in (readiness.reason() or "")
    turn_until(lambda: world.run().stage is not Stage.PUBLISHING and "r1" not in desk)
    turn_until(lambda: world.outlet.told[-1].state is MergeState.PUBLISHED)
    assert world.outlet.told[-1].detail is None
    assert readiness.reason() is None
    desk.close()
