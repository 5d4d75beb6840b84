"""Whatever is written is read back, from anywhere, in any chunks."""

import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.tables import Position, TableFormat, check_rows, read_header, read_rows, render_line
from tests.unit.tables.files import rows_of, written

LINE_ENDS = ("\n", "\r\n", "\r")
NASTY = st.text(alphabet='a",;\r\n \t\0\u2028\u2029\x0b\x0c\x1c\x85\ufeffé漢😀=-', max_size=8)
CELL = st.one_of(NASTY, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=8).map(
        lambda rows: (["Message", "B", "C", "D"][:width], rows)
    )
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def quoted(cells: list[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\n"


@st.composite
def csv_bytes(draw: st.DrawFn) -> tuple[bytes, list[list[str]]]:
    """A file with mixed line ends, blank lines, needless quotes, with or without BOM and last line end."""
    columns, rows = draw(TABLES)
    text = draw(st.sampled_from(["", "\ufeff"]))
    for cells in [columns, *rows]:
        text += draw(st.sampled_from(["", "", "", "\n", "\r\n\r\n"]))
        line = quoted(cells) if draw(st.booleans()) else render_line(cells)
        text += line[:-1] + draw(st.sampled_from(LINE_ENDS))
    if draw(st.booleans()):
        text = text.removesuffix("\n").removesuffix("\r")
    return text.encode(), rows


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@given(table=csv_bytes(), chunk_bytes=st.sampled_from([1, 2, 3, 7, 64, 1 << 18]))
def test_every_row_is_read_as_written_in_order(
    folder: Path, table: tuple[bytes, list[list[str]]], chunk_bytes: int
) -> None:
    content, written_rows = table
    rows = rows_of(written(folder, content), chunk_bytes=chunk_bytes)
    assert [list(row.cells) for row in rows] == written_rows
    assert [row.ordinal for row in rows] == list(range(len(written_rows)))
    assert [row.row_id for row in rows] == [str(n + 1) for n in range(len(written_rows))]


@pytest.mark.promise(1)
@given(table=csv_bytes(), chunk_bytes=st.sampled_from([1, 2, 5, 1 << 18]))
def test_reading_from_any_position_is_reading_through(
    folder: Path, table: tuple[bytes, list[list[str]]], chunk_bytes: int
) -> None:
    path = written(folder, table[0])
    through = rows_of(path)
    for n, row in enumerate(through):
        assert rows_of(path, start=row.start, chunk_bytes=chunk_bytes) == through[n:]
        assert rows_of(path, start=row.end, chunk_bytes=chunk_bytes) == through[n + 1 :]


@given(table=csv_bytes())
def test_positions_are_bytes_and_lines_of_the_file(
    folder: Path, table: tuple[bytes, list[list[str]]]
) -> None:
    path = written(folder, table[0])
    for row in rows_of(path):
        before = table[0][: row.start.offset].decode()
        assert row.line == row.start.line == len(before.encode().splitlines()) + 1
        text = table[0][row.start.offset : row.end.offset].decode()
        assert row.end.line - row.start.line == len(text.encode().splitlines())
        assert row.end.ordinal == row.ordinal + 1


@given(table=csv_bytes())
def test_checking_yields_the_rows_that_reading_yields(
    folder: Path, table: tuple[bytes, list[list[str]]]
) -> None:
    path, fmt = written(folder, table[0]), TableFormat()
    header = read_header(path, fmt)
    assert list(check_rows(path, header, fmt, folder)) == list(read_rows(path, header, fmt))


@given(cells=st.lists(CELL, min_size=1, max_size=5), delimiter=st.sampled_from([",", ";", "\t", "|"]))
def test_a_line_reads_back_with_pythons_own_reader(cells: list[str], delimiter: str) -> None:
    line = render_line(cells, delimiter)
    pieces = [piece.decode() for piece in line.encode().splitlines(keepends=True)]
    assert list(csv.reader(pieces, delimiter=delimiter, strict=True)) == [cells]


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (["a", "b"], "a,b\n"),
        ([""], '""\n'),
        (["", ""], ",\n"),
        (["a\rb", 'c"d', "e,f", "g\nh"], '"a\rb","c""d","e,f","g\nh"\n'),
        ([" a ", "NA", "001", "1.10", "\u2028"], " a ,NA,001,1.10,\u2028\n"),
        (["\ufeffa", "b"], '"\ufeffa",b\n'),
    ],
)
def test_only_what_needs_quotes_gets_them(cells: list[str], line: str) -> None:
    assert render_line(cells) == line


def test_a_row_without_cells_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        render_line([])


def test_a_position_survives_json(tmp_path: Path) -> None:
    path = written(tmp_path, b"RowID,Message\n1,a\n2,b\n")
    first = rows_of(path)[0]
    assert Position(*json.loads(json.dumps(first.end))) == first.end
