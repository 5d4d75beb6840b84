"""Which files are a run's, by their names alone, and how to open one without being led elsewhere.

Argument. A path is a run's only if its folder is one that the run's job names (compared as text: nothing is
resolved) and its name is one that PRISM gives (a list, not a ban), or if the manifest names it as output. So
neither a run id nor a job's folder that happens to name somebody else's folder (the broker's, a store's)
shows what lies there. A file is opened step by step from the root, and no step follows a symbolic link; what
is no plain file is nobody's.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from prism.runs.job import JobRefused, parse_job
from prism_merger.places import Places

MANIFEST = "run_manifest.json"
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: opening a pipe would wait for its writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9 ._-]*"
_ROWS = r"\.(csv|tsv|jsonl|parquet)"
_OUTPUT = re.compile(_NAME + _ROWS)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Kind(StrEnum):
    """What a file of a run is."""

    OUTPUT = "output"
    MANIFEST = "manifest"
    FAILURES = "failures"
    REPORT = "report"
    LOG = "log"
    STATUS = "status"
    PART = "part"


class NotThere(Exception):
    """No such file of the run."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """One file of a run. `path` is relative to the root, with slashes; `sha256` is the manifest's."""

    path: str
    kind: Kind
    bytes: int
    modified: float
    etag: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A plain file that is open for reading; its reader closes `descriptor`."""

    descriptor: int
    file: RunFile


class RunFiles:
    """The files of one run, whose places are known. Keeps nothing: what is asked for is looked up anew."""

    def __init__(self, run_id: str, places: Places) -> None:
        self.run_id = run_id
        self.places = places
        run = re.escape(run_id)
        self._outputs = _text(places.output_dir)
        self._logs = _text(places.logs_dir)
        logs = _below(self._logs, run_id)
        self._rules: list[tuple[str, re.Pattern[str], Kind]] = [
            (logs, re.compile(re.escape(MANIFEST)), Kind.MANIFEST),
            (logs, re.compile(r"run_metadata\.json"), Kind.MANIFEST),
            (logs, re.compile(r"failed_ranges\.json"), Kind.FAILURES),
            (logs, re.compile(r"failed_rows[A-Za-z0-9._-]*" + _ROWS), Kind.FAILURES),
            (logs, re.compile(r"disagreements[A-Za-z0-9._-]*" + _ROWS), Kind.REPORT),
            (
                logs,
                re.compile(rf"(summary|analytics|report)_{run}[A-Za-z0-9._-]*\.(md|csv|html|json)"),
                Kind.REPORT,
            ),
            (logs, re.compile(rf"run_{run}[A-Za-z0-9._-]*\.log"), Kind.LOG),
            (self._logs, re.compile(rf"run_{run}\.log"), Kind.LOG),
            (_below(self._logs, "terminal_logs"), re.compile(rf"run_{run}\.log"), Kind.LOG),
            (
                _below(_text(places.status_dir), run_id),
                re.compile(r"worker_[A-Za-z0-9._-]+\.json"),
                Kind.STATUS,
            ),
            (
                _below(_text(places.checkpoints_dir), run_id),
                re.compile(rf"checkpoint_{run}_[A-Za-z0-9._-]+" + _ROWS),
                Kind.PART,
            ),
        ]

    @property
    def output_folder(self) -> str:
        """The folder of the outputs, relative to the root; other runs' outputs lie there, too."""
        return self._outputs

    @property
    def folders(self) -> list[str]:
        """The folders that are this run's alone, relative to the root."""
        named = (self._logs, _text(self.places.status_dir), _text(self.places.checkpoints_dir))
        return [_below(one, self.run_id) for one in named]

    def manifest(self) -> dict[str, Any]:
        """Return the run's manifest, empty while there is none that can be read."""
        try:
            opened = open_plain(self.places.root, f"{_below(self._logs, self.run_id)}/{MANIFEST}")
        except NotThere:
            return {}
        with os.fdopen(opened[0], "rb") as file:
            text = file.read(_MAX_MANIFEST_BYTES)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) and found.get("run_id") == self.run_id else {}

    def kind_of(self, path: str) -> Kind | None:
        """Return what a file of this run is by its path; None for any other path, and for outputs."""
        folder, _, name = path.rpartition("/")
        for rule_folder, pattern, kind in self._rules:
            if folder == rule_folder and pattern.fullmatch(name):
                return kind
        return None

    def open(self, path: str) -> OpenFile:
        """Open a file of this run. Raise NotThere for any other."""
        kind = self.kind_of(path)
        digests = self._digests() if kind is None else {}
        if kind is None and path not in digests:
            raise NotThere(path)
        descriptor, found = open_plain(self.places.root, path)
        return OpenFile(descriptor, _described(path, kind or Kind.OUTPUT, found, digests.get(path)))

    def listing(self) -> Iterator[RunFile]:
        """Yield the files that are there, outputs first."""
        for path, digest in self._digests().items():
            with suppress(NotThere):
                descriptor, found = open_plain(self.places.root, path)
                os.close(descriptor)
                yield _described(path, Kind.OUTPUT, found, digest)
        for folder in dict.fromkeys(rule_folder for rule_folder, _, _ in self._rules):
            yield from self._in_folder(folder)

    def _in_folder(self, folder: str) -> Iterator[RunFile]:
        for name, found in plain_files(self.places.root, folder):
            path = _below(folder, name)
            kind = self.kind_of(path)
            if kind is not None:
                yield _described(path, kind, found, None)

    def _digests(self) -> dict[str, tuple[str, int]]:
        """Return SHA-256 and bytes of each output that the manifest names, by path."""
        found: dict[str, tuple[str, int]] = {}
        files = self.manifest().get("files")
        for one in files if isinstance(files, list) else ():
            for path, digest, size in _named_outputs(one):
                folder, _, name = path.rpartition("/")
                if folder == self._outputs and _OUTPUT.fullmatch(name):
                    found[path] = (digest, size)
        return found


