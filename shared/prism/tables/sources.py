"""A source's bytes: opened safely, hashed, inflated."""

import contextlib
import errno
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from prism.messages.reasons import FileReason
from prism.tables.refusals import TableRefused

GZIP_WBITS = 31  # zlib: a gzip member with its checksum, and nothing else
INPUT_BYTES = 16 * 1024  # small: each tiny member copies what is left of a piece (`unused_data`)
OUTPUT_BYTES = 1 << 20
_DIGEST_BYTES = 1 << 20
RATIO_FREE_BYTES = 16 * 1024 * 1024  # up to here any ratio is fine: it cannot fill a disk
MAX_RATIO = 200.0  # real CSVs deflate 3 – 50 times, deflate's own limit is 1032


def open_source(path: Path) -> io.FileIO:
    """Open a regular file for reading, unbuffered.

    Raises:
        TableRefused: `NOT_FOUND`, or `NOT_A_FILE` for a folder, device or pipe.
        OSError: anything else that the operating system reports; trying again may help.
    """
    try:  # O_NONBLOCK: opening a pipe that nobody writes would hang before it could be refused
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        raise TableRefused(
            FileReason.NOT_FOUND, "there is no such file; check the path and send it again"
        ) from None
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        raise _not_a_file() from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_a_file()
    return open(descriptor, "rb", buffering=0)


def _not_a_file() -> TableRefused:
    return TableRefused(
        FileReason.NOT_A_FILE, "this is a folder, device or pipe; give a regular file with the CSV's bytes"
    )


def file_digest(path: Path, between: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's bytes, in hex, read as a stream; `between` is called at each block and may raise.

    Raises:
        TableRefused: as `open_source`.
    """
    digest = hashlib.sha256()
    with open_source(path) as stream:
        while block := stream.read(_DIGEST_BYTES):
            between()
            digest.update(block)
    return digest.hexdigest()


def inflate(source: BinaryIO, target: Path, *, max_bytes: int, max_ratio: float = MAX_RATIO) -> None:
    """Unpack gzip (RFC 1952; several members are one file) from `source` into the file `target`.

    At most `max_bytes` + 1 MiB are ever written, and memory stays constant. When it raises, `target` is
    gone. It is not fsynced: whoever has the source can unpack it again.

    Raises:
        TableRefused: `GZIP_BOMB` (more than `max_bytes`, or more than `max_ratio` times the packed bytes
            and 16 MiB), `NOT_GZIP` (other bytes, damaged, cut off), `EMPTY_FILE`, `NO_SPACE`.
    """
    try:
        with target.open("wb") as output:
            _Inflation(output, max_bytes, max_ratio).run(source)
    except BaseException as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TableRefused(
                FileReason.NO_SPACE, "no disk space left to unpack the file; free some and send it again"
            ) from error
        raise


class _Inflation:
    """One unpacking: counts what comes in and what goes out."""

    def __init__(self, output: BinaryIO, max_bytes: int, max_ratio: float) -> None:
        self._output = output
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._packed = 0
        self._unpacked = 0
        self._members = 0
        self._member = zlib.decompressobj(GZIP_WBITS)
        self._inside = False  # some bytes of the current member were seen

    def run(self, source: BinaryIO) -> None:
        while piece := source.read(INPUT_BYTES):
            self._packed += len(piece)
            while piece:
                piece = self._feed(piece)
        if self._packed == 0:
            raise TableRefused(FileReason.EMPTY_FILE, "the file has no bytes; send it again with its content")
        if self._inside:
            raise self._not_gzip("the gzip data ends in the middle")

    def _feed(self, piece: bytes) -> bytes:
        """Unpack a piece as far as one member goes; what is left of it belongs to the next."""
        if self._members and not self._inside:
            piece = piece.lstrip(b"\0")  # padding behind a member, as tape tools leave it
            if not piece:
                return b""
        self._inside = True
        try:
            self._write(self._member.decompress(piece, OUTPUT_BYTES))
            while not self._member.eof and self._member.unconsumed_tail:
                self._write(self._member.decompress(self._member.unconsumed_tail, OUTPUT_BYTES))
            if not self._member.eof:
                return b""
        except zlib.error:
            raise self._not_gzip("the bytes are not gzip, or damaged") from None
        left = self._member.unused_data
        self._member = zlib.decompressobj(GZIP_WBITS)
        self._members += 1
        self._inside = False
        return left

    def _write(self, data: bytes) -> None:
        self._unpacked += len(data)
        if self._unpacked > self._max_bytes:
            raise TableRefused(
                FileReason.GZIP_BOMB,
                f"unpacks to more than {self._max_bytes} bytes; split the file or raise the limit",
            )
        if self._unpacked > max(RATIO_FREE_BYTES, self._packed * self._max_ratio):
            raise TableRefused(
                FileReason.GZIP_BOMB,
                f"unpacks to more than {self._max_ratio:g} times its size, which no real CSV does; "
                "send it unpacked",
            )
        self._output.write(data)

    def _not_gzip(self, what: str) -> TableRefused:
        return TableRefused(
            FileReason.NOT_GZIP,
            f"{what} (byte {self._packed}); pack it again, or leave out `content-encoding: gzip`",
        )
