"""A process's own folder for spool and scratch, removed by whoever starts after its death.

Two ingestors may share a data folder, and what one reads the other must not write: a stand-by that takes
over spools the same files again. Each holds a lock on its own folder, and folders are made and removed
under a lock on the one above them; so a folder whose lock can be had is nobody's.
"""

import fcntl
import shutil
from pathlib import Path
from typing import IO

_LOCK = ".lock"


class Workplace:
    """The folder `state`/`name`, held by this process until it ends."""

    def __init__(self, state: Path, name: str) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._folder = state / name
        with (state / _LOCK).open("w") as above:
            fcntl.flock(above, fcntl.LOCK_EX)
            for folder in state.iterdir():
                if folder.is_dir() and not _is_held(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            self._folder.mkdir()
            self._lock: IO[str] = (self._folder / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.spool = self._folder / "spool"
        self.scratch = self._folder / "scratch"
        self.spool.mkdir()
        self.scratch.mkdir()

    def remove(self) -> None:
        """Give the folder up."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def _is_held(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
