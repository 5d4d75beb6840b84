"""Files that are only looked at: written beside the loop, whole, and never waited for."""

import threading
from pathlib import Path

import pytest

from prism_merger import scribe as scribe_module
from prism_merger.scribe import MOST_LINES, Scribe
from prism_merger.volume import replace_file


def test_the_last_content_counts_and_lines_are_added(tmp_path: Path) -> None:
    scribe = Scribe()
    for number in range(100):
        scribe.replace(tmp_path / "a" / "status.json", f"{number}".encode())
        scribe.append(tmp_path / "a" / "run.log", f"line {number}".encode())
    assert scribe.settle()
    assert (tmp_path / "a" / "status.json").read_text() == "99"
    assert (tmp_path / "a" / "run.log").read_text().splitlines() == [f"line {n}" for n in range(100)]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["run.log", "status.json"]
    scribe.close()


def test_a_line_that_a_death_has_torn_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"whole\ntor")
    scribe = Scribe()
    scribe.append(path, b"next")
    scribe.close()
    assert path.read_text().splitlines() == ["whole", "tor", "next"]


def test_a_log_stays_below_its_limit(tmp_path: Path) -> None:
    scribe = Scribe(most_log_bytes=1000)
    for number in range(300):
        scribe.append(tmp_path / "run.log", f"line {number:03}".encode())
        assert scribe.settle()
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == ["run.log", "run.log.1"]
    assert sum(path.stat().st_size for path in found) <= 1020
    assert b"".join(path.read_bytes() for path in reversed(found)).endswith(b"line 298\nline 299\n")
    scribe.close()


@pytest.mark.promise(9)
def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, released = threading.Event(), threading.Event()

    def slow(path: Path, chunks: list[bytes]) -> None:
        hangs.set()
        assert released.wait(30)
        replace_file(path, chunks)

    monkeypatch.setattr(scribe_module, "replace_file", slow)
    scribe = Scribe()
    scribe.replace(tmp_path / "status.json", b"0")
    assert hangs.wait(30)
    for number in range(5 * MOST_LINES):
        scribe.replace(tmp_path / "status.json", f"{number}".encode())
        scribe.append(tmp_path / "run.log", b"line")
    assert not scribe.settle(0.0)
    assert len(scribe._lines[tmp_path / "run.log"]) == MOST_LINES
    released.set()
    assert scribe.settle()
    assert (tmp_path / "status.json").read_text() == f"{5 * MOST_LINES - 1}"
    scribe.close()


@pytest.mark.promise(9)
def test_what_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").write_text("no folder")
    scribe = Scribe()
    for _ in range(5):
        scribe.append(tmp_path / "logs" / "run.log", b"line")
        scribe.replace(tmp_path / "fine.json", b"{}")
        assert scribe.settle()
    assert [one.getMessage() for one in caplog.records] == ["file_skipped"]
    assert (tmp_path / "fine.json").read_text() == "{}"
    (tmp_path / "logs").unlink()
    scribe.append(tmp_path / "logs" / "run.log", b"again")
    assert scribe.settle()
    assert (tmp_path / "logs" / "run.log").read_text() == "again\n"
    (tmp_path / "logs" / "run.log").unlink()
    (tmp_path / "logs" / "run.log").mkdir()
    scribe.append(tmp_path / "logs" / "run.log", b"another trouble")
    scribe.close()
    assert [one.getMessage() for one in caplog.records] == ["file_skipped"] * 2
