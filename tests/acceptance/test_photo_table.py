"""A table of photos through `prism up`: each row is answered about its own photo, or says what is wrong."""

import base64
import csv
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from prism.messages import RowReason
from tests.acceptance.conftest import Fleet, end_fleet, rows_of, start_fleet

INPUT = ("RowID", "Message", "Photo", "Note")
COLOURS = {"red": (200, 40, 40), "green": (50, 150, 60), "blue": (50, 80, 190), "yellow": (225, 210, 70)}
SHAPES = {"landscape": (64, 32), "portrait": (32, 64), "square": (48, 48)}
BAD, NONE = RowReason.BAD_PHOTO.value, RowReason.NO_PHOTO.value
JOB = """\
project: {name: photos, version: v1}
model: {batch_size: 4, retries: 3, delay: 0.1}
prompts: {config_file: photos_prompt.json}
"""
PROMPT = {
    "system_prompt": "You look at photos and say what is to be seen.",
    "columns_to_code": ["Colour", "Shape", "Description"],
    "validation_rules": {"valid_colour": list(COLOURS), "valid_shape": list(SHAPES)},
    "strict": True,
    "image_column": "Photo",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A photo's cell, and what must come of it: the colour and the shape that it shows, or a reason."""

    photo: str
    message: str = "What is it?"
    shows: tuple[str, str] | None = None
    reason: str = ""


@pytest.fixture(scope="module")
def photo_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "jobs").mkdir()
    (folder / "jobs" / "photos.yaml").write_text(JOB)
    (folder / "jobs" / "photos_prompt.json").write_text(json.dumps(PROMPT))
    started = start_fleet(folder, "--workers", "1", "--jobs-dir", str(folder / "jobs"))
    try:
        yield started
    finally:
        end_fleet(started)


def photo(colour: str, shape: str, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SHAPES[shape], COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def bomb() -> bytes:
    """Return a PNG that claims 50,000 × 50,000 pixels."""
    size = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(50_000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def good_rows(folder: Path) -> list[Row]:
    put(folder / "red.png", photo("red", "landscape"))
    put(folder / "deep" / "100% größer.JPG", photo("yellow", "portrait", "JPEG"))
    uri = put(folder / "a green one.jpg", photo("green", "square", "JPEG")).as_uri()
    red, blue = ("red", "landscape"), ("blue", "portrait")
    blue_text = text_of(photo(*blue))
    return [
        Row("photos/red.png", shows=red),
        Row("  photos/../photos/red.png ", "With spaces around it", red),
        Row("photos/deep/100% größer.JPG", "Ein Name mit Zeichen", ("yellow", "portrait")),
        Row(str(folder / "red.png"), "Absolute, and in the folder", red),
        Row(uri, shows=("green", "square")),
        Row(blue_text, shows=blue),
        Row("\n".join(blue_text[at : at + 60] for at in range(0, len(blue_text), 60)), "In lines", blue),
        Row(f"data:image/webp;base64,{text_of(photo('red', 'square', 'WEBP'))}", shows=("red", "square")),
        Row("photos/red.png", "", red),
    ]


def bad_rows(folder: Path, outside: Path) -> list[Row]:
    put(outside / "secret.png", photo("green", "square"))
    (folder / "link.png").symlink_to(outside / "secret.png")
    put(folder / "cut.png", photo("blue", "square")[:-30])
    put(folder / "text.jpg", b"no photo at all")
    cells = {
        "photos/cut.png": BAD,
        "photos/text.jpg": BAD,
        "photos/nobody.png": BAD,
        "photos": BAD,
        text_of(b"no photo at all"): BAD,
        text_of(photo("red", "square"))[:-40]: BAD,
        text_of(bomb()): BAD,
        "=HYPERLINK(1)": BAD,
        "": NONE,
        " \t ": NONE,
        "../outside/secret.png": BAD,
        "photos/link.png": BAD,
        str(outside / "secret.png"): BAD,
        (outside / "secret.png").as_uri(): BAD,
        "file:///etc/passwd": BAD,
        "https://example.com/photo.png": BAD,
    }
    return [Row(cell, reason=reason) for cell, reason in cells.items()]


def write_table(path: Path, rows: list[Row]) -> list[dict[str, str]]:
    """Write the rows; return them as they must come back."""
    table = [
        dict(zip(INPUT, (f"p{number}", row.message, row.photo, "=1+1"), strict=True))
        for number, row in enumerate(rows, 1)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, INPUT)
        writer.writeheader()
        writer.writerows(table)
    return table


def outcome(row: dict[str, str]) -> tuple[tuple[str, str] | None, str]:
    shown = (row["Colour"], row["Shape"])
    return (shown if any(shown) else None), row["Error"]


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(8)
@pytest.mark.promise(9)
def test_each_row_is_answered_about_its_own_photo(photo_fleet: Fleet, tmp_path: Path) -> None:
    good = good_rows(photo_fleet.data_dir / "photos")
    bad = bad_rows(photo_fleet.data_dir / "photos", photo_fleet.folder / "outside")
    # Bad ones among good ones: a batch has some of each.
    rows = [row for pair in zip(bad, good, strict=False) for row in pair] + bad[len(good) :]
    table = write_table(tmp_path / "in.csv", rows)
    words = ["--job", "photos", "--run-id", "p", "--label", "all", "--wait"]
    done = photo_fleet.run("submit", tmp_path / "in.csv", *words)
    assert done.returncode == 6, done.stderr
    found = rows_of(photo_fleet.data_dir / "output" / "p_all.csv")
    assert [{name: row[name] for name in INPUT} for row in found] == table
    assert [outcome(row) for row in found] == [(row.shows, row.reason) for row in rows]
    for row, sent in zip(found, rows, strict=True):
        assert (f"mostly {sent.shows[0]}" in row["Description"]) if sent.shows else not row["Description"]
        assert row["Model_Name"] == "prism-embedded"
    manifest = json.loads((photo_fleet.data_dir / "logs" / "p" / "run_manifest.json").read_bytes())
    assert manifest["rows"] == {"in": len(rows), "ok": len(good), "failed": len(bad)}
    assert manifest["failed_by_reason"] == {BAD: len(bad) - 2, NONE: 2}


@pytest.mark.promise(9)
def test_a_table_without_the_photos_column_is_refused(photo_fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("RowID,Message\n1,What is it?\n")
    done = photo_fleet.run("submit", path, "--job", "photos", "--run-id", "q", "--wait")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Photo" in done.stderr
