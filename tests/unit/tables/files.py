"""Helpers: a table from bytes, and the rows of one."""

from pathlib import Path

import pytest

from prism.tables import (
    Position,
    Row,
    TableFormat,
    TableRefused,
    check_rows,
    read_header,
    read_rows,
)

DEFAULT = TableFormat()


def written(folder: Path, content: bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def rows_of(
    path: Path, fmt: TableFormat = DEFAULT, start: Position | None = None, chunk_bytes: int = 1 << 18
) -> list[Row]:
    header = read_header(path, fmt, chunk_bytes=chunk_bytes)
    return list(read_rows(path, header, fmt, start, chunk_bytes=chunk_bytes))


def checked(path: Path, fmt: TableFormat = DEFAULT) -> list[Row]:
    """Pass 1 as the ingestor does it, header first."""
    return list(check_rows(path, read_header(path, fmt), fmt, path.parent))


def refusal(path: Path, fmt: TableFormat = DEFAULT) -> TableRefused:
    with pytest.raises(TableRefused) as caught:
        checked(path, fmt)
    return caught.value
