"""A CSV's header and rows, as a stream: constant memory, and resumable at every row."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from prism.messages.reasons import FileReason, RowReason
from prism.tables.formats import Header, Position, Row, TableFormat
from prism.tables.lines import CHUNK_BYTES, LineSource, RecordTooLong
from prism.tables.places import dissect, line_and_column, read_record_text
from prism.tables.refusals import TableRefused, listed, shown
from prism.tables.sources import open_source

BOM = b"\xef\xbb\xbf"
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
SIGNATURES = (
    (b"\xff\xfe", "the file is UTF-16 or UTF-32; save it as UTF-8"),
    (b"\xfe\xff", "the file is UTF-16; save it as UTF-8"),
    (b"\0\0\xfe\xff", "the file is UTF-32; save it as UTF-8"),
    (b"\x1f\x8b", "the file is gzip; send it with `content-encoding: gzip`, or unpacked"),
    (b"PK\x03\x04", "the file is a ZIP archive or an Excel workbook; save it as CSV (UTF-8)"),
)
_JSON = re.compile(r'\s*[\[{][\s\[{]*("([^"\\]|\\.)*"\s*:|$)')
PARQUET_MAGIC = b"PAR1"  # at both ends
# csv's own limit is one for the whole process; ours are per format, and `LineSource` bounds the memory.
FIELD_SIZE_LIMIT = (1 << 31) - 1


def read_header(path: Path, fmt: TableFormat, *, chunk_bytes: int = CHUNK_BYTES) -> Header:
    """Read and check the header: the first line that is not blank.

    Raises:
        TableRefused: `EMPTY_FILE`, `NO_HEADER`, `NOT_UTF8`, `MISSING_COLUMN`, `DUPLICATE_COLUMN`,
            `WRONG_DELIMITER`, `MALFORMED_CSV`, `UNCLOSED_QUOTE`, `TOO_LARGE` (more columns than
            allowed), and what `open_source` refuses.
    """
    with open_source(path) as stream:
        start = _first_position(stream)
        lines = LineSource(stream, start, fmt.max_record_bytes, chunk_bytes)
        try:
            for cells in _csv_reader(lines, fmt.delimiter):
                if cells:
                    text = read_record_text(stream, start.offset, lines.offset - start.offset)
                    cells = _check_header(text, cells, start.line, fmt)
                    row_id = cells.index(fmt.row_id_column) if fmt.row_id_column in cells else None
                    return Header(tuple(cells), row_id, lines.offset, lines.line - 1)
                start = Position(0, lines.offset, lines.line)
                lines.record_start = lines.offset
        except (csv.Error, RecordTooLong) as error:
            # `"RowID";"Message"` read with "," is a quote error: the delimiter is the better explanation.
            text = read_record_text(stream, start.offset, fmt.max_record_bytes)
            _refuse_json(text, start.line)
            _refuse_wrong_delimiter(text, start.line, fmt)
            raise _explanation(error, text, start.line, fmt) from None
    raise TableRefused(
        FileReason.NO_HEADER, "the file has only blank lines; the first line must name the columns", line=1
    )


def read_rows(
    path: Path,
    header: Header,
    fmt: TableFormat,
    start: Position | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Row]:
    """The rows from `start` (the first row when None), in the file's order, blank lines left out.

    Reading from any row's `start` or `end` gives the very rows that reading through gives. Rows with
    a `problem` are rows: every row of the file is yielded exactly once.

    Raises:
        TableRefused: while iterating: `NOT_UTF8`, `MALFORMED_CSV`, `UNCLOSED_QUOTE`, `TOO_LARGE` (a row
            beyond `max_record_bytes`), `SOURCE_CHANGED` (the file is shorter than `start`).
    """
    position = header.end if start is None else start
    with open_source(path) as stream:
        if stream.seek(0, 2) < position.offset:
            raise TableRefused(
                FileReason.SOURCE_CHANGED,
                "the file is shorter than when it was checked; restore it, or submit it as a new run",
                line=position.line,
            )
        stream.seek(position.offset)
        lines = LineSource(stream, position, fmt.max_record_bytes, chunk_bytes)
        yield from _rows(stream, lines, header, fmt, position)


def _rows(
    stream: BinaryIO, lines: LineSource, header: Header, fmt: TableFormat, start: Position
) -> Iterator[Row]:
    width, row_id_index = len(header.columns), header.row_id_index
    message_index = header.index(fmt.message_column)
    message_at = 0 if message_index is None else message_index
    # A row of so few bytes has neither too many bytes nor a cell of too many characters.
    short = min(fmt.max_row_bytes, fmt.max_field_chars)
    try:
        for cells in _csv_reader(lines, fmt.delimiter):
            offset = lines.offset
            lines.record_start = offset
            if not cells:
                start = Position(start.ordinal, offset, lines.line)
                continue
            ordinal, start_offset, line = start
            end = Position(ordinal + 1, offset, lines.line)
            problem = None
            if (
                len(cells) != width
                or offset - start_offset > short
                or lines.nul_seen
                or not (message := cells[message_at])
                or message.isspace()
            ):
                problem = _problem(cells, offset - start_offset, width, message_index, fmt)
            if row_id_index is None:
                row_id = str(ordinal + 1)
            else:
                row_id = cells[row_id_index] if row_id_index < len(cells) else ""
            yield Row(ordinal, line, row_id, tuple(cells), problem, start, end)
            start = end
    except (csv.Error, RecordTooLong) as error:
        text = read_record_text(stream, start.offset, fmt.max_record_bytes)
        raise _explanation(error, text, start.line, fmt) from None


def _problem(
    cells: list[str], size: int, width: int, message_index: int | None, fmt: TableFormat
) -> RowReason | None:
    """The first reason, in a fixed order, why a row must not be sent on.

    Raises:
        RecordTooLong: the whole row happened to be in memory, but read in other chunks it would not be.
    """
    if size > fmt.max_record_bytes:
        raise RecordTooLong
    if len(cells) != width:
        return RowReason.WRONG_CELL_COUNT
    if any("\0" in cell for cell in cells):
        return RowReason.NUL_CHARACTER
    if any(len(cell) > fmt.max_field_chars for cell in cells):
        return RowReason.FIELD_TOO_LONG
    if size > fmt.max_row_bytes:
        return RowReason.ROW_TOO_LONG
    if message_index is not None and not cells[message_index].strip():
        return RowReason.EMPTY_MESSAGE
    return None


def _csv_reader(lines: LineSource, delimiter: str) -> Iterator[list[str]]:
    if csv.field_size_limit() < FIELD_SIZE_LIMIT:
        csv.field_size_limit(FIELD_SIZE_LIMIT)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _first_position(stream: BinaryIO) -> Position:
    """Behind a BOM, after the bytes of other formats are refused by name."""
    head = stream.read(4)
    if head in (b"", BOM):
        raise TableRefused(
            FileReason.EMPTY_FILE, "the file has no content; it needs a header and rows", line=1
        )
    for signature, detail in SIGNATURES:
        if head.startswith(signature):
            raise TableRefused(FileReason.NOT_UTF8, detail, line=1, column=1)
    if head == PARQUET_MAGIC and stream.seek(-4, 2) and stream.read(4) == PARQUET_MAGIC:
        detail = "the file is Parquet; call it .parquet, or say so in the job: `table: {format: parquet}`"
        raise TableRefused(FileReason.NOT_UTF8, detail, line=1, column=1)
    start = len(BOM) if head.startswith(BOM) else 0
    stream.seek(start)
    return Position(0, start, 1)


def _check_header(text: str, names: list[str], line: int, fmt: TableFormat) -> list[str]:
    """Return the columns under our names."""
    if "\0" in "".join(names):
        raise _nul_in_header(text, line)
    if not any(names):
        raise TableRefused(
            FileReason.NO_HEADER, "every column's name is empty; name them in this line", line=line
        )
    missing = _missing(names, fmt)
    if missing is not None:
        _refuse_json(text, line)
        _refuse_wrong_delimiter(text, line, fmt)
        raise TableRefused(FileReason.MISSING_COLUMN, missing, line=line)
    if len(names) > fmt.max_columns:
        raise TableRefused(
            FileReason.TOO_LARGE,
            f"{len(names)} columns, at most {fmt.max_columns} are allowed; remove some",
            line=line,
        )
    _refuse_duplicate(text, names, line, fmt)
    return _renamed(names, line, fmt)


def _renamed(names: list[str], line: int, fmt: TableFormat) -> list[str]:
    """Return the columns under our names; of two that would be called the same, refuse the file."""
    renamed = _our_names(names, fmt)
    for name, theirs in fmt.renames:
        if renamed.count(name) > 1:
            detail = (
                f"table.columns calls the column {shown(theirs)} {shown(name)}, and there is a column "
                f"{shown(name)} already; map that one too, or rename it ({listed(names)})"
            )
            raise TableRefused(FileReason.DUPLICATE_COLUMN, detail, line=line)
    return renamed


def _our_names(names: list[str], fmt: TableFormat) -> list[str]:
    ours = {theirs: name for name, theirs in fmt.renames}
    return [ours.get(name, name) for name in names]


def _missing(names: list[str], fmt: TableFormat) -> str | None:
    """Return what to do about a column that should be there and is not; None if all are."""
    for name, wanted in fmt.renames:
        if wanted not in names:
            return (
                f"there is no column {shown(wanted)}, which table.columns maps to {shown(name)}; "
                f"correct the job ({listed(names)})"
            )
    renamed = _our_names(names, fmt)
    missing = [name for name in fmt.required_columns if name not in renamed]
    return _missing_detail(missing[0], names) if missing else None


def _refuse_duplicate(text: str, names: list[str], first_line: int, fmt: TableFormat) -> None:
    """One unnamed column is kept (a data frame's index); of two, neither can be told from the other."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            line, column = line_and_column(text, dissect(text, fmt.delimiter).fields[index], first_line)
            detail = f"column {shown(name)} is there twice; rename or remove one"
            raise TableRefused(FileReason.DUPLICATE_COLUMN, detail, line=line, column=column)
        seen.add(name)


def _missing_detail(missing: str, names: list[str]) -> str:
    close = [name for name in names if name.strip().casefold() == missing.casefold()]
    if close:
        return f"there is no column {shown(missing)}, only {shown(close[0])}; rename it, letter for letter"
    return (
        f"there is no column {shown(missing)}; rename or add it, or map one to it by the job's table.columns "
        f"({listed(names)})"
    )


def _refuse_json(text: str, line: int) -> None:
    """Refuse JSON that is called a CSV."""
    if _JSON.match(text):
        detail = (
            "the file looks like JSON; write one object per line and call it .jsonl, or say so in the job: "
            "`table: {format: jsonl}`"
        )
        raise TableRefused(FileReason.MALFORMED_CSV, detail, line=line, column=1)


def _nul_in_header(text: str, line: int) -> TableRefused:
    first_line = text[: text.index("\n")] if "\n" in text else text
    if first_line.count("\0") * 3 >= len(first_line):
        detail = "the file looks like UTF-16 without a BOM; save it as UTF-8"
        return TableRefused(FileReason.NOT_UTF8, detail, line=line, column=1)
    at_line, column = line_and_column(text, text.index("\0"), line)
    detail = "a column's name holds a NUL character; remove it"
    return TableRefused(FileReason.MALFORMED_CSV, detail, line=at_line, column=column)


def _refuse_wrong_delimiter(text: str, line: int, fmt: TableFormat) -> None:
    """Refuse when the required columns show under another delimiter than the job's."""
    for delimiter, name in DELIMITERS.items():
        if delimiter != fmt.delimiter and delimiter in text:
            try:
                names = next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
            except (csv.Error, StopIteration):
                continue
            if len(names) > 1 and _missing(names, fmt) is None:
                wanted = DELIMITERS.get(fmt.delimiter, repr(fmt.delimiter))
                raise TableRefused(
                    FileReason.WRONG_DELIMITER,
                    f"the columns are separated by a {name}, the job expects a {wanted}; "
                    "set the job's delimiter or save the file with the other one",
                    line=line,
                    column=text.index(delimiter) + 1,
                )


def _explanation(error: Exception, text: str, first_line: int, fmt: TableFormat) -> TableRefused:
    """Why the row that `text` begins with could not be read."""
    anatomy = dissect(text, fmt.delimiter)
    if anatomy.open_quote is not None:
        line, column = line_and_column(text, anatomy.open_quote, first_line)
        detail = f"the quote opened here is not closed in the row's first {len(text)} characters; close it"
        return TableRefused(FileReason.UNCLOSED_QUOTE, detail, line=line, column=column)
    if anatomy.stray is not None:
        opened = line_and_column(text, anatomy.fields[-1], first_line)
        line, column = line_and_column(text, anatomy.stray, first_line)
        detail = (
            f"text goes on behind the closing quote of the cell that starts in line {opened[0]}, column "
            f'{opened[1]}; write a quote inside a cell as ""'
        )
        return TableRefused(FileReason.MALFORMED_CSV, detail, line=line, column=column)
    if isinstance(error, RecordTooLong):
        detail = (
            f"the row goes on for more than {fmt.max_record_bytes} bytes; shorten it or check the line ends"
        )
        return TableRefused(FileReason.TOO_LARGE, detail, line=first_line, column=1)
    return TableRefused(
        FileReason.MALFORMED_CSV, f"not readable as CSV ({error}); correct this row", line=first_line
    )
