"""Pass 1 over a source: everything that refuses it whole, before the first model call.

RowIDs are compared in a SQLite file, because a set of ten million strings is a gigabyte. It is scratch:
no journal, no sync; a crash leaves a folder `check-*` that the scratch folder's owner may delete.
"""

import contextlib
import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prism.messages.reasons import FileReason, RowReason
from prism.tables.formats import Header, Row, TableFormat
from prism.tables.places import dissect, line_and_column, read_record_text
from prism.tables.reader import read_rows
from prism.tables.refusals import TableRefused
from prism.tables.sources import open_source

BATCH_ROWS = 20_000  # rows per insert: memory stays small, and sorted inserts walk the tree once
CACHE_KIB = 64 * 1024
MAX_KEY_CHARS = 64  # a longer RowID is stored as its digest, so that rows of 100 kB fill no disk

Key = str | bytes


def check_rows(path: Path, header: Header, fmt: TableFormat, scratch: Path) -> Iterator[Row]:
    """The rows of `read_rows`, checked; only when the last one is out is the file accepted.

    RowIDs are compared exactly, as text: "1", "01" and " 1" differ. An empty RowID is a text like
    any other: once it names one row, and twice it is a duplicate. A row with the wrong number of
    cells is left out of the comparison: its cells may have slipped, and it must fail alone.

    Raises:
        TableRefused: while iterating, all that `read_rows` raises; `DUPLICATE_ROW_ID` with the place of
            the second one, up to 20,000 rows late; `NO_SPACE` when `scratch` is full.
    """
    if header.row_id_index is None:
        yield from read_rows(path, header, fmt)
        return
    with _open_register(scratch, fmt.converted) as register:
        try:
            for row in read_rows(path, header, fmt):
                if row.problem is not RowReason.WRONG_CELL_COUNT:
                    register.add(row)
                yield row
            register.flush()
        except _DuplicateRowId as duplicate:
            raise _duplicate_refusal(path, header.row_id_index, fmt, duplicate) from None


class _DuplicateRowId(Exception):
    def __init__(self, first_line: int, second_line: int, second_offset: int) -> None:
        super().__init__(first_line, second_line)
        self.first_line = first_line
        self.second_line = second_line
        self.second_offset = second_offset


class _RowIdRegister:
    """RowIDs seen so far, each with its line; a line names one row, because a row ends its line.

    Of a converted table, whose lines nobody has seen, with the row's number instead.
    """

    def __init__(self, database: sqlite3.Connection, converted: bool) -> None:
        self._converted = converted
        self._database = database
        self._keys: list[tuple[Key, int]] = []
        self._offsets: list[int] = []
        database.execute("CREATE TABLE seen (key PRIMARY KEY, line INTEGER NOT NULL) WITHOUT ROWID")

    def add(self, row: Row) -> None:
        row_id = row.row_id
        place = row.ordinal + 1 if self._converted else row.line
        self._keys.append((row_id if len(row_id) <= MAX_KEY_CHARS else _digest(row_id), place))
        self._offsets.append(row.start.offset)
        if len(self._keys) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        keys, offsets = self._keys, self._offsets
        self._keys, self._offsets = [], []
        try:
            # Sorted with the line: of two equal keys in one batch the earlier row is kept.
            ordered = sorted(keys) if all(type(key) is str for key, _ in keys) else keys
            cursor = self._database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", ordered)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise TableRefused(
                FileReason.NO_SPACE,
                "no disk space left to compare the RowIDs; free some and send the file again",
            ) from error
        if cursor.rowcount != len(keys):
            self._raise_first_duplicate(keys, offsets)

    def _raise_first_duplicate(self, keys: list[tuple[Key, int]], offsets: list[int]) -> None:
        for (key, line), offset in zip(keys, offsets, strict=True):
            (first,) = self._database.execute("SELECT line FROM seen WHERE key = ?", (key,)).fetchone()
            if first != line:
                raise _DuplicateRowId(first, line, offset)


def _digest(row_id: str) -> bytes:
    return hashlib.sha256(row_id.encode()).digest()  # a BLOB: never equal to a RowID that is TEXT


@contextlib.contextmanager
def _open_register(scratch: Path, converted: bool) -> Iterator[_RowIdRegister]:
    with tempfile.TemporaryDirectory(prefix="check-", dir=scratch, ignore_cleanup_errors=True) as folder:
        # A generator may be closed by whichever thread drops it last.
        database = sqlite3.connect(
            Path(folder) / "rowids.sqlite", isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
                database.execute(f"PRAGMA {pragma}")
            database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            database.execute("BEGIN")
            yield _RowIdRegister(database, converted)
        finally:
            database.close()


def _duplicate_refusal(
    path: Path, row_id_index: int, fmt: TableFormat, duplicate: _DuplicateRowId
) -> TableRefused:
    if fmt.converted:
        detail = f"row {duplicate.second_line} has the RowID of row {duplicate.first_line}; give each its own"
        return TableRefused(FileReason.DUPLICATE_ROW_ID, detail)
    with open_source(path) as stream:
        text = read_record_text(stream, duplicate.second_offset, fmt.max_record_bytes)
    field = dissect(text, fmt.delimiter).fields[row_id_index]
    line, column = line_and_column(text, field, duplicate.second_line)
    detail = f"this row has the RowID of line {duplicate.first_line}; give each row its own"
    return TableRefused(FileReason.DUPLICATE_ROW_ID, detail, line=line, column=column)
