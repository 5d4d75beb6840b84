"""What is no photo, and what only claims to be one: refused with its reason, by a decoder that lives on."""

import zlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prism_model_worker.photos.kinds import kind_of
from prism_model_worker.photos.photo import Photo, PhotoLimits, PhotoProblem, PhotoRefused
from prism_model_worker.photos.studio import Studio
from tests.unit.worker.photos.samples import (
    bmp_header,
    developed,
    encoded,
    gif_header,
    jpeg_header,
    picture,
    png_header,
    tiff_header,
    webp_header,
)

P = PhotoProblem


def outcome(studio: Studio, data: bytes) -> PhotoProblem | None:
    """The reason of the refusal, None for a photo."""
    try:
        photo = studio.develop(data)
    except PhotoRefused as refused:
        return refused.code
    assert developed(photo).size == (photo.sent.width, photo.sent.height)
    return None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", P.NOT_AN_IMAGE),
        (b"\0", P.NOT_AN_IMAGE),
        (b"\0" * 1000, P.NOT_AN_IMAGE),
        (b"a photo of a pizza", P.NOT_AN_IMAGE),
        (b"BMW is a car, " * 20, P.NOT_AN_IMAGE),
        (b"<!doctype html><html></html>", P.NOT_AN_IMAGE),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', P.NOT_AN_IMAGE),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", P.NOT_AN_IMAGE),
        (b"PK\x03\x04" + b"\0" * 100, P.NOT_AN_IMAGE),
        (b"RIFF\0\0\0\0WAVEfmt ", P.NOT_AN_IMAGE),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2mp41", P.NOT_AN_IMAGE),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", P.UNSUPPORTED_FORMAT),
        (encoded(picture(), "AVIF"), P.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x1cftypavis\0\0\0\0avismsf1", P.UNSUPPORTED_FORMAT),
        (encoded(picture(), "ICO"), P.UNSUPPORTED_FORMAT),
        (encoded(picture(), "JPEG2000"), P.UNSUPPORTED_FORMAT),
        (b"8BPS\0\1" + b"\0" * 100, P.UNSUPPORTED_FORMAT),
        (b"\xff\x0a" + b"\0" * 100, P.UNSUPPORTED_FORMAT),
        (encoded(picture().convert("F"), "TIFF"), P.UNSUPPORTED_FORMAT),
        (encoded(picture().convert("LAB"), "TIFF"), P.UNSUPPORTED_FORMAT),
        # Nothing but the first bytes of each format.
        (b"\xff\xd8\xff", P.DAMAGED),
        (b"\x89PNG\r\n\x1a\n", P.DAMAGED),
        (b"GIF89a", P.DAMAGED),
        (b"RIFF\0\0\0\0WEBP", P.DAMAGED),
        (b"II*\0", P.DAMAGED),
        (b"BM" + bytes(12) + b"\x28\0\0\0", P.TRUNCATED),
        # One format under the first bytes of another.
        (b"\x89PNG\r\n\x1a\n" + encoded(picture(), "JPEG"), P.DAMAGED),
        (b"\xff\xd8\xff" + encoded(picture(), "PNG"), P.DAMAGED),
    ],
    ids=lambda value: str(value[:12]) if isinstance(value, bytes) else value,
)
def test_what_is_no_photo_is_refused(studio: Studio, data: bytes, expected: PhotoProblem) -> None:
    assert outcome(studio, data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png_header(50_000, 50_000), P.TOO_MANY_PIXELS),
        (png_header(7072, 7072), P.TOO_MANY_PIXELS),
        (png_header(50_000_001, 1), P.TOO_MANY_PIXELS),
        (png_header(2**31 - 1, 2**31 - 1), P.TOO_MANY_PIXELS),
        (png_header(7071, 7071), P.TRUNCATED),
        (png_header(0, 0), P.DAMAGED),
        (png_header(50_000, 50_000, zlib.compress(bytes(50_000_000), 9)), P.TOO_MANY_PIXELS),
        (jpeg_header(65_535, 65_535), P.TOO_MANY_PIXELS),
        (webp_header(16_384, 16_384), P.TOO_MANY_PIXELS),
        (webp_header(7_000, 7_000), P.DAMAGED),
        (gif_header(65_535, 65_535), P.TOO_MANY_PIXELS),
        (bmp_header(100_000, 100_000), P.TOO_MANY_PIXELS),
        (tiff_header(100_000, 100_000), P.TOO_MANY_PIXELS),
    ],
)
def test_a_bomb_is_refused_by_its_header(studio: Studio, data: bytes, expected: PhotoProblem) -> None:
    assert outcome(studio, data) == expected


