"""Photos as rows and requests bring them: what stands there becomes a photo that is safe to send."""

import re
from pathlib import Path

from prism_model_worker.photos.photo import Photo, PhotoLimits, PhotoProblem, PhotoRefused
from prism_model_worker.photos.photo_text import decode_photo_text
from prism_model_worker.photos.reference import PhotoReference, read_reference
from prism_model_worker.photos.studio import Studio

# A short text that ends like a picture's name is one; base64 has no full stop.
_NAME = re.compile(r"[^\0]{1,4096}\.(jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE)
# When there was no decoder for a photo, it is worth another try after so long.
PHOTO_AGAIN_S = 0.5


class Album:
    """Finds photos and makes them safe. `folder`: where references may lead; None: nowhere."""

    def __init__(self, studio: Studio, folder: Path | None, limits: PhotoLimits) -> None:
        self._studio = studio
        self._folder = folder
        self._limits = limits

    def photo(self, cell: str) -> Photo:
        """Return the photo of a row's cell that is not blank: a path in the folder, or as `develop` takes it.

        Raises as `develop`.
        """
        return self.develop(self._source(cell.strip()))

    def develop(self, source: str | PhotoReference) -> Photo:
        """Return a photo that came as base64, as a `data:` URL or as a reference.

        Raises PhotoRefused when it is its own fault; RetryLater and OSError when trying again may help.
        """
        if isinstance(source, PhotoReference):
            return self._studio.develop(read_reference(source, self._folder, self._limits.max_bytes))
        return self._studio.develop(decode_photo_text(source, self._limits.max_bytes))

    def _source(self, cell: str) -> str | PhotoReference:
        if cell[:5].lower() == "file:":
            return PhotoReference(cell)
        if not _NAME.fullmatch(cell) or cell[:5].lower() == "data:":
            return cell
        if self._folder is None:
            raise PhotoRefused(PhotoProblem.OUTSIDE_FOLDER, "no folder is allowed for photos")
        # An absolute path stays one: whether it lies in the folder is judged where it is read.
        return PhotoReference((self._folder.resolve() / cell).as_uri())
