"""Every format in, one kind of picture out: upright, plain, on white, of the model's size."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from PIL import ExifTags, Image

from prism_model_worker.photos.photo import PhotoFacts, PhotoLimits
from prism_model_worker.photos.studio import Studio
from tests.unit.worker.photos.samples import (
    BLUE,
    GREEN,
    QUARTERS,
    RED,
    SIZE,
    WHITE,
    YELLOW,
    Colour,
    alike,
    developed,
    encoded,
    markers,
    picture,
    profile,
    quarters,
)

GREYS: list[Colour] = [(grey, grey, grey) for grey in (76, 131, 51, 201)]
BLACK = (0, 0, 0)
PLAIN_JPEG = {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}  # JFIF, tables, frame, scan: no metadata


def transparent(mode: str) -> Image.Image:
    """The picture with its right half transparent."""
    image = picture().convert("RGBA")
    image.putalpha(0)
    image.paste(picture().crop((0, 0, SIZE[0] // 2, SIZE[1])), (0, 0))
    return image.convert(mode)


def sixteen_bit() -> Image.Image:
    """Greys of 16 bits; 0x1234 and the like have a low byte that must not matter."""
    image = Image.new("I;16", SIZE)
    for x in range(SIZE[0]):
        for y in range(SIZE[1]):
            grey = GREYS[(x >= SIZE[0] // 2) + 2 * (y >= SIZE[1] // 2)][0]
            image.putpixel((x, y), grey * 256 + 0x34)
    return image


def palette(transparency: int | None = None, **options: Any) -> bytes:
    image = picture().quantize(4, dither=Image.Dither.NONE)
    if transparency is not None:
        middle = (SIZE[0] * (1 + 2 * (transparency % 2)) // 4, SIZE[1] * (1 + 2 * (transparency // 2)) // 4)
        options["transparency"] = image.getpixel(middle)
    return encoded(image, options.pop("kind", "PNG"), **options)


def animation(kind: str) -> bytes:
    rest = [Image.new("RGB", SIZE, "black"), Image.new("RGB", SIZE, "black")]
    return encoded(picture(), kind, save_all=True, append_images=rest)


HALF = [RED, WHITE, BLUE, WHITE]
FORMATS: dict[str, tuple[str, Callable[[], bytes], list[Colour]]] = {
    "jpeg": ("JPEG", lambda: encoded(picture(), "JPEG"), QUARTERS),
    "jpeg progressive": ("JPEG", lambda: encoded(picture(), "JPEG", progressive=True), QUARTERS),
    "jpeg grey": ("JPEG", lambda: encoded(picture().convert("L"), "JPEG"), GREYS),
    "jpeg cmyk": ("JPEG", lambda: encoded(picture().convert("CMYK"), "JPEG"), QUARTERS),
    "jpeg 4:4:4": ("JPEG", lambda: encoded(picture(), "JPEG", subsampling=0, quality=100), QUARTERS),
    "jpeg with others behind it": ("JPEG", lambda: animation("MPO"), QUARTERS),
    "jpeg with a tail": ("JPEG", lambda: encoded(picture(), "JPEG") + b"<html>" * 99, QUARTERS),
    "png": ("PNG", lambda: encoded(picture(), "PNG"), QUARTERS),
    "png alpha": ("PNG", lambda: encoded(transparent("RGBA"), "PNG"), HALF),
    "png grey alpha": ("PNG", lambda: encoded(transparent("LA"), "PNG"), [GREYS[0], WHITE, GREYS[2], WHITE]),
    "png grey": ("PNG", lambda: encoded(picture().convert("L"), "PNG"), GREYS),
    "png 16 bit": ("PNG", lambda: encoded(sixteen_bit(), "PNG"), GREYS),
    "png palette": ("PNG", palette, QUARTERS),
    "png palette alpha": ("PNG", lambda: palette(2), [RED, GREEN, WHITE, YELLOW]),
    "png colour key": (
        "PNG",
        lambda: encoded(picture(), "PNG", transparency=GREEN),
        [RED, WHITE, BLUE, YELLOW],
    ),
    "png 1 bit": ("PNG", lambda: encoded(picture().convert("L").point(lambda v: 255 * (v > 100), "1"), "PNG"),
                  [BLACK, WHITE, BLACK, WHITE]),
    "png animation": ("PNG", lambda: animation("PNG"), QUARTERS),
    "webp": ("WEBP", lambda: encoded(picture(), "WEBP"), QUARTERS),
    "webp lossless": ("WEBP", lambda: encoded(picture(), "WEBP", lossless=True), QUARTERS),
    "webp alpha": ("WEBP", lambda: encoded(transparent("RGBA"), "WEBP"), HALF),
    "webp animation": ("WEBP", lambda: animation("WEBP"), QUARTERS),
    "gif": ("GIF", lambda: palette(kind="GIF"), QUARTERS),
    "gif transparent": ("GIF", lambda: palette(1, kind="GIF"), [RED, WHITE, BLUE, YELLOW]),
    "gif animation": ("GIF", lambda: animation("GIF"), QUARTERS),
    "bmp": ("BMP", lambda: encoded(picture(), "BMP"), QUARTERS),
    "bmp palette": ("BMP", lambda: palette(kind="BMP"), QUARTERS),
    "tiff": ("TIFF", lambda: encoded(picture(), "TIFF"), QUARTERS),
    "tiff of 64 bits": ("TIFF", lambda: encoded(picture(), "TIFF", big_tiff=True), QUARTERS),
    "tiff lzw": ("TIFF", lambda: encoded(picture(), "TIFF", compression="tiff_lzw"), QUARTERS),
    "tiff deflate": ("TIFF", lambda: encoded(picture(), "TIFF", compression="tiff_adobe_deflate"), QUARTERS),
    "tiff jpeg": ("TIFF", lambda: encoded(picture(), "TIFF", compression="jpeg", quality=95), QUARTERS),
    "tiff cmyk": ("TIFF", lambda: encoded(picture().convert("CMYK"), "TIFF"), QUARTERS),
    "tiff alpha": ("TIFF", lambda: encoded(transparent("RGBA"), "TIFF"), HALF),
    "tiff 16 bit": ("TIFF", lambda: encoded(sixteen_bit(), "TIFF"), GREYS),
    "tiff of pages": ("TIFF", lambda: animation("TIFF"), QUARTERS),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_a_plain_jpeg(studio: Studio, name: str) -> None:
    kind, make, colours = FORMATS[name]
    data = make()
    photo = studio.develop(data)
    image = developed(photo)
    assert photo.original == PhotoFacts(kind, *SIZE, len(data))
    assert (photo.sent.format, photo.sent.width, photo.sent.height) == ("JPEG", *SIZE)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZE)
    assert alike(quarters(image), colours), quarters(image)


def turned_away(orientation: int) -> Image.Image:
    """The picture as a camera stores it that was held so."""
    away = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return picture().transpose(away[orientation]) if orientation in away else picture()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(studio: Studio, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = studio.develop(encoded(turned_away(orientation), kind, exif=exif))
    assert alike(quarters(developed(photo)), QUARTERS)
    assert (photo.original.width, photo.original.height) == (photo.sent.width, photo.sent.height) == SIZE


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(studio: Studio, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert alike(quarters(developed(studio.develop(encoded(picture(), "JPEG", exif=exif)))), QUARTERS)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_metadata_is_no_reason_to_refuse(studio: Studio, kind: str, exif: bytes) -> None:
    data = encoded(picture(), kind, exif=exif, icc_profile=b"nonsense" * 20, xmp=b"<x:xmpmeta")
    assert alike(quarters(developed(studio.develop(data))), QUARTERS)


def private(kind: str, icc_profile: bytes | None) -> bytes:
    """A photo that says where it was taken, in every way that its format has."""
    exif = Image.Exif()
    exif[0x010E] = "SECRET description"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 0.0)})
    exif[0x9286] = b"SECRET comment"
    options: dict[str, Any] = {"exif": exif, "icc_profile": icc_profile, "xmp": b"SECRET xmp"}
    if kind == "JPEG":
        options["comment"] = b"SECRET comment"
    return encoded(picture(), kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("icc_profile", [None, profile()], ids=["plain", "profile"])
def test_metadata_is_left_behind(studio: Studio, kind: str, icc_profile: bytes | None) -> None:
    data = private(kind, icc_profile)
    assert b"SECRET" in data
    jpeg = base64.b64decode(studio.develop(data).base64)
    assert set(markers(jpeg)) == PLAIN_JPEG
    assert b"SECRET" not in jpeg


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("RGB", {}, QUARTERS),
        ("RGB", {"icc_profile": profile()}, QUARTERS),
        ("RGB", {"icc_profile": profile(swapped=True)}, [GREEN, RED, BLUE, YELLOW]),
        # Its name says that there is nothing to do.
        ("RGB", {"icc_profile": profile(swapped=True, name="sRGB")}, QUARTERS),
        # A profile of another kind of image is passed over.
        ("CMYK", {"icc_profile": profile(swapped=True)}, QUARTERS),
        ("L", {"icc_profile": profile(swapped=True)}, GREYS),
    ],
)
def test_colours_become_those_of_srgb(
    studio: Studio, mode: str, options: dict[str, Any], expected: list[Colour]
) -> None:
    image = developed(studio.develop(encoded(picture().convert(mode), "JPEG", **options)))
    assert alike(quarters(image), expected, tolerance=60), quarters(image)


def test_colours_under_transparency_are_converted_too(studio: Studio) -> None:
    data = encoded(transparent("RGBA"), "PNG", icc_profile=profile(swapped=True))
    found = quarters(developed(studio.develop(data)))
    assert alike(found, [GREEN, WHITE, BLUE, WHITE], tolerance=60), found


@pytest.mark.parametrize(
    ("size", "longest", "sent"),
    [
        ((400, 300), 400, (400, 300)),
        ((400, 300), 500, (400, 300)),
        ((400, 300), 200, (200, 150)),
        ((300, 400), 100, (75, 100)),
        ((999, 333), 100, (100, 33)),
        ((4000, 3000), 1344, (1344, 1008)),
        # Thin ones get a margin, for a model's server that panics at them.
        ((1, 1), 1344, (32, 32)),
        ((31, 40), 1344, (32, 40)),
        ((1, 100_000), 1344, (32, 1344)),
        ((100_000, 1), 1344, (1344, 32)),
    ],
)
def test_a_photo_is_scaled_down_and_never_up(
    size: tuple[int, int], longest: int, sent: tuple[int, int], studios: Callable[[int], Studio]
) -> None:
    for kind in ("PNG", "JPEG") if max(size) < 65536 else ("PNG",):
        photo = studios(longest).develop(encoded(Image.new("RGB", size, RED), kind))
        assert (photo.original.width, photo.original.height) == size
        assert (photo.sent.width, photo.sent.height) == developed(photo).size == sent


def test_a_margin_is_white_and_the_photo_is_in_the_middle(studio: Studio) -> None:
    image = developed(studio.develop(encoded(Image.new("RGB", (8, 64), BLACK), "PNG")))
    line = [image.getpixel((x, 32)) for x in (2, 15, 29)]
    assert [sum(pixel) > 600 for pixel in line if isinstance(pixel, tuple)] == [True, False, True]


@pytest.mark.parametrize(
    "name", ["jpeg", "png 16 bit", "png palette alpha", "gif", "tiff cmyk", "webp alpha"]
)
def test_a_scaled_photo_keeps_its_colours(name: str, studios: Callable[[int], Studio]) -> None:
    kind, make, colours = FORMATS[name]
    photo = studios(48).develop(make())
    assert (photo.original.format, photo.sent.width, photo.sent.height) == (kind, 48, 32)
    assert alike(quarters(developed(photo)), colours)


@pytest.fixture(scope="module")
def studios(studio: Studio) -> Any:
    made: dict[int, Studio] = {1344: studio}

    def of(longest_side: int) -> Studio:
        if longest_side not in made:
            made[longest_side] = Studio(PhotoLimits(longest_side=longest_side))
        return made[longest_side]

    yield of
    for longest_side, one in made.items():
        if longest_side != 1344:
            one.close()
