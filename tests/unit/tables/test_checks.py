"""RowIDs that are there twice, found over any distance."""

import sqlite3
from pathlib import Path

import pytest

from prism.messages.reasons import FileReason, RowReason
from prism.tables import TableFormat, TableRefused, check_rows, checks, read_header
from tests.unit.tables.files import checked, refusal, written

H = b"RowID,Message\n"


@pytest.fixture(params=[1, 3, 20_000])
def batch_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(checks, "BATCH_ROWS", request.param)
    return int(request.param)


@pytest.mark.parametrize(
    ("ids", "line", "first"),
    [
        (["1", "2", "3", "4", "2", "1"], 6, 3),
        (["a", "a"], 3, 2),
        (["b", "a", "b", "a"], 4, 2),
        (["x" * 100, "y", "x" * 100], 4, 2),
        (["x" * 100, "1", "1", "x" * 100], 4, 3),
    ],
)
def test_the_earliest_repetition_is_reported(
    tmp_path: Path, batch_rows: int, ids: list[str], line: int, first: int
) -> None:
    path = written(tmp_path, H + "".join(f"{i},m\n" for i in ids).encode())
    refused = refusal(path)
    assert (refused.reason, refused.line, refused.column) == (FileReason.DUPLICATE_ROW_ID, line, 1)
    assert f"line {first};" in str(refused)


def test_row_ids_are_compared_exactly_as_text(tmp_path: Path, batch_rows: int) -> None:
    ids = ["1", "01", "1.0", " 1", "1 ", '"1\n"', "a", "A", "é", "e\u0301", "", "x" * 64, "x" * 65]
    path = written(tmp_path, H + "".join(f"{i},m\n" for i in ids).encode())
    assert len(checked(path)) == len(ids)


def test_a_row_whose_cells_slipped_does_not_refuse_the_others(tmp_path: Path) -> None:
    rows = checked(written(tmp_path, H + b"1,a\n---\n---\n1,b,c\n"))
    assert [row.problem for row in rows] == [None, *[RowReason.WRONG_CELL_COUNT] * 3]


def test_a_repetition_beyond_one_batch(tmp_path: Path) -> None:
    path = written(tmp_path, H + b"".join(b"%d,a\n" % n for n in range(50_000)) + b"7,b\n")
    refused = refusal(path)
    assert (refused.line, refused.column) == (50_002, 1)


def test_nothing_stays_in_the_scratch_folder(tmp_path: Path) -> None:
    scratch, fmt = tmp_path / "scratch", TableFormat()
    scratch.mkdir()
    for content in (H + b"1,a\n2,b\n", H + b"1,a\n1,b\n", H + b'1,"'):
        path = written(tmp_path, content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checks, "BATCH_ROWS", 1)
            try:
                rows = check_rows(path, read_header(path, fmt), fmt, scratch)
                next(rows)
                assert list(scratch.iterdir())
                list(rows)
            except TableRefused:
                pass
        assert list(scratch.iterdir()) == []
    rows = check_rows(path, read_header(path, fmt), fmt, scratch)
    rows.close()  # type: ignore[attr-defined]
    assert list(scratch.iterdir()) == []


def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_connect = sqlite3.connect

    def small_disk(*args: object, **options: object) -> sqlite3.Connection:
        database: sqlite3.Connection = real_connect(*args, **options)  # type: ignore[call-overload]
        database.execute("PRAGMA max_page_count=4")
        return database

    monkeypatch.setattr(sqlite3, "connect", small_disk)
    path = written(tmp_path, H + b"".join(b"%d,a\n" % n for n in range(20_000)))
    assert refusal(path).reason is FileReason.NO_SPACE
