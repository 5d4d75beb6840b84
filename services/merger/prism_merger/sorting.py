"""Lines in the order of one of the input's columns, with constant memory: a temporary SQLite file sorts.

Stable. By number when every cell of the column is an integer or a decimal, else by code points.
"""

import csv
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
# Above this a decimal text is compared as a float: SQLite's integers end there.
_MAX_INTEGER = (1 << 63) - 1
_CHUNK = 500

Lines = Callable[[], Iterator[bytes]]


def sorted_lines(lines: Lines, column: int, delimiter: str, scratch: Path) -> Iterator[bytes]:
    """Yield what `lines()` yields, one row each, sorted by the cell number `column`.

    `scratch` is a file name that is free; nothing is left there. `lines` is called twice.
    """
    cell = _CellReader(column, delimiter)
    numeric = all(_NUMBER.fullmatch(cell(line)) for line in lines())
    _remove(scratch)
    try:
        with closing(sqlite3.connect(scratch, isolation_level=None)) as db:
            _fill(db, ((_number(cell(line)) if numeric else cell(line), line) for line in lines()))
            yield from _in_order(db)
    finally:
        _remove(scratch)


class _CellReader:
    def __init__(self, column: int, delimiter: str) -> None:
        self._column = column
        self._delimiter = delimiter
        csv.field_size_limit((1 << 31) - 1)

    def __call__(self, line: bytes) -> str:
        cells = next(csv.reader([line.decode()], delimiter=self._delimiter))
        return cells[self._column]


def _number(cell: str) -> int | float:
    try:
        whole = int(cell)
    except ValueError:
        return float(cell)
    return whole if abs(whole) <= _MAX_INTEGER else float(whole)


def _fill(db: sqlite3.Connection, rows: Iterator[tuple[str | int | float, bytes]]) -> None:
    # Nothing here outlives the process: neither journal nor fsync.
    db.execute("PRAGMA journal_mode=OFF")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA cache_size=-16000")
    db.execute("CREATE TABLE lines (n INTEGER PRIMARY KEY, line BLOB NOT NULL)")
    db.execute("CREATE TABLE keys (cell, n INTEGER, PRIMARY KEY (cell, n)) WITHOUT ROWID")
    db.execute("BEGIN")
    for n, (cell, line) in enumerate(rows):
        db.execute("INSERT INTO lines VALUES (?, ?)", (n, line))
        db.execute("INSERT INTO keys VALUES (?, ?)", (cell, n))
    db.execute("COMMIT")


def _in_order(db: sqlite3.Connection) -> Iterator[bytes]:
    found = db.execute("SELECT line FROM keys CROSS JOIN lines USING (n) ORDER BY cell, keys.n")
    while rows := found.fetchmany(_CHUNK):
        for (line,) in rows:
            yield line


def _remove(scratch: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        scratch.with_name(scratch.name + ending).unlink(missing_ok=True)
