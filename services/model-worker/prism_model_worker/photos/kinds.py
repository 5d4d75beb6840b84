"""Which format some bytes are in, told by their first bytes alone; names and declared types are not asked."""

from enum import StrEnum

from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused


class Kind(StrEnum):
    """The formats that are read."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"


_SIGNATURES = (
    (b"\xff\xd8\xff", Kind.JPEG),
    (b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (b"GIF87a", Kind.GIF),
    (b"GIF89a", Kind.GIF),
    (b"II*\0", Kind.TIFF),
    (b"MM\0*", Kind.TIFF),
    (b"II+\0", Kind.TIFF),
    (b"MM\0+", Kind.TIFF),
)
# "BM" begins many a text: the length of the header behind it has to be one that exists.
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_OTHER_IMAGES = (
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
}
_ADVICE = "send JPEG, PNG, WebP, GIF, BMP or TIFF"


def kind_of(data: bytes) -> Kind:
    """Return the format of some bytes. Raises PhotoRefused: `NOT_AN_IMAGE`, `UNSUPPORTED_FORMAT`."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return Kind.WEBP
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return Kind.BMP
    name = _other_image(data)
    if name is not None:
        raise PhotoRefused(PhotoProblem.UNSUPPORTED_FORMAT, f"{name} images are not read; {_ADVICE}")
    what = "the photo is no image" if data else "the photo has no bytes"
    raise PhotoRefused(PhotoProblem.NOT_AN_IMAGE, f"{what}; {_ADVICE}")


def _other_image(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((name for signature, name in _OTHER_IMAGES if data.startswith(signature)), None)
