"""A row's photo: what its cell says becomes a photo that is safe to send."""

import re
from pathlib import Path

from prism_model_worker.photos.photo import Photo, PhotoLimits, PhotoProblem, PhotoRefused
from prism_model_worker.photos.photo_text import decode_photo_text
from prism_model_worker.photos.reference import PhotoReference, read_reference
from prism_model_worker.photos.studio import Studio

# A short text that ends like a picture's name is one; base64 has no full stop.
_NAME = re.compile(r"[^\0]{1,4096}\.(jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE)


class Album:
    """Finds photos by what a cell holds: a path in `folder`, a `file://` URI, base64 or a `data:` URL."""

    def __init__(self, studio: Studio, folder: Path | None, limits: PhotoLimits) -> None:
        self._studio = studio
        self._folder = folder
        self._limits = limits

    def photo(self, cell: str) -> Photo:
        """Return the photo of a cell that is not blank.

        Raises PhotoRefused when it is the cell's fault; RetryLater and OSError when trying again may help.
        """
        return self._studio.develop(self._bytes(cell.strip()))

    def _bytes(self, cell: str) -> bytes:
        if cell[:5].lower() == "file:":
            return read_reference(PhotoReference(cell), self._folder, self._limits.max_bytes)
        if not _NAME.fullmatch(cell) or cell[:5].lower() == "data:":
            return decode_photo_text(cell, self._limits.max_bytes)
        if self._folder is None:
            raise PhotoRefused(PhotoProblem.OUTSIDE_FOLDER, "no folder is allowed for photos")
        # An absolute path stays one: whether it lies in the folder is judged where it is read.
        uri = (self._folder.resolve() / cell).as_uri()
        return read_reference(PhotoReference(uri), self._folder, self._limits.max_bytes)
