"""Unpacking and hashing."""

import errno
import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages.reasons import FileReason
from prism.tables import TableRefused, file_digest, inflate, sources
from tests.unit.tables.files import written

MIB = 1 << 20
CONTENT = b"RowID,Message\n" + b"".join(b"%d,hello %d\n" % (n, n * n) for n in range(20_000))


def refused_as(
    packed: bytes, target: Path, max_bytes: int = 64 * MIB, max_ratio: float = 200.0
) -> FileReason:
    with pytest.raises(TableRefused) as caught:
        inflate(io.BytesIO(packed), target, max_bytes=max_bytes, max_ratio=max_ratio)
    assert not target.exists()
    assert str(caught.value).isprintable()
    return caught.value.reason


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:1000]) + gzip.compress(b"") + gzip.compress(CONTENT[1000:]),
        gzip.compress(CONTENT) + b"\0" * 512,
        b"".join(gzip.compress(CONTENT[n : n + 50]) for n in range(0, len(CONTENT), 50)),
        gzip.compress(CONTENT, compresslevel=0),
    ],
    ids=["one member", "three members", "padded", "many members", "stored"],
)
def test_gzip_is_unpacked(tmp_path: Path, packed: bytes) -> None:
    target = tmp_path / "unpacked"
    inflate(io.BytesIO(packed), target, max_bytes=len(CONTENT))
    assert target.read_bytes() == CONTENT


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), size=st.integers(1, 40))
def test_gzip_is_unpacked_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], size: int
) -> None:
    target = tmp_path_factory.getbasetemp() / "unpacked"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "INPUT_BYTES", size)
        patch.setattr(sources, "OUTPUT_BYTES", size)
        inflate(io.BytesIO(b"".join(map(gzip.compress, parts))), target, max_bytes=MIB)
    assert target.read_bytes() == b"".join(parts)


@pytest.mark.promise(9)
def test_a_bomb_is_refused_long_before_it_fills_the_disk(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(256 * MIB), compresslevel=1)
    assert refused_as(bomb, tmp_path / "a", max_bytes=1 << 40) is FileReason.GZIP_BOMB
    assert refused_as(bomb, tmp_path / "b", max_bytes=10 * MIB, max_ratio=1e9) is FileReason.GZIP_BOMB


def test_a_bomb_is_unpacked_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_bytes = 0

    class Counted(io.BytesIO):
        def write(self, data: bytes, /) -> int:  # type: ignore[override]
            nonlocal written_bytes
            written_bytes += len(data)
            return len(data)

    monkeypatch.setattr(Path, "open", lambda *_: Counted())
    bomb = gzip.compress(bytes(64 * MIB), compresslevel=1)
    with pytest.raises(TableRefused):
        inflate(io.BytesIO(bomb), tmp_path / "target", max_bytes=5 * MIB)
    assert written_bytes <= 5 * MIB


def test_a_bomb_of_many_members_is_counted_together(tmp_path: Path) -> None:
    packed = gzip.compress(bytes(MIB)) * 40
    assert refused_as(packed, tmp_path / "x", max_bytes=30 * MIB, max_ratio=1e9) is FileReason.GZIP_BOMB
    assert refused_as(packed, tmp_path / "x") is FileReason.GZIP_BOMB


def test_a_small_file_may_be_packed_well(tmp_path: Path) -> None:
    inflate(io.BytesIO(gzip.compress(b"a" * MIB)), tmp_path / "x", max_bytes=MIB)
    assert (tmp_path / "x").stat().st_size == MIB


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"", FileReason.EMPTY_FILE),
        (b"RowID,Message\n1,a\n", FileReason.NOT_GZIP),
        (zlib.compress(CONTENT), FileReason.NOT_GZIP),
        (gzip.compress(CONTENT)[:-1], FileReason.NOT_GZIP),
        (gzip.compress(CONTENT)[:100], FileReason.NOT_GZIP),
        (gzip.compress(CONTENT)[:5], FileReason.NOT_GZIP),
        (gzip.compress(CONTENT) + b"junk", FileReason.NOT_GZIP),
        (gzip.compress(CONTENT) + gzip.compress(CONTENT)[:20], FileReason.NOT_GZIP),
        (gzip.compress(CONTENT)[:-8] + b"\0\0\0\0" + gzip.compress(CONTENT)[-4:], FileReason.NOT_GZIP),
        (b"\0" * 100, FileReason.NOT_GZIP),
    ],
    ids=["empty", "csv", "zlib", "cut by 1", "cut", "cut header", "junk", "cut member", "checksum", "zeros"],
)
def test_what_is_not_whole_gzip_is_refused(tmp_path: Path, packed: bytes, reason: FileReason) -> None:
    assert refused_as(packed, tmp_path / "x") is reason


def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources._Inflation, "_write", full)
    assert refused_as(gzip.compress(CONTENT), tmp_path / "x") is FileReason.NO_SPACE


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    assert file_digest(written(tmp_path, CONTENT)) == hashlib.sha256(CONTENT).hexdigest()
