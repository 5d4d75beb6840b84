"""Every content that refuses a CSV whole, with its exact outcome (DESIGN.md section 6)."""

import os
import socket
from pathlib import Path

import pytest

from prism.messages.reasons import FileReason
from prism.tables import TableFormat, TableRefused, file_digest, read_header, read_rows
from tests.unit.tables.files import refusal, rows_of, written

H = b"RowID,Message\n"
LATIN = "1,Gr\xfc\xdfe\n".encode("latin-1")

CASES: dict[str, tuple[bytes, FileReason, int | None, int | None]] = {
    "no bytes": (b"", FileReason.EMPTY_FILE, 1, None),
    "only a BOM": (b"\xef\xbb\xbf", FileReason.EMPTY_FILE, 1, None),
    "only blank lines": (b"\n\r\n\r", FileReason.NO_HEADER, 1, None),
    "a BOM and a blank line": (b"\xef\xbb\xbf\n", FileReason.NO_HEADER, 1, None),
    "unnamed columns only": (b"\n,,\n1,2,3\n", FileReason.NO_HEADER, 2, None),
    "no Message": (b"RowID,Text\n1,a\n", FileReason.MISSING_COLUMN, 1, None),
    "message in lower case": (b"RowID,message\n1,a\n", FileReason.MISSING_COLUMN, 1, None),
    "no Message, blank line first": (b"\nRowID\n", FileReason.MISSING_COLUMN, 2, None),
    "a column twice": (b"RowID,Message,RowID\n", FileReason.DUPLICATE_COLUMN, 1, 15),
    "a column twice, behind a line end": (b'"Row\nID",Message,Message', FileReason.DUPLICATE_COLUMN, 2, 13),
    "two unnamed columns": (b"RowID,Message,,\n", FileReason.DUPLICATE_COLUMN, 1, 16),
    "a RowID twice": (H + b"1,a\n2,b\n\n1,c\n", FileReason.DUPLICATE_ROW_ID, 5, 1),
    "an empty RowID twice": (H + b",a\n,b\n", FileReason.DUPLICATE_ROW_ID, 3, 1),
    "a RowID twice, second column": (b"Message,RowID\na,1\nb,1\n", FileReason.DUPLICATE_ROW_ID, 3, 3),
    "a RowID twice, behind a line end": (
        b'Message,RowID\na,1\n"b\nb",1\n',
        FileReason.DUPLICATE_ROW_ID,
        4,
        4,
    ),
    "a RowID twice, one row failed": (H + b"1,a\n1,\n", FileReason.DUPLICATE_ROW_ID, 3, 1),
    "Latin-1": (H + LATIN, FileReason.NOT_UTF8, 2, 5),
    "Latin-1 behind UTF-8": (H + "é".encode() + LATIN, FileReason.NOT_UTF8, 2, 6),
    "Latin-1 in the header": ("RowID,Messäge\n".encode("latin-1"), FileReason.NOT_UTF8, 1, 11),
    "Latin-1 without a last line end": (H + LATIN.strip(), FileReason.NOT_UTF8, 2, 5),
    "a cut character": (H + b"1,a\xe2\x82", FileReason.NOT_UTF8, 2, 4),
    "a surrogate": (H + b"1,\xed\xa0\x80\n", FileReason.NOT_UTF8, 2, 3),
    "an overlong form": (H + b"1,\xc0\xaf\n", FileReason.NOT_UTF8, 2, 3),
    "UTF-16": ("RowID,Message\n".encode("utf-16"), FileReason.NOT_UTF8, 1, 1),
    "UTF-16, big end first": (b"\xfe\xff\0R\0o", FileReason.NOT_UTF8, 1, 1),
    "UTF-16 without a BOM": ("RowID,Message\n".encode("utf-16-le"), FileReason.NOT_UTF8, 1, 1),
    "gzip": (b"\x1f\x8b\x08\0\0\0", FileReason.NOT_UTF8, 1, 1),
    "a workbook": (b"PK\x03\x04....", FileReason.NOT_UTF8, 1, 1),
    "a NUL in the header": (b"RowID,Message,X\0\n1,a,b\n", FileReason.MALFORMED_CSV, 1, 16),
    "a quote left open": (H + b'1,a\n2,"b\n3,c\n', FileReason.UNCLOSED_QUOTE, 3, 3),
    "a quote left open, not the first": (H + b'1,"a""b\n","c\n', FileReason.UNCLOSED_QUOTE, 3, 3),
    "a quote left open in the header": (b'RowID,"Message\n1,a\n', FileReason.UNCLOSED_QUOTE, 1, 7),
    "a quote left open at the end": (H + b'1,"', FileReason.UNCLOSED_QUOTE, 2, 3),
    "text behind a quote": (H + b'1,"a"b\n', FileReason.MALFORMED_CSV, 2, 6),
    "a space behind a quote": (H + b'"1" ,a\n', FileReason.MALFORMED_CSV, 2, 4),
    "text behind a quote, a line on": (H + b'1,"a\n2,"b"\n', FileReason.MALFORMED_CSV, 3, 4),
    "text behind a quote in the header": (b'RowID,"Message"x\n', FileReason.MALFORMED_CSV, 1, 16),
    "semicolons": (b"RowID;Message\n1;a\n", FileReason.WRONG_DELIMITER, 1, 6),
    "semicolons and quotes": (b'"RowID";"Message"\n1;a\n', FileReason.WRONG_DELIMITER, 1, 8),
    "tabs": (b"RowID\tMessage\n1\ta\n", FileReason.WRONG_DELIMITER, 1, 6),
    "pipes": (b"\xef\xbb\xbfRowID|Message\n1|a\n", FileReason.WRONG_DELIMITER, 1, 6),
    "semicolons and a comma": (b"RowID;Message;Size, cm\n", FileReason.WRONG_DELIMITER, 1, 6),
}


