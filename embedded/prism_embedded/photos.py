"""What can be said about a photo without looking at what it shows."""

import base64
import binascii
import io
import warnings
from dataclasses import dataclass

from PIL import Image

MAX_PIXELS = 50_000_000
_COLOURS = {
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "red": (200, 40, 40),
    "green": (50, 150, 60),
    "blue": (50, 80, 190),
    "yellow": (225, 210, 70),
    "orange": (230, 140, 40),
    "brown": (120, 80, 45),
    "pink": (235, 150, 180),
    "purple": (125, 55, 150),
}


class NotAPhoto(ValueError):
    """The bytes are no image that can be read."""


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """Format, size in pixels, mean colour (0 – 255) and its name."""

    format: str
    width: int
    height: int
    mean: tuple[int, int, int]
    colour: str

    @property
    def sentence(self) -> str:
        """The facts as one sentence."""
        shape = "landscape" if self.width > self.height else "portrait"
        shape = "square" if self.width == self.height else shape
        light = "bright" if sum(self.mean) >= 384 else "dark"
        size = f"{self.width} × {self.height} pixels"
        return f"A {light} {self.format} photo, {size} ({shape}), mostly {self.colour}."

    def number(self, name: str) -> int | None:
        """The fact that a property of this name asks for, if it is one of the numbers."""
        numbers = {"width": self.width, "height": self.height, "brightness": round(sum(self.mean) / 3)}
        return next((value for fact, value in numbers.items() if fact in name.lower()), None)

    def word(self, name: str) -> str | None:
        """The fact that a property of this name asks for, if it is one of the words."""
        words = {"colour": self.colour, "color": self.colour, "format": self.format}
        return next((value for fact, value in words.items() if fact in name.lower()), None)


def photo_facts(encoded: str) -> PhotoFacts:
    """The facts about an image in base 64, with or without a `data:` prefix.

    :raises NotAPhoto: it cannot be decoded, or has more than 50 million pixels.
    """
    try:
        data = base64.b64decode(encoded.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotAPhoto("the image is not base 64") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow only warns at 100 MP; the limit below refuses
            return _facts(Image.open(io.BytesIO(data)))
    except NotAPhoto:
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise NotAPhoto("the image cannot be decoded") from error


def _facts(image: Image.Image) -> PhotoFacts:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise NotAPhoto(f"the image claims {width} × {height} pixels")
    red, green, blue = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()
    mean = (red, green, blue)
    colour = min(
        _COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(_COLOURS[name], mean, strict=True))
    )
    return PhotoFacts(image.format or "unknown", width, height, mean, colour)
