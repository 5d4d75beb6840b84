"""Memory stays bounded whatever the bytes are; proven by what is read, not by the clock."""

import io
import tracemalloc
from pathlib import Path

import pytest

from prism.messages.reasons import FileReason, RowReason
from prism.tables import TableFormat, TableRefused, read_header, read_rows, reader
from tests.unit.tables.files import DEFAULT, refusal, written

GIB = 1 << 30
MIB = 1 << 20
H = b"RowID,Message\n"


class CountedFile(io.FileIO):
    """A file that knows how much of it was read."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        CountedFile.total += len(data)
        return data


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountedFile]:
    CountedFile.total = 0
    monkeypatch.setattr(reader, "open_source", lambda path: CountedFile(path, "rb"))
    return CountedFile


def sparse(folder: Path, start: bytes) -> Path:
    """10 GiB that take no disk: `start`, then NULs without a line end."""
    path = written(folder, start)
    with path.open("r+b") as stream:
        stream.truncate(10 * GIB)
    return path


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("start", "reason", "line", "column"),
    [
        (H + b'1,a\n2,"b', FileReason.UNCLOSED_QUOTE, 3, 3),
        (H + b"1,a\n2,b", FileReason.TOO_LARGE, 3, 1),
        (b'RowID,"Message', FileReason.UNCLOSED_QUOTE, 1, 7),
        (b"RowID,Message", FileReason.TOO_LARGE, 1, 1),
    ],
)
def test_a_row_without_end_in_a_huge_file_is_not_buffered(
    tmp_path: Path, counted: type[CountedFile], start: bytes, reason: FileReason, line: int, column: int
) -> None:
    refused = refusal(sparse(tmp_path, start))
    assert (refused.reason, refused.line, refused.column) == (reason, line, column)
    # Once to the limit, and once more to find the place.
    assert counted.total < 2 * DEFAULT.max_record_bytes + 2 * MIB


def test_an_unclosed_quote_over_many_lines_is_not_buffered(
    tmp_path: Path, counted: type[CountedFile]
) -> None:
    path = written(tmp_path, H + b'1,"opened here\n' + b"2,a comment of no importance\n" * 2_000_000)
    tracemalloc.start()
    try:
        refused = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (refused.reason, refused.line, refused.column) == (FileReason.UNCLOSED_QUOTE, 2, 3)
    assert counted.total < 2 * DEFAULT.max_record_bytes + 2 * MIB < path.stat().st_size
    assert peak < 16 * DEFAULT.max_record_bytes


def test_reading_takes_constant_memory(tmp_path: Path) -> None:
    rows, text = 80_000, b"a comment of no importance " * 4
    path = written(tmp_path, H + b"".join(b"%d,%b\n" % (n, text) for n in range(rows)))
    header = read_header(path, DEFAULT)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path, header, DEFAULT)) == rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB < path.stat().st_size


def test_a_long_row_below_the_cap_fails_alone(tmp_path: Path) -> None:
    fmt = TableFormat(max_field_chars=1000, max_row_bytes=2000)
    path = written(tmp_path, H + b'1,"' + b"x\n" * 2 * MIB + b'"\n2,b\n')
    rows = list(read_rows(path, read_header(path, fmt), fmt))
    assert [row.problem for row in rows] == [RowReason.FIELD_TOO_LONG, None]


@pytest.mark.parametrize("chunk_bytes", [1 << 18, (1 << 20) + 1, 1 << 26])
@pytest.mark.parametrize(("extra", "refused"), [(0, False), (1, True)])
def test_the_cap_does_not_depend_on_chunks(
    tmp_path: Path, chunk_bytes: int, extra: int, refused: bool
) -> None:
    fmt = TableFormat(max_field_chars=1, max_row_bytes=1)
    row = b'1,"' + b"x" * (fmt.max_record_bytes - 5 + extra) + b'"\n'
    path = written(tmp_path, H + row + b"2,b\n")
    rows = read_rows(path, read_header(path, fmt), fmt, chunk_bytes=chunk_bytes)
    if refused:
        with pytest.raises(TableRefused):
            list(rows)
    else:
        assert len(list(rows)) == 2


def test_the_cap_follows_the_limits() -> None:
    assert TableFormat().max_record_bytes == 8 * MIB
    assert TableFormat(max_field_chars=MIB).max_record_bytes == 64 * MIB