@pytest.mark.promise(8)
@pytest.mark.parametrize("case", CASES)
def test_content_that_refuses_a_file(tmp_path: Path, case: str) -> None:
    content, reason, line, column = CASES[case]
    refused = refusal(written(tmp_path, content))
    assert (refused.reason, refused.line, refused.column) == (reason, line, column)


@pytest.mark.parametrize("case", CASES)
def test_the_error_is_one_line_with_the_place_first(tmp_path: Path, case: str) -> None:
    content, _, line, column = CASES[case]
    text = str(refusal(written(tmp_path, content)))
    assert text.isprintable()
    assert text.startswith(f"line {line}: " if column is None else f"line {line}, column {column}: ")


def test_commas_where_the_job_expects_semicolons(tmp_path: Path) -> None:
    refused = refusal(written(tmp_path, b"RowID,Message\n"), TableFormat(delimiter=";"))
    assert refused.reason is FileReason.WRONG_DELIMITER
    assert "separated by a comma, the job expects a semicolon" in str(refused)


def test_another_delimiter_that_does_not_help_is_a_missing_column(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, b"RowID;Text\n")).reason is FileReason.MISSING_COLUMN


def test_the_hint_names_a_column_that_differs_by_case(tmp_path: Path) -> None:
    assert '"Message", only " message"' in str(refusal(written(tmp_path, b"RowID, message\n")))


def test_a_name_in_an_error_is_short_and_printable(tmp_path: Path) -> None:
    name = b'"\x1b[31m\n' + b"x" * 500 + b'"'
    text = str(refusal(written(tmp_path, b"Message," + name + b"," + name)))
    assert text.isprintable()
    assert len(text) < 200


def test_too_many_columns(tmp_path: Path) -> None:
    path = written(tmp_path, b"RowID,Message,X")
    assert refusal(path, TableFormat(max_columns=2)).reason is FileReason.TOO_LARGE
    assert read_header(path, TableFormat(max_columns=3)).columns == ("RowID", "Message", "X")


def test_bytes_that_are_not_utf8_are_found_far_into_the_file(tmp_path: Path) -> None:
    rows = 20_000  # of 2 MB: beyond what is read at once
    path = written(tmp_path, H + b"".join(b"%d,%b\n" % (n, b"a" * 100) for n in range(rows)) + b"x,\xff\n")
    refused = refusal(path)
    assert (refused.reason, refused.line, refused.column) == (FileReason.NOT_UTF8, rows + 2, 3)


@pytest.mark.parametrize("kind", ["missing", "below a file", "folder", "pipe", "device", "socket", "NUL"])
def test_what_is_not_a_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "source"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "below a file":
        path = written(tmp_path, H) / "x"
    elif kind == "NUL":
        path = tmp_path / "a\0b"
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the path of a UNIX socket is short, pytest's are not
        socket.socket(socket.AF_UNIX).bind("source")
    missing = kind in ("missing", "below a file", "NUL")
    for read in (lambda: read_header(path, TableFormat()), lambda: file_digest(path)):
        with pytest.raises(TableRefused) as caught:
            read()
        assert caught.value.reason is (FileReason.NOT_FOUND if missing else FileReason.NOT_A_FILE)


def test_a_source_that_shrank_is_refused_where_reading_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path, H + b"1,a\n2,b\n")
    header, end = read_header(path, TableFormat()), rows_of(path)[-1].end
    written(tmp_path, H)
    with pytest.raises(TableRefused) as caught:
        list(read_rows(path, header, TableFormat(), end))
    assert caught.value.reason is FileReason.SOURCE_CHANGED
