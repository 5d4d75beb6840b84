"""Sources: what may be read, what is copied, and that what was accepted is what is fed."""

import gzip
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from prism.messages import FileReason, MessageSource, RunFile, UriSource
from prism.tables import TableRefused
from prism_ingestor.sources import PlainFile, SourceChanged, Sources

CSV = b"RowID,Message\n1,hello\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Place:
    """A data folder, a spool, and an intake topic that is a dict."""

    def __init__(self, folder: Path) -> None:
        self.allowed = folder / "data"
        self.allowed.mkdir()
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.topic: dict[tuple[int, int], bytes] = {}
        self.sources = self.limited(1 << 20)

    def limited(self, max_bytes: int) -> Sources:
        return Sources(self.spool, self.allowed, max_bytes, lambda p, o: self.topic.get((p, o)))

    def message(self, *pieces: bytes, encoding: str | None = None) -> RunFile:
        for offset, piece in enumerate(pieces):
            self.topic[0, offset] = piece
        source = MessageSource.model_validate(
            {"partition": 0, "offsets": list(range(len(pieces))), "encoding": encoding}
        )
        return RunFile(label="march", source=source)

    def uri(self, uri: str, encoding: str | None = None) -> RunFile:
        return RunFile(label="march", source=UriSource.model_validate({"uri": uri, "encoding": encoding}))

    def refusal(self, file: RunFile) -> FileReason:
        with pytest.raises(TableRefused) as refused:
            self.sources.bring("r", file)
        return refused.value.reason


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_message_and_chunks_are_spooled(place: Place) -> None:
    found = place.sources.bring("r", place.message(CSV[:5], CSV[5:]))
    assert found.path.read_bytes() == CSV
    assert (found.sha256, found.bytes, found.stamp) == (sha(CSV), len(CSV), None)
    found.assert_unchanged()
    assert place.sources.bring("r", place.message(CSV)).path == found.path
    place.sources.forget("r")
    assert list(place.spool.iterdir()) == []
    place.sources.forget("r")


def test_gzip_is_unpacked_and_named_by_the_bytes_that_came(place: Place) -> None:
    packed = gzip.compress(CSV)
    found = place.sources.bring("r", place.message(packed[:9], packed[9:], encoding="gzip"))
    assert found.path.read_bytes() == CSV
    assert found.sha256 == sha(packed)
    assert [one.name for one in (place.spool / "r").iterdir()] == ["march.csv"]


@pytest.mark.promise(6)
def test_unpacking_again_leaves_an_open_reader_its_file(place: Place) -> None:
    file = place.message(gzip.compress(CSV), encoding="gzip")
    found = place.sources.bring("r", file)
    with found.path.open("rb") as reader:
        place.sources.bring("r", file)
        assert os.fstat(reader.fileno()).st_ino != found.path.stat().st_ino
        assert reader.read() == CSV


@pytest.mark.parametrize(
    ("pieces", "encoding", "reason"),
    [
        ((b"not gzip",), "gzip", FileReason.NOT_GZIP),
        ((gzip.compress(CSV)[:-3],), "gzip", FileReason.NOT_GZIP),
        ((b"",), "gzip", FileReason.EMPTY_FILE),
        ((gzip.compress(bytes(1 << 24)),), "gzip", FileReason.GZIP_BOMB),
        ((bytes(1 << 20), b"x"), None, FileReason.TOO_LARGE),
    ],
)
def test_messages_that_are_refused(
    place: Place, pieces: tuple[bytes, ...], encoding: str | None, reason: FileReason
) -> None:
    assert place.refusal(place.message(*pieces, encoding=encoding)) is reason


def test_a_message_that_is_gone_fails_its_run(place: Place) -> None:
    file = place.message(CSV, b"x")
    del place.topic[0, 1]
    with pytest.raises(SourceChanged) as changed:
        place.sources.bring("r", file)
    assert changed.value.reason is FileReason.SOURCE_GONE


