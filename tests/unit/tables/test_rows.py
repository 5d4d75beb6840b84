"""What a good file gives, and rows that fail alone while the others go on."""

from pathlib import Path

import pytest

from prism.messages.reasons import RowReason
from prism.tables import Position, TableFormat, read_header
from tests.unit.tables.files import checked, rows_of, written

FMT = TableFormat(max_field_chars=20, max_row_bytes=50)


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    "cell", ["", "NA", "N/A", "null", "001", "1.10", "1e5", " spaced ", "=1+1", "é\u2028漢😀", "True", "'x"]
)
def test_cells_are_kept_as_given(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, f"RowID,Message,X\n{cell},m,{cell}\n".encode())
    assert rows_of(path)[0].cells == (cell, "m", cell)


def test_line_ends_inside_quotes_are_kept_as_given(tmp_path: Path) -> None:
    path = written(tmp_path, b'RowID,Message\r\n1,"a\r\nb\rc\nd"\r2,e\n')
    assert [row.cells for row in rows_of(path)] == [("1", "a\r\nb\rc\nd"), ("2", "e")]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n", b"\xef\xbb\xbf\r\n\r\n"])
def test_a_bom_and_blank_lines_are_no_data(tmp_path: Path, start: bytes) -> None:
    path = written(tmp_path, start + b"RowID,Message\n\n\r\n1,a\n\n2,b\n\n")
    rows = rows_of(path)
    assert [(row.ordinal, row.row_id) for row in rows] == [(0, "1"), (1, "2")]
    assert path.read_bytes()[rows[1].start.offset :].startswith(b"2,b")


def test_a_quoted_header_behind_a_bom_is_found(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf"RowID","Message"\n1,a\n')
    header = read_header(path, FMT)
    assert (header.columns, header.row_id_index, header.index("Message")) == (("RowID", "Message"), 0, 1)
    assert header.index("Nothing") is None
    assert header.end == Position(ordinal=0, offset=21, line=2)


@pytest.mark.parametrize("content", [b"RowID,Message\n", b"RowID,Message", b"Message\r\n\r\n"])
def test_a_header_without_rows_is_a_table_of_zero_rows(tmp_path: Path, content: bytes) -> None:
    assert checked(written(tmp_path, content)) == []


def test_rows_are_numbered_when_there_is_no_row_id(tmp_path: Path) -> None:
    path = written(tmp_path, b"Message\na\n\nb\na,b\n")
    assert [row.row_id for row in checked(path)] == ["1", "2", "3"]


def test_an_empty_cell_in_the_only_column_is_a_row_a_blank_line_is_not(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path, b'Message\n""\n\nb\n'))
    assert [(row.cells, row.problem) for row in rows] == [(("",), RowReason.EMPTY_MESSAGE), (("b",), None)]


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("bad", "problem", "row_id"),
    [
        (b"2", RowReason.WRONG_CELL_COUNT, "2"),
        (b"2,a,b,c", RowReason.WRONG_CELL_COUNT, "2"),
        (b" ", RowReason.WRONG_CELL_COUNT, " "),
        (b"2,a\0b,c", RowReason.NUL_CHARACTER, "2"),
        (b"2,a,\0", RowReason.NUL_CHARACTER, "2"),
        (b"2," + b"x" * 21 + b",c", RowReason.FIELD_TOO_LONG, "2"),
        (b"2," + "é".encode() * 20 + b"," + "漢".encode() * 5, RowReason.ROW_TOO_LONG, "2"),
        (b"2,,c", RowReason.EMPTY_MESSAGE, "2"),
        (b'2," \t\r\n\xc2\xa0",c', RowReason.EMPTY_MESSAGE, "2"),
    ],
)
def test_a_bad_row_fails_alone(tmp_path: Path, bad: bytes, problem: RowReason, row_id: str) -> None:
    path = written(tmp_path, b"RowID,Message,X\n1,first,\n" + bad + b"\n3,last,\n")
    rows = checked(path, FMT)
    assert [(row.ordinal, row.problem) for row in rows] == [(0, None), (1, problem), (2, None)]
    assert rows[1].row_id == row_id


def test_limits_are_inclusive(tmp_path: Path) -> None:
    row = b"1," + b"x" * 20 + b"," + b"y" * 20 + b"," + b"z" * 5
    path = written(tmp_path, b"RowID,Message,X,Y\n" + row + b"\n" + row + b"z\n")
    rows = rows_of(path, FMT)
    assert [row.end.offset - row.start.offset for row in rows] == [50, 51]
    assert [row.problem for row in rows] == [None, RowReason.ROW_TOO_LONG]


def test_a_row_too_short_to_have_a_row_id_gets_an_empty_one(tmp_path: Path) -> None:
    rows = checked(written(tmp_path, b"Message,X,RowID\na\nb\nc,d,1\n"))
    assert [(row.ordinal, row.row_id) for row in rows] == [(0, ""), (1, ""), (2, "1")]


def test_no_check_for_blank_messages_in_a_table_without_that_column(tmp_path: Path) -> None:
    fmt = TableFormat(required_columns=("Text",))
    assert checked(written(tmp_path, b"Text,X\n,x\n"), fmt)[0].problem is None


@pytest.mark.parametrize("fields", [{"delimiter": ""}, {"delimiter": '"'}, {"max_row_bytes": 0}])
def test_a_format_that_cannot_be_is_an_error(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TableFormat(**fields)  # type: ignore[arg-type]
