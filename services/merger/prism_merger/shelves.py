"""Where outputs get their names: a folder of this machine, or a store that a URI names.

Argument for a store. What is published there lies complete and hashed on this machine first. An object store
shows an object when all of it has come, so one put is what a rename is in a folder; other stores get it under
a temporary name and rename it. No store that fsspec knows can refuse a name that is taken in the same step,
so the look and the put are two: a name carries its run, and milliseconds lie between. After a death it is
looked at again: an object with the marked bytes is this run's own, whoever put it there.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from prism_merger.accounts import OutputMark, Written
from prism_merger.desk import Errand, Job
from prism_merger.places import Places
from prism_merger.store import RowReader
from prism_merger.volume import NameTaken, claim, sync_folder

_HASH_CHUNK = 1 << 20
_MOST_NAMES = 1000
# An object is there whole or not at all.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "r2", "oci", "oss", "memory"}


class StoreAway(OSError):
    """A store cannot be used now: publication waits, and tries again."""


class SchemeRefused(Exception):
    """A job's `output.directory` is a URI that the operator does not allow."""


class Shelf(Protocol):
    """What publication needs of a place; the methods are for a thread that may wait."""

    def job(self, step: Callable[[], Any]) -> Job:
        """Return a step of this shelf's as a job of the desk."""

    def holds(self, mark: OutputMark) -> bool:
        """Return whether the marked name has the marked bytes."""

    def is_free(self, name: str) -> bool:
        """Return whether nobody has the name."""

    def place(self, temporary: Path, mark: OutputMark) -> None:
        """Give a complete file its marked name. Raise NameTaken if somebody has it."""

    def replace(self, temporary: Path, mark: OutputMark) -> None:
        """Put a complete file in the place of that which the mark replaces. Raise NameTaken for another."""

    def address(self, name: str) -> str:
        """Return the URI under which the mark says that the file is; "" for a folder of ours."""


def shelf_of(places: Places, uri: str | None, allowed: frozenset[str]) -> Shelf:
    """Return where a job's outputs go. Raise SchemeRefused for a URI that is not allowed."""
    if uri is None:
        return FolderShelf(places)
    scheme = uri.split("://", 1)[0]
    if scheme not in allowed:
        raise SchemeRefused(f"output.directory: {scheme}:// is not allowed; add it to PRISM_OUTPUT_SCHEMES")
    return StoreShelf(uri, places.ordinal)


def free_mark(
    shelf: Shelf, stem: str, ending: str, done: Written, refused: tuple[str, ...] = ()
) -> OutputMark:
    """Return the mark with the first name that nobody has, or that has these very bytes.

    `refused` names were taken in the last moment.
    """
    because = ""
    for number in range(1, _MOST_NAMES):
        name = f"{stem}.{ending}" if number == 1 else f"{stem}-{number}.{ending}"
        mark = OutputMark(
            name, done.sha256, done.bytes, done.rows, because, shelf.address(name), failed=done.failed
        )
        if name not in refused and (shelf.is_free(name) or shelf.holds(mark)):
            return mark
        because = f"{stem}.{ending} was there already and is not this run's"
    raise FileExistsError(f"{stem}.{ending} and {_MOST_NAMES} more names are taken: clear the output folder")


def has_bytes(path: Path, mark: OutputMark) -> bool:
    """Return whether a file of this machine has the marked bytes."""
    try:
        if path.stat().st_size != mark.bytes:
            return False
        with path.open("rb") as file:
            return _digest(file) == mark.sha256
    except FileNotFoundError:
        return False


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return _digest(file) == sha256
    except FileNotFoundError:
        return False


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_HASH_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


