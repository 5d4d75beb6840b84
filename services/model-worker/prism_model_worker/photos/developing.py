"""Decoding and what follows: upright, scaled, on white, sRGB, without metadata, as JPEG. Runs in a child.

JPEG is what comes out, whatever went in: a model sees neither transparency nor a palette, and a PNG of a
photo is ten times as long and slow. Each step is done where it costs least: JPEG is scaled down while it
is decoded, everything else as early as its mode allows, turning and colours come last.
"""

import io
from collections.abc import Callable

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from prism_model_worker.photos.kinds import Kind
from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused
from prism_model_worker.photos.wire import Developed

# Ollama's process for a model panics at an image with a shorter side (28 qwen2.5vl, 32 qwen3vl).
SHORTEST_SIDE = 32
JPEG_QUALITY = 90

# Asked directly: `Image.open` would import every plugin there is once one of these refuses.
_READERS: dict[Kind, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    Kind.JPEG: JpegImagePlugin.JpegImageFile,
    Kind.PNG: PngImagePlugin.PngImageFile,
    Kind.WEBP: WebPImagePlugin.WebPImageFile,
    Kind.GIF: GifImagePlugin.GifImageFile,
    Kind.BMP: BmpImagePlugin.BmpImageFile,
    Kind.TIFF: TiffImagePlugin.TiffImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_ORIENTATION_TAG = 0x0112
# Modes whose pixels can be averaged with their neighbours, and that have a way to RGB.
_SCALABLE = frozenset({"L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "I"})
_HIGH_BYTE = [value >> 8 for value in range(65536)]
_SRGB = ImageCms.createProfile("sRGB")


def warm_up() -> None:
    """Develop a pixel of each format: what Pillow imports late is there before files are barred."""
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = 6
    profile = ImageCms.ImageCmsProfile(_SRGB).tobytes()
    for kind in Kind:
        sample = io.BytesIO()
        Image.new("RGB", (1, 1)).save(sample, kind, exif=exif, icc_profile=profile)
        develop(kind, sample.getvalue(), max_pixels=1, longest_side=1)


def develop(kind: Kind, data: bytes, max_pixels: int, longest_side: int) -> Developed:
    """Return the photo for the model. Raises PhotoRefused, whatever the bytes are."""
    # Pillow refuses what claims more than twice this, in some formats before it allocates.
    Image.MAX_IMAGE_PIXELS = max(1, max_pixels // 2)
    try:
        return _develop(_READERS[kind](io.BytesIO(data)), max_pixels, longest_side)
    except PhotoRefused:
        raise
    except Image.DecompressionBombError:
        raise _too_many(max_pixels) from None
    except MemoryError:
        raise PhotoRefused(
            PhotoProblem.TOO_MANY_PIXELS,
            "the photo takes more memory than there is for one; send a smaller one",
        ) from None
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise _unreadable(error) from None


def _develop(image: ImageFile.ImageFile, max_pixels: int, longest_side: int) -> Developed:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many(max_pixels)
    target = _fit(image.size, longest_side)
    image.draft(None, target)
    image.load()
    # Only now: some formats keep the tag behind the pixels, and Pillow turns TIFF by itself.
    orientation = _orientation(image)
    if orientation in _SIDEWAYS:
        width, height = height, width
    small = _scaled(image, target)
    if orientation in _TURNS:
        small = small.transpose(_TURNS[orientation])
    page = _on_white(_in_srgb(small, image.info.get("icc_profile")))
    jpeg = io.BytesIO()
    page.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return Developed(width, height, *page.size, jpeg.getvalue())


def _fit(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    scale = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # broken metadata is no reason to refuse a sound picture
        return 1
    return found if isinstance(found, int) else 1


def _scaled(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    image = _scalable(image)
    if image.size == target:
        return image
    # The gap: what is much too large is averaged first, which is fast, and weighed only then. LANCZOS takes
    # half as much time again, and a model sees no difference.
    return image.resize(target, Image.Resampling.HAMMING, reducing_gap=2.0)


def _scalable(image: Image.Image) -> Image.Image:
    if image.has_transparency_data and image.mode in ("1", "L", "P", "PA", "RGB"):
        return image.convert("RGBA")
    if image.mode.startswith("I;16"):
        return image.convert("I")
    if image.mode in ("1", "P"):
        return image.convert("RGB")
    if image.mode not in _SCALABLE:
        raise PhotoRefused(
            PhotoProblem.UNSUPPORTED_FORMAT, f"pixels of the kind {image.mode} are not read; send 8 bit RGB"
        )
    return image


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Return an image of mode RGB or RGBA, its colours those of sRGB."""
    if image.mode == "I":  # 16 bit; a table saturates, where a plain conversion would clip at 255
        image = image.point(_HIGH_BYTE, "L")
    if image.mode in ("LA", "La", "RGBa"):
        image = image.convert("RGBA")
    if isinstance(profile, bytes) and image.mode in ("RGB", "RGBA", "CMYK"):
        return _converted(image, profile)
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" not in ImageCms.getProfileDescription(source):
            return ImageCms.profileToProfile(image, source, _SRGB, outputMode=mode) or image
    except (ImageCms.PyCMSError, OSError, ValueError):  # broken, or of another kind of image
        pass
    return image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image on a new page, which has no metadata; a very thin one gets a margin."""
    width, height = image.size
    page = Image.new("RGB", (max(width, SHORTEST_SIDE), max(height, SHORTEST_SIDE)), "white")
    corner = ((page.width - width) // 2, (page.height - height) // 2)
    page.paste(image, corner, image if image.mode == "RGBA" else None)
    return page


def _too_many(max_pixels: int) -> PhotoRefused:
    return PhotoRefused(
        PhotoProblem.TOO_MANY_PIXELS, f"the photo claims more than {max_pixels} pixels; send a smaller one"
    )


def _unreadable(error: Exception) -> PhotoRefused:
    if "truncated" in str(error).lower():
        return PhotoRefused(PhotoProblem.TRUNCATED, "the photo is cut off; send all of its bytes")
    return PhotoRefused(PhotoProblem.DAMAGED, "the photo is damaged or cut off; send it again")
