"""Physical lines of a binary stream, decoded, with the byte offset behind each.

`csv` must get its lines from here: it fails on a lone "\\r" inside a string, `str.splitlines` breaks at
U+2028, and only bytes give offsets that a later read can seek to. Reading is bounded: when one row
goes on for longer than `max_record_bytes`, the next chunk is not read.
"""

from collections.abc import Iterator
from typing import BinaryIO

from prism.messages.reasons import FileReason
from prism.tables.formats import Position
from prism.tables.refusals import TableRefused

CHUNK_BYTES = 1 << 18


class RecordTooLong(Exception):
    """The row that starts at `record_start` has no end within the limit."""


class LineSource:
    """Hands out lines and knows where it is.

    Attributes:
        offset: byte behind the last line handed out.
        line: number of the next physical line, from 1.
        record_start: byte where the current row starts; the reader of rows moves it on.
        nul_seen: a NUL was read; from here on rows must be looked at one by one.
    """

    __slots__ = ("_chunk_bytes", "_max_record_bytes", "_stream", "line", "nul_seen", "offset", "record_start")

    def __init__(
        self, stream: BinaryIO, start: Position, max_record_bytes: int, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._stream = stream
        self._max_record_bytes = max_record_bytes
        self._chunk_bytes = chunk_bytes
        self.offset = start.offset
        self.line = start.line
        self.record_start = start.offset
        self.nul_seen = False

    def __iter__(self) -> Iterator[str]:
        """Lines with their ends (LF, CRLF or a lone CR) as given.

        Raises:
            TableRefused: `NOT_UTF8`, with line and column.
            RecordTooLong: instead of reading on.
        """
        carry = b""
        while chunk := self._read(len(carry)):
            pieces = (carry + chunk).splitlines(keepends=True)
            # Without "\n" the last piece may go on; a "\r" may be the first half of "\r\n".
            carry = b"" if pieces[-1].endswith(b"\n") else pieces.pop()
            for piece in pieces:
                self.offset += len(piece)
                self.line += 1
                try:
                    yield piece.decode()
                except UnicodeDecodeError as error:
                    raise self._not_utf8(piece, error) from None
        if carry:
            self.offset += len(carry)
            self.line += 1
            try:
                yield carry.decode()
            except UnicodeDecodeError as error:
                raise self._not_utf8(carry, error) from None

    def _read(self, carried: int) -> bytes:
        if self.offset + carried - self.record_start > self._max_record_bytes:
            raise RecordTooLong
        chunk = self._stream.read(self._chunk_bytes)
        if b"\0" in chunk:
            self.nul_seen = True
        return chunk

    def _not_utf8(self, piece: bytes, error: UnicodeDecodeError) -> TableRefused:
        return TableRefused(
            FileReason.NOT_UTF8,
            f"byte 0x{piece[error.start]:02x} is not UTF-8; save the file as UTF-8 "
            "(it may be Windows-1252 or Latin-1)",
            line=self.line - 1,
            column=len(piece[: error.start].decode()) + 1,
        )
