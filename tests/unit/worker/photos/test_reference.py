"""Photos by reference: only files, only of one folder, only as they were referred to."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused
from prism_model_worker.photos.reference import PhotoReference, read_reference

P = PhotoProblem
DATA = b"\xff\xd8\xff a photo"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "a b").mkdir(parents=True)
    (folder / "p.jpg").write_bytes(DATA)
    (folder / "a b" / "ü%.jpg").write_bytes(DATA)
    (tmp_path / "outside.jpg").write_bytes(DATA)
    (tmp_path / "photos2").mkdir()
    (tmp_path / "photos2" / "p.jpg").write_bytes(DATA)
    (folder / "inside").symlink_to(folder / "p.jpg")
    (folder / "out").symlink_to(tmp_path / "outside.jpg")
    (folder / "up").symlink_to(tmp_path)
    (folder / "ring").symlink_to(folder / "ring")
    (folder / "dangling").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    return folder


def read(
    uri: str, folder: Path | None, sha256: str | None = None, max_bytes: int = 1000
) -> bytes | PhotoProblem:
    try:
        return read_reference(PhotoReference(uri, sha256), folder, max_bytes)
    except PhotoRefused as refused:
        if folder is not None:
            assert str(folder) not in refused.message  # noqa: PT017
        return refused.code


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file://{folder}/p.jpg", DATA),
        ("file://localhost{folder}/p.jpg", DATA),
        ("FILE:{folder}/p.jpg", DATA),
        ("file://{folder}/a%20b/%C3%BC%25.jpg", DATA),
        ("file://{folder}/../photos/./p.jpg", DATA),
        ("file://{folder}/inside", DATA),
        ("file://{folder}/../outside.jpg", P.OUTSIDE_FOLDER),
        ("file://{folder}/%2e%2e/outside.jpg", P.OUTSIDE_FOLDER),
        ("file://{folder}/out", P.OUTSIDE_FOLDER),
        ("file://{folder}/up/outside.jpg", P.OUTSIDE_FOLDER),
        ("file://{folder}2/p.jpg", P.OUTSIDE_FOLDER),
        ("file:///etc/passwd", P.OUTSIDE_FOLDER),
        ("file:///proc/self/environ", P.OUTSIDE_FOLDER),
        ("file://{folder}", P.NOT_A_FILE),
        ("file://{folder}/a%20b", P.NOT_A_FILE),
        ("file://{folder}/pipe", P.NOT_A_FILE),
        ("file://{folder}/nowhere", P.NOT_FOUND),
        ("file://{folder}/p.jpg/more", P.NOT_FOUND),
        ("file://{folder}/ring", P.NOT_FOUND),
        ("file://{folder}/dangling", P.NOT_FOUND),
        ("file://{folder}/" + "x" * 300, P.NOT_FOUND),
        ("file://{folder}/p.jpg%00", P.BAD_REFERENCE),
        ("file://host{folder}/p.jpg", P.BAD_REFERENCE),
        ("file:p.jpg", P.BAD_REFERENCE),
        ("{folder}/p.jpg", P.BAD_REFERENCE),
        ("http://127.0.0.1/p.jpg", P.BAD_REFERENCE),
        ("s3://bucket/p.jpg", P.BAD_REFERENCE),
        ("http://[", P.BAD_REFERENCE),
        ("", P.BAD_REFERENCE),
    ],
)
def test_where_a_reference_may_lead(folder: Path, uri: str, expected: bytes | PhotoProblem) -> None:
    assert read(uri.format(folder=folder), folder) == expected


def test_a_socket_is_not_a_file(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket is short
        try:
            one.bind("socket")
        finally:
            os.chdir(here)
        assert read(f"file://{folder}/socket", folder) == P.NOT_A_FILE


def test_without_a_folder_no_reference_is_followed(folder: Path) -> None:
    assert read(f"file://{folder}/p.jpg", None) == P.OUTSIDE_FOLDER


def test_a_folder_may_be_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert read(f"file://{tmp_path}/link/p.jpg", tmp_path / "link") == DATA
    assert read(f"file://{folder}/p.jpg", tmp_path / "link") == DATA


@pytest.mark.parametrize(
    ("sha256", "expected"), [(SHA256, DATA), (SHA256.upper(), DATA), ("0" * 64, P.CHANGED), (None, DATA)]
)
def test_the_checksum_is_compared(folder: Path, sha256: str | None, expected: bytes | PhotoProblem) -> None:
    assert read(f"file://{folder}/p.jpg", folder, sha256) == expected


def test_the_limit_holds_to_the_byte(folder: Path) -> None:
    uri = f"file://{folder}/p.jpg"
    assert read(uri, folder, max_bytes=len(DATA)) == DATA
    assert read(uri, folder, max_bytes=len(DATA) - 1) == P.TOO_LARGE_BYTES


def test_a_file_that_claims_no_size_is_read_to_the_limit() -> None:
    assert read("file:///proc/self/status", Path("/proc"), max_bytes=10) == P.TOO_LARGE_BYTES


def test_what_may_work_later_is_no_refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Input/output"):
        read(f"file://{folder}/p.jpg", folder)
