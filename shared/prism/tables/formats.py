"""What a table looks like: the job's format, the header, a row, and a place to go on from."""

from dataclasses import dataclass
from typing import NamedTuple

from prism.messages.reasons import RowReason

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class TableFormat:
    """How a job's CSV is written and how large its parts may be.

    Attributes:
        delimiter: one character between cells.
        required_columns: names that the header must hold, compared exactly.
        message_column: a blank cell here makes the row a failure (`EMPTY_MESSAGE`).
        row_id_column: names each row; when the header lacks it, rows are numbered "1", "2", ….
        max_field_chars: characters of one cell; a longer one fails its row (`FIELD_TOO_LONG`).
        max_row_bytes: bytes of one row in the file, its line end and quotes included; a longer one
            fails (`ROW_TOO_LONG`). The default leaves room in a batch of 512 kB.
        max_columns: columns of the header; more refuse the file.
        renames: columns that the file calls otherwise, as (our name, the file's). Everything else here, and
            the header that is read, has our names.
        converted: the CSV was made of another format: its rows are the source's, its lines are not.
    """

    delimiter: str = ","
    required_columns: tuple[str, ...] = ("Message",)
    message_column: str = "Message"
    row_id_column: str = "RowID"
    max_field_chars: int = 131_072
    max_row_bytes: int = 400_000
    max_columns: int = 4_096
    renames: tuple[tuple[str, str], ...] = ()
    converted: bool = False

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n\0\ufeff':
            raise ValueError(f"delimiter must be one character, no quote or line end: {self.delimiter!r}")
        if min(self.max_field_chars, self.max_row_bytes, self.max_columns) < 1:
            raise ValueError("max_field_chars, max_row_bytes and max_columns must be at least 1")

    @property
    def max_record_bytes(self) -> int:
        """Bytes that are searched for the end of one row before the file is refused: bounds memory."""
        return max(64 * self.max_field_chars, 2 * self.max_row_bytes, 8 * MIB)


# NamedTuples, not frozen dataclasses: one of each is made for every row of ten million, and
# reading 1,000,000 takes 1.4 s of CPU like this and 2.1 s with frozen dataclasses.
class Position(NamedTuple):
    """Where the next row is read from; enough to resume there. Survives JSON as a list of three.

    Attributes:
        ordinal: number of the next row, from 0 (blank lines are not rows).
        offset: byte where it starts, from the beginning of the file, a BOM included.
        line: physical line where it starts, from 1.
    """

    ordinal: int
    offset: int
    line: int


class Row(NamedTuple):
    """One row as it stands in the file.

    Attributes:
        ordinal: number of the row, from 0; this, not `row_id`, is its identity.
        line: physical line where it starts, from 1.
        row_id: its RowID cell as given, or its number from "1" when the file has no such column. "" when
            a row with too few cells lacks it: then only `ordinal` tells the row from others.
        cells: every cell as given; as many as there are, also when that is the wrong number.
        problem: why the row must not be sent to a model; None for a good row.
        start: where this row begins (behind blank lines).
        end: where the next one may be read from.
    """

    ordinal: int
    line: int
    row_id: str
    cells: tuple[str, ...]
    problem: RowReason | None
    start: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Header:
    """The names of a table's columns, and where its rows begin.

    Attributes:
        columns: names as given, all different.
        row_id_index: the RowID's column, from 0; None when rows are numbered.
        end_offset: byte behind the header.
        lines: physical lines up to there, blank ones before the header included.
    """

    columns: tuple[str, ...]
    row_id_index: int | None
    end_offset: int
    lines: int

    @property
    def end(self) -> Position:
        """Where the first row is read from."""
        return Position(ordinal=0, offset=self.end_offset, line=self.lines + 1)

    def index(self, name: str) -> int | None:
        """The column of that name, from 0, or None."""
        return self.columns.index(name) if name in self.columns else None
