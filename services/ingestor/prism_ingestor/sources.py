"""A source's bytes brought to a plain CSV on disk, checked against what was accepted.

What came in the topic, is packed, or is no CSV, is copied into the spool: a cache that any ingestor can make
again from the source, byte for byte. A plain file by reference is read where it lies, and watched: a source
that changes fails its run, it is never read half old, half new.
"""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from prism.conversion import SourceKind, Terms, convert, is_packed, kind_of
from prism.messages import FileReason, MessageSource, RunFile, UriSource
from prism.tables import TableFormat, TableRefused, file_digest, inflate, open_source

_GZIP_MAGIC = b"\x1f\x8b"
_RESERVED_FREE_BYTES = 64 * 1024 * 1024
# What stays as it is until somebody changes the file or its folder.
_FOR_GOOD = {errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EINVAL}

ReadMessage = Callable[[int, int], bytes | None]
# Called between blocks of bytes; what it raises breaks the work off.
Between = Callable[[], None]


class SourceChanged(Exception):
    """The bytes are not those that were accepted: the run fails as `source_changed` or `source_gone`."""

    def __init__(self, reason: FileReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A plain CSV on this machine, and how to see that it is still the same."""

    path: Path
    sha256: str
    bytes: int
    stamp: tuple[int, int, int] | None = None
    # Of the CSV itself, where it was made of another format.
    plain_sha256: str | None = None

    def assert_unchanged(self) -> None:
        """Raise SourceChanged if a file that is read where it lies has been touched."""
        if self.stamp is None:
            return
        try:
            now = _stamp(self.path)
        except OSError as error:
            raise SourceChanged(
                FileReason.SOURCE_GONE, f"{self.path.name} is gone: {error.strerror}"
            ) from None
        if now != self.stamp:
            raise SourceChanged(
                FileReason.SOURCE_CHANGED,
                f"{self.path.name} was changed while it was read: send it again as a new run",
            )


class Sources:
    """Brings sources to disk. `read_message(partition, offset)` returns an intake record's bytes."""

    def __init__(self, spool: Path, allowed: Path, max_bytes: int, read_message: ReadMessage) -> None:
        self._spool = spool
        self._allowed = allowed
        self._max_bytes = max_bytes
        self._read_message = read_message

    def bring(self, run_id: str, file: RunFile, between: Between = lambda: None) -> PlainFile:
        """Return the plain file of a source, copied or unpacked as needed.

        Raises TableRefused for a source that cannot be used, SourceChanged for one that is not what
        `file.sha256` says, OSError and BrokerAway for what may work later, and what `between` raises.
        """
        from_where = self._from_uri if isinstance(file.source, UriSource) else self._from_topic
        found = from_where(run_id, file, between)
        if file.sha256 is not None and found.sha256 != file.sha256:
            if file.columns:
                raise SourceChanged(
                    FileReason.SOURCE_CHANGED,
                    "the source is not what was accepted: send it again as a new run",
                )
            raise TableRefused(
                FileReason.CHECKSUM_MISMATCH, "the bytes do not have the SHA-256 that was sent with them"
            )
        return found

    def as_csv(
        self,
        run_id: str,
        file: RunFile,
        found: PlainFile,
        kind: SourceKind,
        fmt: TableFormat,
        between: Between = lambda: None,
    ) -> PlainFile:
        """Return the plain CSV of a source that `bring` has brought; a CSV is one already.

        Raises as `bring` does.
        """
        if kind.is_text_table:
            return found
        plain = self._folder(run_id) / f"{file.label}.csv"
        free = self._free_bytes()
        terms = Terms(
            delimiter=fmt.delimiter,
            max_bytes=min(self._max_bytes, free),
            scarce=free < self._max_bytes,
            max_row_bytes=fmt.max_record_bytes,
            max_columns=fmt.max_columns,
        )
        with _open(found.path) as source:
            done = convert(source, kind, plain, terms, between)
        found.assert_unchanged()
        if file.plain_sha256 is not None and file.plain_sha256 != done.sha256:
            raise SourceChanged(
                FileReason.SOURCE_CHANGED,
                f"this version turns the {kind} into another CSV than the one that accepted it: "
                "send it again as a new run",
            )
        return PlainFile(plain, found.sha256, found.bytes, plain_sha256=done.sha256)

    def forget(self, run_id: str) -> None:
        """Remove what was spooled for a run."""
        shutil.rmtree(self._spool / run_id, ignore_errors=True)

    def _folder(self, run_id: str) -> Path:
        folder = self._spool / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _from_topic(self, run_id: str, file: RunFile, between: Between) -> PlainFile:
        assert isinstance(file.source, MessageSource)
        raw = self._folder(run_id) / f"{file.label}.raw"
        digest = hashlib.sha256()
        with raw.open("wb") as target:
            for piece in self._pieces(file.source):
                between()
                self._assert_space(len(piece))
                digest.update(piece)
                target.write(piece)
        return self._plain(run_id, raw, file, digest.hexdigest(), between)

    def _pieces(self, source: MessageSource) -> Iterator[bytes]:
        size = 0
        for offset in source.offsets:
            piece = self._read_message(source.partition, offset)
            if piece is None:
                raise SourceChanged(
                    FileReason.SOURCE_GONE, "the CSV is no longer in the intake topic: send it again"
                )
            size += len(piece)
            if size > self._max_bytes:
                raise TableRefused(FileReason.TOO_LARGE, f"more than {self._max_bytes} bytes; split the file")
            yield piece

    def _plain(self, run_id: str, raw: Path, file: RunFile, sha256: str, between: Between) -> PlainFile:
        size = raw.stat().st_size
        plain = self._folder(run_id) / f"{file.label}.csv"
        if _is_gzip(raw, file):
            with raw.open("rb") as packed:
                self._inflate(_Watched(packed, between), plain)
            raw.unlink()
        else:
            raw.replace(plain)
        return PlainFile(plain, sha256, size)

    def _inflate(self, packed: BinaryIO, plain: Path) -> None:
        # Beside it and renamed: the file of that name may be read while it is made again.
        target = plain.with_name(f"{plain.name}.part")
        inflate(packed, target, max_bytes=min(self._max_bytes, self._free_bytes()))
        target.replace(plain)

    def _from_uri(self, run_id: str, file: RunFile, between: Between) -> PlainFile:
        assert isinstance(file.source, UriSource)
        path = self._allowed_path(file.source.uri)
        with _open(path) as opened:
            size = os.fstat(opened.fileno()).st_size
        if size > self._max_bytes:
            raise TableRefused(
                FileReason.TOO_LARGE, f"{size} bytes, more than {self._max_bytes}; split the file"
            )
        stamp = _stamp(path)
        sha256 = file_digest(path, between)
        if not _is_gzip(path, file):
            found = PlainFile(path, sha256, size, stamp)
            found.assert_unchanged()
            return found
        plain = self._folder(run_id) / f"{file.label}.csv"
        with open_source(path) as packed:
            self._inflate(_Watched(packed, between), plain)
        PlainFile(path, sha256, size, stamp).assert_unchanged()
        return PlainFile(plain, sha256, size)

    def _allowed_path(self, uri: str) -> Path:
        try:
            parts = urlsplit(uri)
        except ValueError:
            raise TableRefused(FileReason.BAD_REFERENCE, "the reference is no URI: use file:///…") from None
        if parts.scheme != "file":
            raise TableRefused(
                FileReason.SCHEME_NOT_ALLOWED,
                f"{parts.scheme or 'no'} scheme in the reference: use file:///…",
            )
        if parts.netloc not in ("", "localhost"):
            raise TableRefused(FileReason.SCHEME_NOT_ALLOWED, "a file:// reference names no host")
        text = unquote(parts.path)
        if "\0" in text:
            raise TableRefused(FileReason.NOT_FOUND, "a path has no NUL")
        # Resolved first: neither `..` nor a link leads out.
        try:
            path = Path(text).resolve()
        except (OSError, RuntimeError, ValueError):  # a ring of links, a name that no file can have
            raise _not_found() from None
        if not path.is_relative_to(self._allowed.resolve()):
            raise TableRefused(
                FileReason.OUTSIDE_DATA_FOLDER,
                "the path is outside the folder that references may name (PRISM_SOURCE_DIR)",
            )
        return path

    def _free_bytes(self) -> int:
        return max(1, shutil.disk_usage(self._spool).free - _RESERVED_FREE_BYTES)

    def _assert_space(self, wanted: int) -> None:
        if wanted > self._free_bytes():
            raise TableRefused(
                FileReason.NO_SPACE, "no disk space left for the file; free some and send it again"
            )


class _Watched(io.FileIO):
    """A file whose reader can be stopped between two blocks."""

    def __init__(self, opened: BinaryIO, between: Between) -> None:
        super().__init__(opened.fileno(), closefd=False)
        self._between = between

    def read(self, size: int | None = -1, /) -> bytes:
        self._between()
        return super().read(size)


def _open(path: Path) -> BinaryIO:
    """Open a referred file; what its path makes impossible for good is a refusal, not a reason to wait."""
    try:
        return open_source(path)
    except OSError as error:
        if error.errno in _FOR_GOOD:
            raise _not_found() from None
        raise


def _is_gzip(path: Path, file: RunFile) -> bool:
    """Return whether a source is packed: its sender says so, or both its name and its first bytes do."""
    if file.source.encoding == "gzip":
        return True
    if not is_packed(source_name(file)):
        return False
    with _open(path) as source:
        return source.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC


def source_name(file: RunFile) -> str:
    """Return the name that says how a source is written: its own, where it has an ending that is known."""
    if not isinstance(file.source, UriSource):
        return file.filename
    name = unquote(file.source.uri).rsplit("/", 1)[-1]
    return name if kind_of(name) or not file.filename else file.filename


def _not_found() -> TableRefused:
    return TableRefused(
        FileReason.NOT_FOUND, "there is no file that could be opened under this path; check it and its rights"
    )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino
