"""What the photo modules hand to each other: a photo that is safe to send, or why there is none."""

from dataclasses import dataclass, field
from enum import StrEnum


class PhotoProblem(StrEnum):
    """Why a photo is refused, for good: it is not tried again."""

    # The photo could not be had.
    BAD_BASE64 = "bad_base64"
    BAD_REFERENCE = "bad_reference"
    OUTSIDE_FOLDER = "outside_folder"
    NOT_FOUND = "not_found"
    NOT_A_FILE = "not_a_file"
    CHANGED = "changed"
    # Its bytes are refused.
    TOO_LARGE_BYTES = "too_large_bytes"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    # Nobody knows what is in them.
    DECODER_DIED = "decoder_died"
    DECODER_TIMEOUT = "decoder_timeout"


class PhotoRefused(Exception):
    """The photo cannot be used. `message` is for its sender: it names no path and nothing internal."""

    def __init__(self, code: PhotoProblem, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def too_large(size: int, max_bytes: int) -> PhotoRefused:
    """Return the refusal of a photo with too many bytes."""
    message = f"the photo has {size} bytes, more than {max_bytes}; send a smaller one"
    return PhotoRefused(PhotoProblem.TOO_LARGE_BYTES, message)


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """What a photo may cost, and what becomes of it.

    max_bytes: of the file as it comes. max_pixels: width × height as its header claims them.
    longest_side: pixels of the longer side that the model is sent; smaller photos stay as they are.
    seconds: wall-clock time of a decoder for one photo.
    memory_bytes: address space of a decoder; 50 million pixels of WebP with alpha take 0.9 GB.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    longest_side: int = 1344
    seconds: float = 20.0
    memory_bytes: int = 1_200_000_000


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """A file's format, its upright size in pixels, and its length."""

    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that is safe to send: `base64` is the JPEG for the model, `sent` its facts."""

    base64: str = field(repr=False)
    original: PhotoFacts
    sent: PhotoFacts
