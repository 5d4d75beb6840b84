"""The mergers' stores on this machine: how large they are, and how to make them as small as their content.

A store keeps, of each run ever merged, its account and its plan (some kB): they tell a merger that a record
of that run is no new run, so they stay. The rows go when a run is published; what they leave is free pages,
which the merger itself gives back while it is idle.
"""

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from prism_merger.store import FILE_NAME
from prism_merger.volume import VolumeLock

_FOLDER = re.compile(r"merger-[0-9]+")


@dataclass(frozen=True, slots=True)
class StoreFile:
    """One merger's store: its bytes, those that compaction gives back, the runs it has accounts of."""

    folder: Path
    bytes: int
    free: int
    runs: int

    def compact(self) -> int:
        """Make the file as small as its content; return the bytes that came free, 0 while a merger has it."""
        lock = VolumeLock(self.folder)
        if not lock.take():
            return 0
        path = self.folder / FILE_NAME
        before = _size(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return max(0, before - _size(path))


def stores(data_dir: Path) -> list[StoreFile]:
    """Return the stores of a folder; one that cannot be read is left out."""
    found = []
    for folder in sorted(data_dir.glob("merger-*")):
        path = folder / FILE_NAME
        if (
            _FOLDER.fullmatch(folder.name)
            and not folder.is_symlink()
            and path.is_file()
            and not path.is_symlink()
        ):
            try:
                found.append(_look(folder))
            except sqlite3.Error:
                continue
    return found


def is_held(data_dir: Path) -> bool:
    """Return whether a merger works in the folder."""
    return any(
        not VolumeLock(one.parent).take()
        for one in data_dir.glob("merger-*/lock")
        if _FOLDER.fullmatch(one.parent.name)
    )


def _look(folder: Path) -> StoreFile:
    path = folder / FILE_NAME
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
        pages = database.execute("PRAGMA freelist_count").fetchone()[0]
        page = database.execute("PRAGMA page_size").fetchone()[0]
        runs = database.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    log = path.with_name(f"{FILE_NAME}-wal")
    free = int(pages) * int(page) + (log.stat().st_size if log.is_file() else 0)
    return StoreFile(folder, _size(path), free, int(runs))


def _size(path: Path) -> int:
    every = (path, path.with_name(f"{path.name}-wal"))
    return sum(one.stat().st_size for one in every if one.is_file())
