"""Photos made for the tests: four coloured quarters, so that one sees which way up they are."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms

from prism_model_worker.photos.photo import Photo

Colour = tuple[int, int, int]
RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 220, 40)
WHITE = (255, 255, 255)
# Top left, top right, bottom left, bottom right.
QUARTERS = [RED, GREEN, BLUE, YELLOW]
SIZE = (96, 64)


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    """The four quarters."""
    width, height = size
    image = Image.new("RGB", size)
    for number, colour in enumerate(QUARTERS):
        corner = (number % 2 * (width // 2), number // 2 * (height // 2))
        image.paste(colour, (*corner, corner[0] + (width + 1) // 2, corner[1] + (height + 1) // 2))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def developed(photo: Photo) -> Image.Image:
    """The image that a model would see."""
    image = Image.open(io.BytesIO(base64.b64decode(photo.base64)))
    image.load()
    return image


def quarters(image: Image.Image) -> list[Colour]:
    """The colour in the middle of each quarter."""
    image = image.convert("RGB")
    width, height = image.size
    found = []
    for down in (1, 3):
        for right in (1, 3):
            pixel = image.getpixel((width * right // 4, height * down // 4))
            assert isinstance(pixel, tuple)
            found.append((int(pixel[0]), int(pixel[1]), int(pixel[2])))
    return found


def alike(found: list[Colour], expected: list[Colour], tolerance: int = 30) -> bool:
    """Whether the colours are the same but for compression."""
    return all(
        abs(a - b) <= tolerance
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def markers(jpeg: bytes) -> list[int]:
    """The segments of a JPEG file up to its first scan, by the second byte of their markers."""
    found, position = [], 2
    while True:
        marker, length = struct.unpack(">xBH", jpeg[position : position + 4])
        found.append(marker)
        if marker == 0xDA:
            return found
        position += 2 + length


def profile(swapped: bool = False, name: str = "xRGB") -> bytes:
    """An RGB profile; `swapped` takes red for green and green for red."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace("sRGB".encode("utf-16-be"), name.encode("utf-16-be"))
    if swapped:
        data = data.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return data


def png_header(width: int, height: int, rest: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rest or zlib.compress(bytes(1000)))


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG that claims a size."""
    sound = encoded(picture(), "JPEG")
    position = sound.index(b"\xff\xc0") + 5
    return sound[:position] + struct.pack(">HH", height, width) + sound[position + 4 :]


def webp_header(width: int, height: int) -> bytes:
    """A WebP with an extended header that claims a size."""
    sound = encoded(picture().convert("RGBA"), "WEBP", icc_profile=profile())
    assert sound[12:16] == b"VP8X"
    return sound[:24] + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + sound[30:]


def gif_header(width: int, height: int) -> bytes:
    """A GIF that claims a size."""
    sound = encoded(picture(), "GIF")
    return sound[:6] + struct.pack("<HH", width, height) + sound[10:]


def bmp_header(width: int, height: int) -> bytes:
    """A BMP that claims a size."""
    sound = encoded(picture(), "BMP")
    return sound[:18] + struct.pack("<ii", width, height) + sound[26:]


def tiff_header(width: int, height: int) -> bytes:
    """A TIFF that claims a size."""
    return (
        encoded(picture(), "TIFF", tiffinfo={})
        .replace(struct.pack("<HHII", 256, 4, 1, SIZE[0]), struct.pack("<HHII", 256, 4, 1, width))
        .replace(struct.pack("<HHII", 257, 4, 1, SIZE[1]), struct.pack("<HHII", 257, 4, 1, height))
    )
