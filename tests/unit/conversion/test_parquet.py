"""Parquet: any texts come through, other types as documented, and hostile files harm nobody."""

import datetime
import random
import subprocess
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.conversion import SourceKind, Terms, convert, converter, plain_csv
from prism.messages import FileReason
from prism.tables import TableRefused
from tests.unit.conversion.convert import parquet, plain, refused, table

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS), max_size=30),
    group=st.integers(1, 10),
    dictionary=st.booleans(),
)
def test_any_texts_come_through(rows: list[tuple[str, str]], group: int, dictionary: bool) -> None:
    columns = {
        "RowID": pa.array([one for one, _ in rows], pa.string()),
        "Message": pa.array([two for _, two in rows], pa.large_string()),
    }
    source = parquet(columns, row_group_size=group, use_dictionary=dictionary)
    assert table(source) == [["RowID", "Message"], *map(list, rows)]


MOMENT = datetime.datetime(2026, 11, 21, 10, 0, 0, 1500)
TYPES: list[tuple[Any, list[str]]] = [
    (pa.array([1, None, -(2**63)]), ["1", "", "-9223372036854775808"]),
    (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
    (pa.array([True, False, None]), ["true", "false", ""]),
    (pa.array([0.1, 1e22, None]), ["0.1", "1e+22", ""]),
    (pa.array([1.1], pa.float32()), ["1.1"]),
    (pa.array([Decimal("1.10"), Decimal("-0.00")]), ["1.10", "0.00"]),
    (pa.array([Decimal("0.0000000001")], pa.decimal128(38, 10)), ["0.0000000001"]),
    (pa.array([datetime.date(2026, 11, 21), None]), ["2026-11-21", ""]),
    (pa.array([MOMENT], pa.timestamp("us")), ["2026-11-21T10:00:00.001500"]),
    (pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin")), ["2026-11-21T10:00:00.001500Z"]),
    (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
    (pa.array([datetime.time(1, 2, 3)]), ["01:02:03.000000"]),
    (pa.array([None, None]), ["", ""]),
    (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", "", "a"]),
    (pa.array([["x", None], [], None]), ['["x",null]', "[]", ""]),
    (
        pa.array([{"é": 1, "t": datetime.date(2026, 1, 2)}]),
        ['{"é":1,"t":"2026-01-02"}'],
    ),
]


@pytest.mark.parametrize(("column", "cells"), TYPES, ids=[str(one.type) for one, _ in TYPES])
def test_types(column: Any, cells: list[str]) -> None:
    assert table(parquet({"Message": column})) == [["Message"], *([cell] for cell in cells)]


def test_a_row_that_no_reader_of_a_csv_would_take_is_named() -> None:
    found = refused(parquet({"Message": ["x"] * 700 + ["y" * 2000]}), Terms(max_row_bytes=1000))
    assert (found.reason, found.line) == (FileReason.TOO_LARGE, None)
    assert "row 701 takes 2002 bytes" in found.detail


def test_no_rows_and_no_columns() -> None:
    assert table(parquet({"Message": pa.array([], pa.string())})) == [["Message"]]
    assert refused(parquet({})).reason is FileReason.NO_HEADER


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"ab"]),
        pa.array([b"ab"], pa.binary(2)),
        pa.array([[b"ab"]]),
        pa.array([{"a": [b"x"]}]),
    ],
)
def test_a_column_of_bytes_is_refused_by_name(column: Any) -> None:
    found = refused(parquet({"Message": ["x"], "Photo": column}))
    assert found.reason is FileReason.UNSUPPORTED_COLUMN
    assert '"Photo"' in found.detail


def test_texts_that_are_not_utf8() -> None:
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    assert refused(parquet({"Message": broken})).reason is FileReason.NOT_UTF8


def test_a_time_out_of_range_is_no_text() -> None:
    found = refused(parquet({"Message": pa.array([10**18], pa.timestamp("ms"))}))
    assert found.reason is FileReason.MALFORMED_PARQUET


GOOD = parquet({"RowID": list(range(1000)), "Message": [f"text {n} über" for n in range(1000)]})


@pytest.mark.parametrize(
    ("source", "reason", "what"),
    [
        (b"PAR", FileReason.MALFORMED_PARQUET, "not Parquet"),
        (b"PARE" + GOOD[4:], FileReason.MALFORMED_PARQUET, "encrypted"),
        (GOOD[:-1], FileReason.MALFORMED_PARQUET, "cut off"),
        (GOOD[: len(GOOD) // 2] + b"PAR1", FileReason.MALFORMED_PARQUET, "not readable"),
        (b"PAR1", FileReason.MALFORMED_PARQUET, "cut off"),
        (GOOD[:-8] + b"\xff\xff\xff\x7fPAR1", FileReason.MALFORMED_PARQUET, "not readable"),
        (GOOD[:60] + bytes(400) + GOOD[460:], FileReason.MALFORMED_PARQUET, "not readable"),
    ],
)
def test_what_is_refused(source: bytes, reason: FileReason, what: str) -> None:
    found = refused(source)
    assert found.reason is reason
    assert what in found.detail


@pytest.mark.promise(9)
def test_damaged_files_are_refused_or_read_and_never_more(tmp_path: Path) -> None:
    """In the child, where even a decoder that dies is one file's failure."""
    chance = random.Random(7)
    for _ in range(6):
        broken = bytearray(GOOD)
        for _ in range(chance.randint(1, 20)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with suppress(TableRefused):
            converted(tmp_path, bytes(broken))
        assert [one.name for one in tmp_path.iterdir() if one.name.endswith("converting")] == []


def converted(folder: Path, source: bytes, **options: Any) -> bytes:
    (folder / "source").write_bytes(source)
    with (folder / "source").open("rb") as stream:
        convert(stream, SourceKind.PARQUET, folder / "out.csv", Terms(), **options)
    return (folder / "out.csv").read_bytes()


@pytest.mark.promise(9)
def test_a_bomb_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "MEMORY_BYTES", 450 << 20)
    one_cell = parquet({"Message": ["z" * 150_000_000]}, compression="zstd")
    assert len(one_cell) < 100_000
    with pytest.raises(TableRefused, match="more memory than a file may have") as refusal:
        converted(tmp_path, one_cell)
    assert refusal.value.reason is FileReason.TOO_LARGE
    assert not (tmp_path / "out.csv").exists()


def test_a_bomb_takes_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_csv, "RATIO_FREE_BYTES", 1 << 20)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), pa.array(["y" * 1000]))
    source = parquet({"Message": repeated})
    assert len(source) < 50_000
    assert refused(source).reason is FileReason.TOO_LARGE


@pytest.mark.promise(9)
@pytest.mark.parametrize("ending", ["import os; os.kill(os.getpid(), 11)", "import time; time.sleep(60)"])
def test_a_reader_that_dies_or_is_stuck_is_one_files_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    (tmp_path / "stand_in.py").write_text(ending)
    started = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return started([command[0], str(tmp_path / "stand_in.py")], **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(TableRefused, match="broke down") as refusal:
        converted(tmp_path, GOOD, stall_s=0.3)
    assert refusal.value.reason is FileReason.MALFORMED_PARQUET


def test_what_is_dropped_ends_at_once(tmp_path: Path) -> None:
    class Dropped(Exception):
        pass

    def drop() -> None:
        raise Dropped

    with pytest.raises(Dropped):
        converted(tmp_path, GOOD, between=drop)
    assert not (tmp_path / "out.csv").exists()


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    assert converted(tmp_path, GOOD) == converted(tmp_path, GOOD) == plain(GOOD)