def places_of(root: Path, job: Mapping[str, Any]) -> Places:
    """Return where the files of a job's runs lie; a job that is not valid any more counts as the default."""
    try:
        return Places(root).of(parse_job(dict(job)))
    except JobRefused:
        return Places(root)


def open_plain(root: Path, path: str) -> tuple[int, os.stat_result]:
    """Open a plain file below the root without following a link. Raise NotThere."""
    *folders, name = path.split("/")
    descriptor = open_folder(root, folders, path)
    try:
        opened = os.open(name, _FILE_FLAGS, dir_fd=descriptor)
    except (OSError, ValueError):
        raise NotThere(path) from None
    finally:
        os.close(descriptor)
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode):
        os.close(opened)
        raise NotThere(path)
    return opened, found


def plain_files(root: Path, folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of the plain files in a folder below the root; none if it is not there."""
    try:
        descriptor = open_folder(root, folder.split("/") if folder else [], folder)
    except NotThere:
        return
    try:
        for name in sorted(os.listdir(descriptor)):
            with suppress(OSError):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield name, found
    finally:
        os.close(descriptor)


def open_folder(root: Path, folders: list[str], path: str) -> int:
    """Open a folder below the root, step by step. Raise NotThere, which says `path`.

    The root itself may be a link: it is the operator's.
    """
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise NotThere(path) from None
    for folder in folders:
        try:
            if folder in ("", ".", ".."):
                raise NotThere(path)
            below = os.open(folder, _FOLDER_FLAGS, dir_fd=descriptor)
        except (OSError, ValueError):
            raise NotThere(path) from None
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _named_outputs(file: Any) -> Iterator[tuple[str, str, int]]:
    """Yield path, SHA-256 and bytes of each output in a manifest's entry of a file."""
    if not isinstance(file, dict):
        return
    others = file.get("outputs")
    entries = [{**file, "path": file.get("merged_output")}, *(others if isinstance(others, list) else ())]
    for one in entries:
        path, digest, size = _mark(one)
        if isinstance(path, str) and isinstance(size, int) and _SHA256.fullmatch(str(digest)):
            yield path, str(digest), size


def _mark(entry: Any) -> tuple[Any, Any, Any]:
    found = entry if isinstance(entry, dict) else {}
    return found.get("path"), found.get("sha256"), found.get("bytes")


def _described(path: str, kind: Kind, found: os.stat_result, digest: tuple[str, int] | None) -> RunFile:
    # A file of another length is not the one that the manifest tells of: its hash is not claimed.
    sha256 = digest[0] if digest is not None and digest[1] == found.st_size else None
    etag = sha256 or f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return RunFile(path, kind, found.st_size, found.st_mtime, etag, sha256)


def _text(folder: str) -> str:
    """Return a job's folder as paths name it, empty for the root itself."""
    return "/".join(PurePosixPath(folder).parts)


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
