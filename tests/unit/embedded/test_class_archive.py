"""The archive of Kafka's classes: whole or not there, one maker at a time, no more than a few of them."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prism_embedded.class_archive import ClassArchive
from prism_embedded.errors import EmbeddedError
from prism_embedded.kafka_jars import cache_folder

JAVA = """#!/bin/sh
for one in "$@"; do case "$one" in
  -XX:SharedArchiveFile=*) target="${one#*=}" ;;
  -XX:SharedClassListFile=*) cat "${one#*=}" > "$0.read" ;;
esac; done
echo archive > "$target"
exit ${STATUS:-0}
"""


class Place:
    """A Java that writes what it is told, jars, a broker's list of classes, a cache."""

    def __init__(self, folder: Path) -> None:
        self.java = folder / "runtime" / "bin" / "java"
        self.java.parent.mkdir(parents=True)
        self.java.write_text(JAVA)
        self.java.chmod(0o755)
        self.jars = [folder / "a.jar", folder / "b.jar"]
        for jar in self.jars:
            jar.write_text("jar")
        self.listing = folder / "classes.lst"
        self.listing.write_text("java/lang/Object id: 0\nkafka/Kafka id: 1\nkafka/ser")
        self.cache = folder / "prism" / "kafka" / "classes"

    def archive(self) -> ClassArchive:
        return ClassArchive(self.java, self.jars, ["-XX:+UseSerialGC"])

    def make(self, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run the maker as a broker does, but wait for it."""
        command = [sys.executable, "-m", "prism_embedded.class_archive", str(self.archive().path)]
        arguments = [str(self.listing), str(self.java), "a.jar"]
        environ = {**os.environ, **environ}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, env=environ)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Place(tmp_path)


def test_without_an_archive_classes_are_listed_and_with_one_it_is_used(place: Place) -> None:
    assert place.archive().flags(place.listing) == [f"-XX:DumpLoadedClassList={place.listing}"]
    assert place.archive().flags() == [], "a format is too short to tell what a broker loads"
    assert place.make().returncode == 0
    assert place.archive().flags()[0] == f"-XX:SharedArchiveFile={place.archive().path}"
    assert not place.listing.exists()
    assert [one.name for one in place.cache.iterdir() if one.suffix != ".jsa"] == [".lock"]


def test_half_a_line_of_a_jvm_that_is_still_at_it_is_left_out(place: Place) -> None:
    place.make()
    assert Path(f"{place.java}.read").read_text() == "java/lang/Object id: 0\nkafka/Kafka id: 1\n"


def test_what_fails_leaves_no_archive_and_says_why(place: Place) -> None:
    done = place.make(STATUS="1")
    assert done.returncode == 1
    assert done.stderr.startswith("no archive of classes, starts take longer: ")
    assert [one.name for one in place.cache.iterdir()] == [".lock"]
    assert place.listing.exists()


def test_a_maker_that_cannot_be_started_ends_no_broker(place: Place) -> None:
    archive = place.archive()
    archive.make(place.listing, place.listing / "no folder")
    archive.leave()
    assert not archive.path.exists()


def test_one_maker_at_a_time(place: Place) -> None:
    place.cache.mkdir(parents=True)
    with (place.cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert place.make().returncode == 0
        assert not place.archive().path.exists()
    place.make()
    assert place.archive().path.exists()


def test_it_is_of_one_java_and_its_jars(place: Place) -> None:
    before = place.archive().path
    assert place.archive().path == before
    place.jars[0].write_text("another jar")
    changed = place.archive().path
    modules = place.java.parent.parent / "lib" / "modules"
    modules.parent.mkdir()
    modules.write_text("another runtime")
    assert len({before, changed, place.archive().path}) == 3


def test_old_ones_and_halves_are_removed(place: Place) -> None:
    half = place.cache / ".making-x"
    half.mkdir(parents=True)
    (half / "made").write_text("half")
    for age in range(5):
        old = place.cache / f"{age}.jsa"
        old.write_text("old")
        os.utime(old, (1000 - age, 1000 - age))
    place.make()
    assert {one.name for one in place.cache.iterdir()} == {
        ".lock",
        place.archive().path.name,
        "0.jsa",
        "1.jsa",
    }


def test_who_has_no_home_goes_without(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(EmbeddedError, match="set XDG_CACHE_HOME"):
        cache_folder()
    assert place.archive().flags() == []
    assert place.make().returncode == 1, "said, and no more"
