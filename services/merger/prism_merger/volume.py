"""The volume: one owner at a time, files that appear whole, and what to do when it is full.

Argument. The lock is the kernel's (`flock`): it goes with the process that holds it, however that dies,
and a stopped process keeps it, so a second copy never writes beside a first that may wake up. A file gets
its name only after its content is on disk, and the folder is synchronised after the name: whoever sees
the name after a crash sees the whole file. `claim` gives a name by `link`, which the kernel refuses when
the name is taken: no file of somebody else is ever replaced, not even in a race.
"""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
# For some of its files, and for quotas, SQLite says "I/O error" when the volume takes no more.
_SQLITE_NO_SPACE = {
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
}
_NEARLY_FULL_BYTES = 1 << 20


class NameTaken(Exception):
    """A file of somebody else has the name."""


class VolumeLock:
    """The one merger of a volume folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def take(self) -> bool:
        """Take the lock if nobody holds it; return whether this process holds it now."""
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True


def no_space(error: BaseException, folder: Path) -> str | None:
    """Return why the volume takes no more, when that is why `error` came, else None."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        full = code & 0xFF == sqlite3.SQLITE_FULL or code in _SQLITE_NO_SPACE
        full = full or (code & 0xFF == sqlite3.SQLITE_CANTOPEN and _nearly_full(folder))
    else:
        full = isinstance(error, OSError) and error.errno in _FULL_ERRNOS
    if not full:
        return None
    return f"disk full: {folder} takes no more ({error}); free some space, nothing is lost meanwhile"


def _nearly_full(folder: Path) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _NEARLY_FULL_BYTES or found.f_favail == 0 < found.f_files


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_temporary(path: Path, chunks: Iterable[bytes], each: Callable[[bytes], object] = len) -> int:
    """Write a file whole and synchronise it; return its bytes. A failure leaves no file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        with path.open("wb", buffering=1 << 18) as file:
            for chunk in chunks:
                file.write(chunk)
                each(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return size


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write this product's own file anew: it is the old one or the new one, whole, at any time."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_temporary(temporary, chunks)
    temporary.replace(path)
    sync_folder(path.parent)


def claim(temporary: Path, final: Path) -> None:
    """Give a complete file its final name. Raise NameTaken if somebody has it."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise NameTaken(final.name) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: the check and the rename are two steps there.
        if final.exists():
            raise NameTaken(final.name) from None
        temporary.replace(final)
    temporary.unlink(missing_ok=True)
    sync_folder(final.parent)
