"""`fleet.json` and the lock of a data folder: one fleet per folder, found from another terminal.

The lock tells whether a fleet lives, not the file: the kernel frees it however the fleet dies, and a
process id can be another program's by then.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from prism_cli.exits import BAD_INPUT, CommandFailed

FILE = "fleet.json"
LOCK = "fleet.lock"
# Whoever looks whether the lock is held holds it for a moment himself.
_TRIES = 10
_PAUSE_S = 0.05


class Service(BaseModel):
    """One process of a fleet."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    id: str
    pid: int
    url: str


class FleetFile(BaseModel):
    """What a running fleet says of itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bootstrap: str
    embedded_broker: bool
    topic_prefix: str
    model_server: str
    model: str
    data_dir: Path
    jobs_dir: Path
    source_dir: Path
    output_root: Path | None = None
    pid: int
    services: list[Service] = []
    # What the merger asks for before it shows files: made at each start.
    files_token: SecretStr = SecretStr("")

    def as_json(self) -> dict[str, Any]:
        """Return what `prism up --json` prints; `fleet.json` holds the token besides."""
        return self.model_dump(mode="json", exclude={"files_token"})

    def write(self) -> None:
        """Replace the folder's file, which only its owner may read, by one rename."""
        path = self.data_dir / FILE
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        secret = {"files_token": self.files_token.get_secret_value()}
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({**self.as_json(), **secret}, file, indent=1)
        draft.replace(path)


def read(data_dir: Path) -> FleetFile | None:
    """Return what the folder's file says, be the fleet alive or not; None without a usable file."""
    try:
        return FleetFile.model_validate_json((data_dir / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def remove(data_dir: Path) -> None:
    """Take the file away."""
    with suppress(OSError):
        (data_dir / FILE).unlink()


def alive(data_dir: Path) -> bool:
    """Return whether a fleet runs on this folder."""
    try:
        descriptor = os.open(data_dir / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def owned(data_dir: Path) -> Iterator[None]:
    """Own the folder; raise CommandFailed when another fleet does, or it cannot be written."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CommandFailed(
            BAD_INPUT, f"cannot write: {error.strerror}", str(data_dir), "choose another --data-dir"
        ) from None
    try:
        if not _lock(descriptor):
            raise CommandFailed(
                BAD_INPUT,
                "a fleet runs here already",
                _holder(data_dir),
                "stop it, or choose another --data-dir",
            )
        # What a fleet that was killed has left names processes that are others' by now.
        remove(data_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(_PAUSE_S)
    return False


def _holder(data_dir: Path) -> str:
    known = read(data_dir)
    return f"{data_dir}, process {known.pid}" if known else str(data_dir)
