"""The volume: one owner, whole files, names that are not taken from others."""

import errno
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from prism_merger.volume import NameTaken, VolumeLock, claim, no_space, replace_file, write_temporary


@pytest.mark.promise(6)
def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from prism_merger.volume import VolumeLock;"
        f"lock = VolumeLock(Path({str(tmp_path)!r})); print(lock.take(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        lock = VolumeLock(tmp_path)
        assert not lock.take()
        child.kill()
        child.wait()
        assert lock.take()
        assert lock.take()


@pytest.mark.promise(3)
def test_a_claim_never_replaces(tmp_path: Path) -> None:
    temporary, final = tmp_path / ".t", tmp_path / "final"
    write_temporary(temporary, [b"ours"])
    final.write_text("theirs")
    with pytest.raises(NameTaken):
        claim(temporary, final)
    assert (final.read_text(), temporary.read_bytes()) == ("theirs", b"ours")
    final.unlink()
    claim(temporary, final)
    assert (final.read_bytes(), temporary.exists()) == (b"ours", False)


def test_a_claim_works_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    test_a_claim_never_replaces(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    replace_file(path, [b"old"])

    def chunks() -> "list[bytes]":
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        replace_file(path, (one for one in chunks()))
    assert [one.name for one in tmp_path.iterdir()] == ["manifest.json"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_known_from_other_errors(tmp_path: Path) -> None:
    small = sqlite3.connect(tmp_path / "small.sqlite")
    small.execute("CREATE TABLE t (b BLOB)")
    small.execute("PRAGMA max_page_count=3")
    with pytest.raises(sqlite3.OperationalError) as full:
        small.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert "disk full" in str(no_space(full.value, tmp_path))
    with pytest.raises(sqlite3.OperationalError) as other:
        small.execute("SELECT nothing")
    assert no_space(other.value, tmp_path) is None
    assert "disk full" in str(no_space(OSError(errno.ENOSPC, "x"), tmp_path))
    assert "disk full" in str(no_space(OSError(errno.EDQUOT, "x"), tmp_path))
    assert no_space(OSError(errno.EACCES, "x"), tmp_path) is None
    small.close()