def test_no_room_is_said_before_the_disk_is_full(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prism_ingestor.sources._RESERVED_FREE_BYTES", 1 << 60)
    assert place.refusal(place.message(CSV)) is FileReason.NO_SPACE


def test_a_plain_reference_is_read_where_it_lies(place: Place) -> None:
    path = place.allowed / "ä b.csv"
    path.write_bytes(CSV)
    found = place.sources.bring("r", place.uri(path.as_uri()))
    assert (found.path, found.sha256, found.bytes) == (path, sha(CSV), len(CSV))
    assert not (place.spool / "r").exists()


def test_a_packed_reference_is_spooled(place: Place) -> None:
    path = place.allowed / "a.csv.gz"
    path.write_bytes(gzip.compress(CSV))
    found = place.sources.bring("r", place.uri(path.as_uri(), "gzip"))
    assert found.path.read_bytes() == CSV
    assert found.sha256 == sha(path.read_bytes())


Maker = Callable[[Place], str]


def _link_out(place: Place) -> str:
    (place.allowed / "link").symlink_to(place.spool)
    (place.spool / "secret.csv").write_bytes(CSV)
    return f"file://{place.allowed}/link/secret.csv"


def _ring(place: Place) -> str:
    (place.allowed / "ring").symlink_to(place.allowed / "ring")
    return f"file://{place.allowed}/ring"


def _pipe(place: Place) -> str:
    os.mkfifo(place.allowed / "pipe")
    return f"file://{place.allowed}/pipe"


def _socket(place: Place) -> str:
    here = os.open(".", os.O_RDONLY)
    os.chdir(place.allowed)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.fchdir(here)
    os.close(here)
    return f"file://{place.allowed}/socket"


def _folder(place: Place) -> str:
    (place.allowed / "folder").mkdir()
    return f"file://{place.allowed}/folder"


def _below_a_file(place: Place) -> str:
    (place.allowed / "a.csv").write_bytes(CSV)
    return f"file://{place.allowed}/a.csv/b.csv"


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: "file:///etc/passwd", FileReason.OUTSIDE_DATA_FOLDER),
        (lambda p: f"file://{p.allowed}/../spool/x", FileReason.OUTSIDE_DATA_FOLDER),
        (lambda p: f"file://{p.allowed}/%2e%2e/spool/x", FileReason.OUTSIDE_DATA_FOLDER),
        (lambda p: f"file://{p.allowed}2/x", FileReason.OUTSIDE_DATA_FOLDER),
        (_link_out, FileReason.OUTSIDE_DATA_FOLDER),
        (lambda _: "file:///dev/zero", FileReason.OUTSIDE_DATA_FOLDER),
        (lambda _: "file://", FileReason.OUTSIDE_DATA_FOLDER),
        (lambda p: f"file://{p.allowed}/a%00b", FileReason.NOT_FOUND),
        (lambda p: f"file://{p.allowed}/nope.csv", FileReason.NOT_FOUND),
        (lambda p: f"file://{p.allowed}/{'x' * 300}", FileReason.NOT_FOUND),
        (lambda p: f"file://{p.allowed}/" + "x/" * 2000, FileReason.NOT_FOUND),
        (_below_a_file, FileReason.NOT_FOUND),
        (_ring, FileReason.NOT_FOUND),
        (_pipe, FileReason.NOT_A_FILE),
        (_socket, FileReason.NOT_A_FILE),
        (_folder, FileReason.NOT_A_FILE),
        (lambda p: f"{p.allowed}/a.csv", FileReason.SCHEME_NOT_ALLOWED),
        (lambda _: "http://127.0.0.1/a.csv", FileReason.SCHEME_NOT_ALLOWED),
        (lambda _: "s3://bucket/a.csv", FileReason.SCHEME_NOT_ALLOWED),
        (lambda _: "file://host/a.csv", FileReason.SCHEME_NOT_ALLOWED),
        (lambda _: "file://[::1", FileReason.BAD_REFERENCE),
        (lambda _: "", FileReason.SCHEME_NOT_ALLOWED),
    ],
)
def test_references_that_are_refused(place: Place, make: Maker, reason: FileReason) -> None:
    assert place.refusal(place.uri(make(place))) is reason


def test_a_reference_beyond_the_limit(place: Place) -> None:
    (place.allowed / "a.csv").write_bytes(CSV)
    place.sources = place.limited(len(CSV) - 1)
    assert place.refusal(place.uri(f"file://{place.allowed}/a.csv")) is FileReason.TOO_LARGE


def test_what_was_sent_with_a_checksum_must_have_it(place: Place) -> None:
    file = place.message(CSV).model_copy(update={"sha256": sha(CSV)})
    place.sources.bring("r", file)
    assert place.refusal(file.model_copy(update={"sha256": sha(b"other")})) is FileReason.CHECKSUM_MISMATCH


@pytest.mark.promise(6)
def test_what_was_accepted_must_still_be_there(place: Place) -> None:
    accepted = place.message(CSV).model_copy(update={"sha256": sha(b"other"), "columns": ["Message"]})
    with pytest.raises(SourceChanged) as changed:
        place.sources.bring("r", accepted)
    assert changed.value.reason is FileReason.SOURCE_CHANGED


def test_a_file_that_is_watched(place: Place) -> None:
    path = place.allowed / "a.csv"
    path.write_bytes(CSV)
    found = place.sources.bring("r", place.uri(path.as_uri()))
    found.assert_unchanged()
    path.write_bytes(CSV[::-1])
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceChanged) as changed:
        found.assert_unchanged()
    assert changed.value.reason is FileReason.SOURCE_CHANGED
    path.unlink()
    with pytest.raises(SourceChanged) as gone:
        found.assert_unchanged()
    assert gone.value.reason is FileReason.SOURCE_GONE
    PlainFile(path, "", 0).assert_unchanged()  # a spooled one is nobody else's


class Enough(Exception):
    """What breaks a work off in these tests."""


@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("by_reference", [False, True])
def test_bringing_is_broken_off_between_two_blocks(
    place: Place, encoding: str | None, by_reference: bool
) -> None:
    # What is random is not packed: many blocks, however they are counted.
    content = os.urandom(3_000_000)
    data = gzip.compress(content) if encoding else content
    if by_reference:
        (place.allowed / "t.csv").write_bytes(data)
        file = place.uri((place.allowed / "t.csv").as_uri(), encoding)
    else:
        file = place.message(data[:999_999], data[999_999:], encoding=encoding)
    sources = place.limited(1 << 30)
    asked: list[int] = []
    found = sources.bring("r", file, lambda: asked.append(1))
    assert found.sha256 == sha(data)
    assert len(asked) >= 2

    def enough() -> None:
        asked.pop()
        if not asked:
            raise Enough

    with pytest.raises(Enough):  # at the last block of all, so at each one before it
        sources.bring("r", file, enough)
