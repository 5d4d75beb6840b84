"""A Parquet file that is handed out as bytes, row group by row group."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


class ParquetFile:
    """Strings in every column, but an int32 at `size_at`; an empty cell at one of `errors` is null."""

    def __init__(self, names: Sequence[str], size_at: int | None, errors: Sequence[int]) -> None:
        self._size_at, self._errors = size_at, frozenset(errors)
        self._sink = _Sink()
        self._held: list[pa.RecordBatch] = []
        self._schema = pa.schema([self._field(number, name) for number, name in enumerate(names)])
        # Arrow's own pools keep what they have had.
        pa.set_memory_pool(pa.system_memory_pool())
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Take rows for the next row group; here they take a fraction of what they took as texts."""
        columns = [self._column(number, cells) for number, cells in enumerate(zip(*rows, strict=True))]
        self._held.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def group(self) -> bytes:
        """Return the bytes of the row group of what was added."""
        table = pa.Table.from_batches(self._held, schema=self._schema)
        self._held = []
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        return self._sink.taken()

    def end(self) -> bytes:
        """Return the bytes behind the last row group."""
        self._writer.close()
        return self._sink.taken()

    def _field(self, number: int, name: str) -> pa.Field:
        kind = pa.int32() if number == self._size_at else pa.string()
        return pa.field(name, kind, nullable=number in self._errors)

    def _column(self, number: int, cells: Sequence[str]) -> pa.Array:
        if number == self._size_at:
            return pa.array([int(cell) for cell in cells], pa.int32())
        if number in self._errors:
            return pa.array([cell or None for cell in cells], pa.string())
        return pa.array(cells, pa.string())


class _Sink(io.RawIOBase):
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data))  # type: ignore[arg-type]
        self._pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def taken(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces = []
        return taken
