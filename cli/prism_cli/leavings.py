"""What ended runs left on this machine, and its removal.

Argument. Gathering and removing go by PRISM's own names below the fleet's folder (`prism_merger.run_files`),
step by step from its root without following a link. What is to go is remembered by device and inode: what
has taken the place of a file since it was shown to a person stays. An output goes only if its bytes are the
manifest's. A manifest goes last: whoever dies in between can be run again.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prism.runs.naming import is_run_id
from prism_cli.local_runs import LocalRun
from prism_merger.run_files import Kind, NotThere, RunFiles, open_folder, plain_files

_KINDS = {
    Kind.OUTPUT: "outputs",
    Kind.PART: "parts",
    Kind.MANIFEST: "logs",
    Kind.FAILURES: "logs",
    Kind.REPORT: "logs",
    Kind.LOG: "logs",
    Kind.STATUS: "logs",
}
_SPOOLED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(raw|csv|jsonl|parquet)(\.part)?")
_WORKPLACE = re.compile(r"[A-Za-z0-9._-]+")
_SERVICE_LOG = re.compile(r"(broker|model-server|ingestor|merger|worker-[0-9]+)\.log(\.1)?")

# A report, or a manifest that is written anew, may be on its way even of an ended run.
_ABANDONED_S = 3600.0

Digest = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Leaving:
    """One file that may go. `path` is relative to `root`; `run_id` is empty for a service's log."""

    root: Path
    path: str
    what: str
    run_id: str
    bytes: int
    identity: tuple[int, int]
    is_manifest: bool = False


def of_run(run: LocalRun, what: Collection[str], digest: Digest) -> Iterator[Leaving]:
    """Yield what a run left, temporary files of it included."""
    files = run.files
    for one in files.listing():
        if _KINDS[one.kind] in what:
            found = _leaving(files, one.path, _KINDS[one.kind], one.kind is Kind.MANIFEST)
            unchanged = one.kind is not Kind.OUTPUT or (
                one.sha256 is not None and digest(files.places.root / one.path) == one.sha256
            )
            if found is not None and unchanged:
                yield found
    if "parts" in what:
        yield from _temporaries(files)


def _temporaries(files: RunFiles) -> Iterator[Leaving]:
    """Yield what a merger that died had under a temporary name."""
    run = re.escape(files.run_id)
    output = re.compile(rf"\.{run}\.[A-Za-z0-9._-]+\.[0-9]+(\.[a-z]+)?\.tmp")
    places = [(files.output_folder, output)]
    for folder in files.folders:
        places.append((folder, re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._-]*\.tmp")))
    for folder, names in places:
        for name, found in plain_files(files.places.root, folder):
            if names.fullmatch(name) and time.time() - found.st_mtime > _ABANDONED_S:
                yield _of_status(files.places.root, _joined(folder, name), "parts", files.run_id, found)


def spooled(data_dir: Path) -> Iterator[Leaving]:
    """Yield the sources that ingestors have copied, of whatever run."""
    base = data_dir / "ingestor"
    for workplace in _folders(base):
        if not _WORKPLACE.fullmatch(workplace):
            continue
        for run_id in _folders(base / workplace / "spool"):
            folder = f"ingestor/{workplace}/spool/{run_id}"
            for name, found in plain_files(data_dir, folder) if is_run_id(run_id) else ():
                if _SPOOLED.fullmatch(name):
                    yield _of_status(data_dir, f"{folder}/{name}", "sources", run_id, found)


def service_logs(data_dir: Path, running: bool, before: float) -> Iterator[Leaving]:
    """Yield the services' logs untouched since `before`; of a running fleet those that were set aside."""
    for name, found in plain_files(data_dir, "logs/services"):
        old = name.endswith(".1") or not running
        if _SERVICE_LOG.fullmatch(name) and old and found.st_mtime < before:
            yield _of_status(data_dir, f"logs/services/{name}", "logs", "", found)


def ended_at(run: LocalRun) -> float:
    """Return when a run ended (seconds since 1970) by its manifest, or by that file's own time."""
    for name in ("finished_at", "created_at"):
        with suppress(TypeError, ValueError):
            told = datetime.fromisoformat(str(run.manifest[name]) if run.manifest.get(name) else "")
            return told.replace(tzinfo=told.tzinfo or UTC).timestamp()
    manifests = [one.modified for one in run.files.listing() if one.kind is Kind.MANIFEST]
    return max(manifests, default=datetime.now(UTC).timestamp())


def remove(leavings: Iterable[Leaving]) -> tuple[int, int]:
    """Remove files, and folders that are empty then; return how many files and bytes went. Raises OSError."""
    files = size = 0
    ordered = sorted(leavings, key=lambda one: one.is_manifest)
    for one in ordered:
        if _remove(one):
            files, size = files + 1, size + one.bytes
    for root, folder in {(one.root, one.path.rpartition("/")[0]) for one in ordered if one.run_id}:
        above, _, name = folder.rpartition("/")
        if is_run_id(name):
            _remove_empty(root, above, name)
    return files, size


def _remove(one: Leaving) -> bool:
    folder, _, name = one.path.rpartition("/")
    try:
        descriptor = open_folder(one.root, folder.split("/") if folder else [], folder)
    except NotThere:
        return False
    try:
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != one.identity:
            return False
        os.unlink(name, dir_fd=descriptor)
    except FileNotFoundError:
        return False
    finally:
        os.close(descriptor)
    return True


def _remove_empty(root: Path, above: str, name: str) -> None:
    with suppress(NotThere, OSError):  # not empty, or gone
        descriptor = open_folder(root, above.split("/") if above else [], above)
        try:
            os.rmdir(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def _leaving(files: RunFiles, path: str, what: str, is_manifest: bool) -> Leaving | None:
    try:
        opened = files.open(path)
    except NotThere:
        return None
    found = os.fstat(opened.descriptor)
    os.close(opened.descriptor)
    return _of_status(files.places.root, path, what, files.run_id, found, is_manifest)


def _of_status(
    root: Path, path: str, what: str, run_id: str, found: os.stat_result, is_manifest: bool = False
) -> Leaving:
    return Leaving(root, path, what, run_id, found.st_size, (found.st_dev, found.st_ino), is_manifest)


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in os.scandir(folder) if one.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
