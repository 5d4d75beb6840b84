"""The first rows of a table: how it is written is found out, and what no run takes is one line."""

import csv
import importlib
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.tables import TableRefused
from prism.tables.reader import DELIMITERS
from prism_cli.peek import ROWS, peek, sniff

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_a_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ["id", "text", "note"],
        ["1", "a, b; c | d", "x"],
        ["2", 'he said "no"', ""],
        ["3", "line\nbreak", "y"],
    ]
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    found = peek(written(tmp_path, "\ufeff" + stream.getvalue()))
    assert (found.kind, found.delimiter, found.columns) == ("csv", delimiter, ("id", "text", "note"))
    assert [list(row) for row in found.rows] == rows[1:]
    assert (found.whole, found.left_out) == (True, 0)


@given(
    st.sampled_from(list(DELIMITERS)),
    st.integers(2, 5).flatmap(
        lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=3)
    ),
)
def test_what_is_quoted_never_misleads(delimiter: str, rows: list[list[str]]) -> None:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    assert sniff(stream.getvalue().encode(), ",", whole=True) == delimiter


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("Message\nhello, you\nwell; and, so\n", ","),
        ("Message\n", ","),
        ("", ","),
        ("a;b\n1;2,5\n2;3,5\n", ";"),
        ("a,b\n1;2;3,x\n1;2;3,y\n", ","),
        ('"a;b"\n"c', ","),
    ],
)
def test_what_has_one_column_has_the_usual_delimiter(text: str, delimiter: str) -> None:
    assert sniff(text.encode(), ",", whole=True) == delimiter


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "id,text\n" + "".join(f"{n},row {n}\n" for n in range(ROWS + 1)))
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # the rest is a hole full of NULs, where reading on would stop it
    started = time.monotonic()
    found = peek(path)
    assert (len(found.rows), found.whole) == (ROWS, False)
    assert time.monotonic() - started < 5


def test_damaged_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    found = peek(written(tmp_path, "id,text\n1,a\n2\n3,b,c\n4,d\n5,e\n6,f\n7,g\n8,h\n9,i\n10,j\n11,k\n"))
    assert (len(found.rows), found.left_out, found.whole) == (9, 2, True)


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "text": "a"},
        {"id": 1.10, "flag": True, "none": None},
        {"text": "c", "tags": ["x", {"y": 1}]},
    ]
    text = "\ufeff" + "\n\n".join(map(json.dumps, lines)).replace("1.1,", "1.10,")
    found = peek(written(tmp_path, text, "t.JSONL"))
    assert found.columns == ("id", "text", "flag", "none", "tags")
    assert found.rows[1] == ("1.10", "", "true", "", "")
    assert found.rows[2][-1] == '["x", {"y": "1"}]'
    assert found.whole


def test_parquet(tmp_path: Path) -> None:
    pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": range(ROWS + 1), "text": ["a", None] * 500 + ["c"]}), path)
    found = peek(path)
    assert (found.kind, found.columns, len(found.rows), found.whole) == (
        "parquet",
        ("id", "text"),
        ROWS,
        False,
    )
    assert found.rows[1] == ("1", "")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "no content"),
        ("t.csv", b"\n\n", "only blank lines"),
        ("t.csv", b"a,b,a\n1,2,3\n", 'column "a" is there twice'),
        ("t.csv", ",".join(f"c{n}" for n in range(10_000)).encode(), "10000 columns, at most"),
        ("t.csv", b"id,text\n1,caf\xe9\n", "line 2, column 6: byte 0xe9 is not UTF-8"),
        ("t.csv", b'id,text\n1,"open\n', "line 2"),
        ("t.csv", b"\xff\xfea\x00", "UTF-16"),
        ("t.csv", b"\x1f\x8b\x08\x00", "gzip"),
        ("t.xlsx", b"PK\x03\x04", "Excel"),
        ("t.json", b"[]", "save it as JSONL"),
        ("t.jsonl", b"", "no row"),
        ("t.jsonl", b'{"a": 1}\n{"a"\n', "line 2: not JSON"),
        ("t.jsonl", b"[1]\n", "line 1: no JSON object"),
        ("t.jsonl", b'{"a": "\xe9"}\n', "line 1: byte 0xe9 is not UTF-8"),
        ("t.jsonl", b'{"a": 1, "a": 2}\n', "line 1: a key given twice"),
        ("t.jsonl", b'{"a": "' + b"x" * (5 << 20), "line 1: a line of more than"),
        ("t.jsonl", json.dumps({f"c{n}": n for n in range(5000)}).encode(), "more than 4096 keys"),
        ("t.parquet", b"", "not a Parquet file"),
        ("t.parquet", b"PAR1 and so on PAR1", "not a Parquet file"),
    ],
)
def test_what_no_run_takes_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    with pytest.raises(TableRefused) as refused:
        peek(written(tmp_path, content, name))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [".", "none.csv", "none.jsonl", "none.parquet"])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableRefused):
        peek(tmp_path / name)


@given(st.binary(max_size=60), st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_whatever_the_bytes_a_sample_or_a_refusal(tmp_path_factory: Any, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    try:
        found = peek(path)
    except TableRefused:
        return
    assert all(len(row) == len(found.columns) for row in found.rows)
