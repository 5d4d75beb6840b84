"""The first rows of a table, before anybody has said how it is written: enough to propose a job.

Only as much of a file is read as its first rows take, whatever its size.
"""

import csv
import importlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from prism.annotation.strict_json import NotStrictJson, load_strictly
from prism.messages.reasons import FileReason
from prism.tables import TableFormat, TableRefused, open_source, read_header, read_rows
from prism.tables.reader import DELIMITERS

Kind = Literal["csv", "tsv", "jsonl", "parquet"]
ROWS = 1000
MAX_COLUMNS = TableFormat().max_columns
# Of a cell only its beginning is looked at, of a file no more than this, of a line no more than that.
_CELL_CHARACTERS = 2_000
_FILE_BYTES = 32 << 20
_LINE_BYTES = 4 << 20
_SNIFF_BYTES = 256 << 10
_SNIFF_ROWS = 50
# Of the rows, so many must be as wide as the header for a delimiter to be believed.
_SAME_WIDTH = 0.8
_KINDS: dict[str, Kind] = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows of a table.

    kind: how its ending says it is written; delimiter: between the cells of a CSV, whatever its ending.
    rows: as wide as `columns`; of a long cell the first 2,000 characters. whole: there are no others.
    left_out: rows that a run would reject too.
    """

    kind: Kind
    delimiter: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    whole: bool = True
    left_out: int = 0

    def cells(self, index: int) -> list[str]:
        """Return a column's cells."""
        return [row[index] for row in self.rows]


def peek(path: Path) -> Sample:
    """Return the first rows of a file. Raises TableRefused for what no run would take, and OSError."""
    suffix = path.suffix.lower()
    kind = _KINDS.get(suffix, "csv")
    if suffix == ".json":
        detail = "one JSON document is no table; save it as JSONL, one object a line"
        raise TableRefused(FileReason.MALFORMED_CSV, detail)
    if kind == "jsonl":
        return _peek_jsonl(path)
    return _peek_parquet(path) if kind == "parquet" else _peek_csv(path, kind)


def _peek_csv(path: Path, kind: Kind) -> Sample:
    with open_source(path) as stream:
        head = stream.read(_SNIFF_BYTES)
    delimiter = sniff(head, "\t" if kind == "tsv" else ",", whole=len(head) < _SNIFF_BYTES)
    fmt = TableFormat(delimiter=delimiter, required_columns=())
    header = read_header(path, fmt)
    rows, seen, whole = [], 0, True
    for row in read_rows(path, header, fmt):
        if seen == ROWS or row.start.offset > _FILE_BYTES:
            whole = False
            break
        seen += 1
        if row.problem is None:
            rows.append(tuple(cell[:_CELL_CHARACTERS] for cell in row.cells))
    return Sample(kind, delimiter, header.columns, tuple(rows), whole, seen - len(rows))


def sniff(head: bytes, usual: str, whole: bool) -> str:
    """Return the delimiter that parts the first rows of a CSV best; `usual` where none does.

    whole: `head` is all there is, so that its last row counts too.
    """
    text = head.decode(errors="replace").removeprefix("\ufeff")
    best, most = usual, (0.0, 0)
    for delimiter in (usual, *(one for one in DELIMITERS if one != usual)):
        rows = _first_rows(text, delimiter, whole)
        width = len(rows[0]) if rows else 0
        same = sum(len(row) == width for row in rows) / len(rows) if rows else 0.0
        if width > 1 and same >= _SAME_WIDTH and (same, width) > most:
            best, most = delimiter, (same, width)
    return best


def _first_rows(text: str, delimiter: str, whole: bool) -> list[list[str]]:
    try:
        found = list(islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), _SNIFF_ROWS + 1))
    except csv.Error:
        return []
    if len(found) > 1 and (not whole or len(found) > _SNIFF_ROWS):
        found.pop()
    return [row for row in found if row]


def _peek_jsonl(path: Path) -> Sample:
    columns: dict[str, None] = {}
    found: list[dict[str, str]] = []
    whole = True
    with open_source(path) as raw, io.BufferedReader(raw) as stream:
        for number, line in _lines(stream):
            if len(found) == ROWS or stream.tell() > _FILE_BYTES:
                whole = False
                break
            row = _row_of(line, number)
            columns.update(dict.fromkeys(row))
            found.append(row)
            if len(columns) > MAX_COLUMNS:
                raise _malformed(f"more than {MAX_COLUMNS} keys; remove some", number)
    if not found:
        raise TableRefused(FileReason.EMPTY_FILE, "the file has no row; write one object a line", line=1)
    rows = tuple(tuple(row.get(name, "") for name in columns) for row in found)
    return Sample("jsonl", ",", tuple(columns), rows, whole)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(_LINE_BYTES + 1):
        number += 1
        if len(line) > _LINE_BYTES:
            raise _malformed(f"a line of more than {_LINE_BYTES} bytes; write one object a line", number)
        if line.strip():
            yield number, line


def _row_of(line: bytes, number: int) -> dict[str, str]:
    try:
        fields = load_strictly(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise TableRefused(FileReason.NOT_UTF8, detail, line=number) from None
    except NotStrictJson as error:
        raise _malformed(f"{error}; write one JSON object a line", number) from None
    if not isinstance(fields, dict):
        raise _malformed("no JSON object; write one a line", number)
    return {name: _text(value) for name, value in fields.items()}


def _malformed(detail: str, line: int) -> TableRefused:
    return TableRefused(FileReason.MALFORMED_CSV, detail, line=line)


def _peek_parquet(path: Path) -> Sample:
    open_source(path).close()
    # Takes a quarter of a second, and nobody else needs it.
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            columns = tuple(map(str, file.schema_arrow.names))
            if len(columns) > MAX_COLUMNS or len(set(columns)) < len(columns) or not columns:
                raise TableRefused(
                    FileReason.MALFORMED_CSV, f"no column, two of one name, or more than {MAX_COLUMNS}"
                )
            batch = next(file.iter_batches(batch_size=ROWS), None)
            found = batch.to_pylist() if batch is not None else []
            whole = file.metadata.num_rows <= len(found)
    except (arrow.ArrowException, ValueError) as error:
        detail = f"not a Parquet file that can be read: {' '.join(str(error).split())[:120]}"
        raise TableRefused(FileReason.MALFORMED_CSV, detail) from None
    rows = tuple(tuple(_text(row[name]) for name in columns) for row in found)
    return Sample("parquet", ",", columns, rows, whole)


def _text(value: Any) -> str:
    """Return a value of JSON or Parquet as it would stand in a cell."""
    if value is None or isinstance(value, bytes):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)[:_CELL_CHARACTERS]
    return str(value)[:_CELL_CHARACTERS]