def test_limits_hold_to_the_byte_and_the_pixel() -> None:
    data = encoded(picture((100, 80)), "PNG")
    exact = Studio(PhotoLimits(max_bytes=len(data), max_pixels=8000))
    fewer_bytes = Studio(PhotoLimits(max_bytes=len(data) - 1))
    fewer_pixels = Studio(PhotoLimits(max_pixels=7999))
    found = [outcome(studio, data) for studio in (exact, fewer_bytes, fewer_pixels)]
    assert found == [None, P.TOO_LARGE_BYTES, P.TOO_MANY_PIXELS]
    for studio in (exact, fewer_bytes, fewer_pixels):
        studio.close()


def test_a_photo_that_needs_too_much_memory_is_refused() -> None:
    studio = Studio(PhotoLimits(memory_bytes=150_000_000))
    assert outcome(studio, encoded(Image.new("RGB", (7000, 7000)), "PNG")) == P.TOO_MANY_PIXELS
    assert outcome(studio, encoded(picture(), "PNG")) is None
    studio.close()


def test_a_checksum_is_looked_at(studio: Studio) -> None:
    data = bytearray(encoded(picture(), "PNG"))
    data[len(data) // 2] ^= 1
    assert outcome(studio, bytes(data)) == P.DAMAGED


NOISE = Image.merge("RGB", [Image.effect_noise((120, 90), 90) for _ in range(3)])
FILES: dict[str, bytes] = {
    "jpeg": encoded(NOISE, "JPEG"),
    "progressive": encoded(NOISE, "JPEG", progressive=True),
    "png": encoded(NOISE, "PNG"),
    "webp": encoded(NOISE, "WEBP"),
    "lossless": encoded(NOISE, "WEBP", lossless=True),
    "gif": encoded(NOISE, "GIF"),
    "bmp": encoded(NOISE, "BMP"),
    "tiff": encoded(NOISE, "TIFF"),
    "lzw": encoded(NOISE, "TIFF", compression="tiff_lzw"),
}
# Without the bytes that close them, behind the pixels, these are whole.
CLOSING = {"png": 24, "gif": 2}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_photo_that_is_cut_off_is_refused(studio: Studio, name: str, share: float) -> None:
    data = FILES[name]
    cut = data[: int(share * (len(data) - CLOSING.get(name, 0)))]
    assert outcome(studio, cut) in (P.TRUNCATED, P.DAMAGED, P.NOT_AN_IMAGE)


@pytest.mark.parametrize("name", FILES)
def test_a_photo_that_lacks_its_second_half_is_refused(studio: Studio, name: str) -> None:
    expected = {"webp": P.DAMAGED, "lossless": P.DAMAGED, "lzw": P.DAMAGED}
    data = FILES[name]
    assert outcome(studio, data[: len(data) // 2]) == expected.get(name, P.TRUNCATED)
    assert outcome(studio, data) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(FILES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_flipped_bytes_never_harm_the_decoder(
    studio: Studio, name: str, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(FILES[name])
    for share, mask in flips:
        data[int(share * len(data))] ^= mask
    assert outcome(studio, bytes(data)) not in (P.DECODER_DIED, P.DECODER_TIMEOUT)


SIGNATURES = [data[:4] for data in FILES.values()] + [
    b"GIF89a",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\0\0\0\0WEBPVP8 ",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from([b"", *SIGNATURES]), rest=st.binary(max_size=300))
def test_any_bytes_have_a_typed_outcome(studio: Studio, start: bytes, rest: bytes) -> None:
    assert outcome(studio, start + rest) not in (P.DECODER_DIED, P.DECODER_TIMEOUT)


@given(st.binary(max_size=40))
def test_a_format_is_told_or_refused(data: bytes) -> None:
    with pytest.raises(PhotoRefused) as refused:
        kind_of(b"\0" + data)
    assert refused.value.code in (P.NOT_AN_IMAGE, P.UNSUPPORTED_FORMAT)


def test_a_refusal_says_what_to_send(studio: Studio) -> None:
    cases: list[tuple[Callable[[], Photo], str]] = [
        (lambda: studio.develop(b"\0\0\0\x18ftypheic"), "HEIC images are not read; send JPEG"),
        (lambda: studio.develop(b""), "the photo has no bytes; send JPEG"),
        (lambda: studio.develop(png_header(50_000, 50_000)), "claims more than 50000000 pixels"),
        (lambda: studio.develop(bytes(20_000_001)), "has 20000001 bytes, more than 20000000"),
    ]
    for develop, message in cases:
        with pytest.raises(PhotoRefused, match=message) as refused:
            develop()
        assert "\n" not in refused.value.message
