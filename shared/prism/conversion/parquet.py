"""Parquet as rows, a few thousand at a time: what a decoder has in hand does not grow with the file.

Whatever a file makes the decoder do, it does it in a process of its own (`child.py`).
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prism.conversion.plain_csv import PlainCsv
from prism.messages.reasons import FileReason
from prism.tables import TableRefused
from prism.tables.refusals import shown

MAGIC = b"PAR1"
# Of one batch: so many cells, and so many bytes by the file's own word.
_CELLS = 200_000
_BYTES = 4 << 20
_MOST_ROWS = 4096
_READ_BYTES = 1 << 20

Texts = list[str]
Render = Callable[[Any], Texts]


def convert_parquet(source: BinaryIO, out: PlainCsv) -> None:
    """Write a Parquet file's rows to `out`, which is begun here.

    Raises TableRefused: `EMPTY_FILE`, `MALFORMED_PARQUET`, `UNSUPPORTED_COLUMN`, `NOT_UTF8`, `TOO_LARGE`.
    """
    _assert_magic(source)
    try:
        # Buffered, and not all of a row group at once.
        file = pq.ParquetFile(
            source, buffer_size=_READ_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        renders = [_render_of(field) for field in file.schema_arrow]
        out.begin(file.schema_arrow.names)
        for batch in file.iter_batches(_rows_at_once(file.metadata), use_threads=False):
            out.add(_rows(batch, renders))
    except UnicodeDecodeError:
        raise TableRefused(
            FileReason.NOT_UTF8, f"a text behind row {out.rows} is not UTF-8; write the file again"
        ) from None
    except (MemoryError, pa.ArrowMemoryError):
        raise TableRefused(
            FileReason.TOO_LARGE,
            f"the rows behind row {out.rows} take more memory than a file may have; write smaller row groups",
        ) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the file's
        what = " ".join(str(error).split())[:200]
        raise TableRefused(
            FileReason.MALFORMED_PARQUET, f"not readable as Parquet behind row {out.rows}: {what}"
        ) from None


def _assert_magic(source: BinaryIO) -> None:
    size = source.seek(0, 2)
    source.seek(0)
    head = source.read(4)
    if size == 0:
        raise TableRefused(FileReason.EMPTY_FILE, "the file has no bytes; send it again with its content")
    source.seek(max(0, size - 4))
    tail = source.read(4)
    source.seek(0)
    if head == b"PARE":
        raise TableRefused(FileReason.MALFORMED_PARQUET, "the file is encrypted; write it without encryption")
    if head != MAGIC:
        raise TableRefused(
            FileReason.MALFORMED_PARQUET, "the bytes are not Parquet (no PAR1 at the start); is it a CSV?"
        )
    if tail != MAGIC or size < 12:
        raise TableRefused(
            FileReason.MALFORMED_PARQUET, "the file is cut off (no PAR1 at its end); send it whole"
        )


def _rows_at_once(metadata: Any) -> int:
    total = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    each: int = max(1, total // max(1, metadata.num_rows))
    columns: int = max(1, metadata.num_columns)
    return max(1, min(_MOST_ROWS, _CELLS // columns, _BYTES // each))


def _rows(batch: Any, renders: list[Render]) -> Iterator[tuple[str, ...]]:
    if not renders:
        return
    columns = [render(column) for render, column in zip(renders, batch.columns, strict=True)]
    yield from zip(*columns, strict=True)


def _render_of(field: Any) -> Render:
    """Return what makes a column's texts. Raises TableRefused for a column that has none."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        inner = _render_of(pa.field(field.name, kind))
        return lambda column: inner(column.dictionary_decode())
    if _has_bytes(kind):
        raise TableRefused(
            FileReason.UNSUPPORTED_COLUMN,
            f"column {shown(field.name)} holds bytes ({kind}); write it as text, or leave it out",
        )
    if pa.types.is_nested(kind):
        return _json_texts
    if pa.types.is_timestamp(kind):
        return _moments
    if pa.types.is_decimal(kind):
        return _decimals
    if pa.types.is_null(kind):
        return lambda column: [""] * len(column)
    if pa.types.is_interval(kind):
        return _json_texts
    return _texts


def _has_bytes(kind: Any) -> bool:
    """Return whether values of this type hold bytes that are no text, at any depth."""
    if pa.types.is_nested(kind):
        return any(_has_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _texts(column: Any) -> Texts:
    return ["" if one is None else one for one in pc.cast(column, pa.string()).to_pylist()]


def _moments(column: Any) -> Texts:
    """ISO 8601; a moment with a time zone as UTC, because a machine's table of zones is not the file's."""
    kind = column.type
    naive = pc.cast(column, pa.timestamp(kind.unit))
    texts = pc.replace_substring(pc.cast(naive, pa.string()), " ", "T", max_replacements=1).to_pylist()
    if any(one is not None and one.startswith("<") for one in texts):
        raise ValueError("a time out of range")
    ending = "Z" if kind.tz else ""
    return ["" if one is None else one + ending for one in texts]


def _decimals(column: Any) -> Texts:
    return ["" if one is None else f"{one:f}" for one in column.to_pylist()]


def _json_texts(column: Any) -> Texts:
    return ["" if one is None else _json(one) for one in column.to_pylist()]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> str:
    """Return what JSON has no word for, as text."""
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
