"""Photos that came as text."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused
from prism_model_worker.photos.photo_text import decode_photo_text

DATA = bytes(range(256)) + b"\xfb\xff\xfe?"  # every digit of both alphabets
PLAIN = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()
MAX = 10_000


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        URL_SAFE,
        PLAIN.rstrip("="),
        URL_SAFE.rstrip("="),
        f"  {PLAIN}\n",
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n\t"),
        f"data:image/jpeg;base64,{PLAIN}",
        f" DATA:image/svg+xml;charset=utf-8;BASE64,{URL_SAFE.rstrip('=')}",
        f"data:;base64,{PLAIN}",
        f"data:image/png;base64 , {PLAIN}",
    ],
)
def test_what_stands_for_the_bytes(text: str) -> None:
    assert decode_photo_text(text, MAX) == DATA


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("data:;base64,", "is empty"),
        ("=", "too many `=`"),
        ("QUJD===", "too many `=`"),
        ("Q", "is cut off or holds other characters"),
        ("QUJDR", "is cut off or holds other characters"),
        ("QU=JD", "is cut off or holds other characters"),
        ("QUJD!", "is cut off or holds other characters"),
        ("QUJDé", "is cut off or holds other characters"),
        ("QUJD\0", "is cut off or holds other characters"),
        ("a-b+", "mixes two alphabets"),
        ("a_b/", "mixes two alphabets"),
        ("data:image/jpeg," + PLAIN, "without `;base64,`"),
        ("data:image/jpeg;base64" + PLAIN, "without `;base64,`"),
        ("data:" + "x" * 1000 + ";base64," + PLAIN, "without `;base64,`"),
        ("http://example.org/photo.jpg", "holds other characters"),
        ("data:image/jpeg;base64,QUJD%3D", "holds other characters"),
    ],
)
def test_what_stands_for_nothing(text: str, message: str) -> None:
    with pytest.raises(PhotoRefused, match=message) as refused:
        decode_photo_text(text, MAX)
    assert refused.value.code == PhotoProblem.BAD_BASE64


@pytest.mark.parametrize("size", [1, 2, 3, 4, 998, 999, 1000])
def test_the_limit_holds_to_the_byte(size: int) -> None:
    text = base64.b64encode(bytes(size)).decode()
    assert len(decode_photo_text(text, size)) == size
    with pytest.raises(PhotoRefused, match=f"has {size} bytes, more than {size - 1}"):
        decode_photo_text(text, size - 1)


def test_the_limit_comes_before_the_decoding() -> None:
    with pytest.raises(PhotoRefused) as refused:
        decode_photo_text("!" * 20_000, MAX)
    assert refused.value.code == PhotoProblem.TOO_LARGE_BYTES


@given(st.binary(min_size=1, max_size=200), st.booleans(), st.booleans())
def test_any_bytes_come_back(data: bytes, url_safe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    assert decode_photo_text(text if padded else text.rstrip("="), MAX) == data


@given(st.text(max_size=60))
def test_any_text_has_a_typed_outcome(text: str) -> None:
    try:
        data = decode_photo_text(text, MAX)
    except PhotoRefused as refused:
        assert refused.code == PhotoProblem.BAD_BASE64  # noqa: PT017 (either outcome is right)
    else:
        assert data
