"""Merged rows as pieces of CSV of a few MiB, whatever a cell holds: memory does not grow with the rows."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_merger.joining import Shape, join, stored_lines
from prism_merger.store import RowReader

BLOCK_BYTES = 8 << 20
BLOCK_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Block:
    """Whole rows without a header.

    `stretches`: first row (from 0) and count of each; None: the rows follow on those before.
    """

    lines: bytes
    stretches: tuple[tuple[int, int], ...] | None = None


def stored_blocks(
    rows: RowReader, file_id: int, most_bytes: int = BLOCK_BYTES, most_rows: int = BLOCK_ROWS
) -> Iterator[Block]:
    """Yield a file's rows from the store, in order; a block is larger only where a batch is."""
    lines: list[bytes] = []
    stretches: list[tuple[int, int]] = []
    size = count = 0
    for batch in rows.batches(file_id):
        lines.append(batch.lines)
        stretches.append((batch.first_row, len(batch.lengths) // 4))
        size, count = size + len(batch.lines), count + stretches[-1][1]
        if size >= most_bytes or count >= most_rows:
            yield Block(b"".join(lines), tuple(stretches))
            lines, stretches, size, count = [], [], 0, 0
    if lines:
        yield Block(b"".join(lines), tuple(stretches))


def joined_blocks(
    rows: RowReader, file_ids: Sequence[int], shape: Shape, most_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Yield the rows of several models' files side by side, as they are published."""
    lines: list[bytes] = []
    numbers: list[int] = []
    size = 0
    joined = join(shape, [stored_lines(rows, one) for one in file_ids])
    for line, number in zip(joined, _row_numbers(rows, file_ids), strict=True):
        lines.append(line.content)
        numbers.append(number)
        size += len(line.content)
        if size >= most_bytes or len(lines) >= BLOCK_ROWS:
            yield Block(b"".join(lines), _stretches(numbers))
            lines, numbers, size = [], [], 0
    if lines:
        yield Block(b"".join(lines), _stretches(numbers))


def _row_numbers(rows: RowReader, file_ids: Sequence[int]) -> Iterator[int]:
    """Yield the number of each row that is there of one file at least."""
    end = 0
    for first, behind in heapq.merge(*(_spans(rows, one) for one in file_ids)):
        yield from range(max(first, end), behind)
        end = max(end, behind)


def _spans(rows: RowReader, file_id: int) -> Iterator[tuple[int, int]]:
    return ((first, first + count) for _, first, count in rows.spans(file_id))


def _stretches(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found: list[list[int]] = []
    for number in numbers:
        if found and number == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return tuple((first, count) for first, count in found)


def file_blocks(path: Path, most_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the rows of a CSV that this product wrote; a block is larger only where a row is."""
    with path.open("rb") as file:
        rest, header = b"", True
        while chunk := file.read(most_bytes):
            rest += chunk
            end = _end_of_rows(rest)
            if end and header:
                begin, header = _end_of_first_row(rest), False
                if begin < end:
                    yield Block(rest[begin:end])
            elif end:
                yield Block(rest[:end])
            rest = rest[end:]


def _end_of_rows(data: bytes) -> int:
    """Return where the last whole row ends: at a line's end before which quotes are paired."""
    quotes, position = data.count(b'"'), len(data)
    while (line_end := data.rfind(b"\n", 0, position)) >= 0:
        quotes -= data.count(b'"', line_end, position)
        if quotes % 2 == 0:
            return line_end + 1
        position = line_end
    return 0


def _end_of_first_row(data: bytes) -> int:
    """Return where the first row ends; there is one."""
    quotes, position = 0, 0
    while True:
        line_end = data.index(b"\n", position)
        quotes += data.count(b'"', position, line_end)
        position = line_end + 1
        if quotes % 2 == 0:
            return position
