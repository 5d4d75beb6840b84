"""Helpers: a source converted in this process, and read as the ingestor reads it."""

import io
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prism.conversion.json_lines import convert_json_lines
from prism.conversion.parquet import convert_parquet
from prism.conversion.plain_csv import PlainCsv, Terms
from prism.tables import TableFormat, TableRefused, read_header, read_rows

ANY = TableFormat(required_columns=(), message_column="", converted=True)
TERMS = Terms(max_row_bytes=ANY.max_record_bytes)


def plain(data: bytes, terms: Terms = TERMS) -> bytes:
    """Return the plain CSV of a source, Parquet by its magic, else JSON Lines."""
    target = io.BytesIO()
    out = PlainCsv(target, len(data), terms)
    if data.startswith(b"PAR"):
        convert_parquet(io.BytesIO(data), out)
    else:
        convert_json_lines(io.BytesIO(data), out, terms)
    assert out.end().bytes == len(target.getvalue())
    return target.getvalue()


def table(data: bytes, terms: Terms = TERMS) -> list[list[str]]:
    """Return header and rows, as pass 1 and pass 2 see them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(plain(data, terms))
        header = read_header(path, ANY)
        return [list(header.columns), *(list(row.cells) for row in read_rows(path, header, ANY))]


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def refused(data: bytes, terms: Terms = TERMS) -> TableRefused:
    with pytest.raises(TableRefused) as caught:
        plain(data, terms)
    return caught.value