class FolderShelf:
    """The job's output folder below the merger's root."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def job(self, step: Callable[[], Any]) -> Job:
        def read_nothing(rows: RowReader) -> Any:
            del rows
            return step()

        return read_nothing

    def holds(self, mark: OutputMark) -> bool:
        return has_bytes(self._places.output(mark.name), mark)

    def is_free(self, name: str) -> bool:
        return not self._places.output(name).exists()

    def place(self, temporary: Path, mark: OutputMark) -> None:
        claim(temporary, self._places.output(mark.name))

    def replace(self, temporary: Path, mark: OutputMark) -> None:
        final = self._places.output(mark.name)
        if not _has_digest(final, mark.replaces):
            raise NameTaken(mark.name)
        temporary.replace(final)
        sync_folder(final.parent)

    def address(self, name: str) -> str:
        del name
        return ""


class StoreShelf:
    """A folder of a store. Every method raises StoreAway for whatever goes wrong there."""

    def __init__(self, uri: str, ordinal: int) -> None:
        self._uri = uri
        self._ordinal = ordinal
        self._scheme = uri.split("://", 1)[0]

    def job(self, step: Callable[[], Any]) -> Job:
        return Errand(lambda: self._reached(step))

    def holds(self, mark: OutputMark) -> bool:
        store, folder = self._store()
        path = f"{folder}/{mark.name}"
        if not store.exists(path) or store.info(path)["size"] != mark.bytes:
            return False
        with store.open(path, "rb") as file:
            return _digest(file) == mark.sha256

    def is_free(self, name: str) -> bool:
        store, folder = self._store()
        return not store.exists(f"{folder}/{name}")

    def place(self, temporary: Path, mark: OutputMark) -> None:
        store, folder = self._store()
        path = f"{folder}/{mark.name}"
        if store.exists(path):
            raise NameTaken(mark.name)
        if self._scheme in _ATOMIC:
            store.put_file(str(temporary), path)
        else:
            self._put_and_rename(store, temporary, folder, path)
        store.invalidate_cache()
        found = store.info(path)["size"]
        if found != mark.bytes:
            raise StoreAway(f"{self._uri}/{mark.name} has {found} bytes, {mark.bytes} were put")

    def replace(self, temporary: Path, mark: OutputMark) -> None:
        store, folder = self._store()
        path = f"{folder}/{mark.name}"
        if not store.exists(path):
            raise NameTaken(mark.name)  # taken away: it may be kept elsewhere under this name
        with store.open(path, "rb") as file:
            if _digest(file) != mark.replaces:
                raise NameTaken(mark.name)
        if self._scheme in _ATOMIC:
            store.put_file(str(temporary), path)
        else:
            self._put_over(store, temporary, folder, path)
        store.invalidate_cache()

    def address(self, name: str) -> str:
        return f"{self._uri}/{name}"

    def _put_and_rename(self, store: Any, temporary: Path, folder: str, path: str) -> None:
        store.makedirs(folder, exist_ok=True)
        beside = f"{folder}/{temporary.name}"
        store.put_file(str(temporary), beside)
        if self._scheme in ("file", "local"):
            _sync(Path(beside))
            try:
                claim(Path(beside), Path(path))
            except NameTaken:
                Path(beside).unlink()
                raise
            sync_folder(Path(folder))
            return
        if store.exists(path):
            raise NameTaken(path.rsplit("/", 1)[-1])
        store.mv(beside, path)

    def _put_over(self, store: Any, temporary: Path, folder: str, path: str) -> None:
        """Replace a file by a rename: half of what is put must never stand under a published name."""
        beside = f"{folder}/{temporary.name}"
        store.put_file(str(temporary), beside)
        if self._scheme in ("file", "local"):
            _sync(Path(beside))
            Path(beside).replace(path)
            sync_folder(Path(folder))
        else:
            store.mv(beside, path)

    def _store(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        store, folder = url_to_fs(self._uri)
        store.invalidate_cache()
        return store, folder.rstrip("/")

    def _reached(self, step: Callable[[], Any]) -> Any:
        """Do a step; whatever a store's driver raises, its operator must see to it, and then it goes on."""
        try:
            return step()
        except (NameTaken, StoreAway, FileExistsError):
            raise
        except ImportError as error:
            raise StoreAway(f"{self._uri}: {error}; install it beside the merger") from None
        except Exception as error:
            what = " ".join(str(error).split())[:300] or type(error).__name__
            raise StoreAway(f"{self._uri} cannot be written: {what}") from error


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
