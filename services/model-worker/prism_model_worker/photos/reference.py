"""A photo that did not travel in its request: a file in the one folder that references may name."""

import errno
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prism.messages import FileReason
from prism.tables import TableRefused, open_source
from prism_model_worker.photos.photo import PhotoProblem, PhotoRefused, too_large

# What stays as it is until somebody changes the file or its folder.
_FOR_GOOD = {errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class PhotoReference:
    """Where a photo lies (`file:///…`), and the SHA-256 of its bytes in hex, if it was given."""

    uri: str
    sha256: str | None = None


def read_reference(reference: PhotoReference, folder: Path | None, max_bytes: int) -> bytes:
    """Return the bytes of a photo that lies in `folder`, links resolved; None allows no folder.

    The checksum is that of the bytes returned: a file that changes while it is read is found out.

    Raises:
        PhotoRefused: `BAD_REFERENCE`, `OUTSIDE_FOLDER`, `NOT_FOUND`, `NOT_A_FILE`, `TOO_LARGE_BYTES`,
            `CHANGED`.
        OSError: what the operating system reports otherwise; trying again may help.
    """
    data = _read(_allowed_path(reference.uri, folder), max_bytes)
    if reference.sha256 is not None and hashlib.sha256(data).hexdigest() != reference.sha256.lower():
        raise PhotoRefused(
            PhotoProblem.CHANGED, "the file does not have the SHA-256 of the reference; send a new reference"
        )
    return data


def _allowed_path(uri: str, folder: Path | None) -> Path:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _bad_reference("is no URI") from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise _bad_reference("names no file of this machine")
    text = unquote(parts.path)
    if "\0" in text or not text.startswith("/"):
        raise _bad_reference("has no absolute path")
    # Resolved first: neither `..` nor a link leads out.
    try:
        path = Path(text).resolve()
    except (OSError, RuntimeError, ValueError):  # a ring of links, a name that no file can have
        raise _not_found() from None
    if folder is None or not path.is_relative_to(folder.resolve()):
        raise PhotoRefused(
            PhotoProblem.OUTSIDE_FOLDER,
            "the reference leads outside the folder for photos; put the file there, or send it as base64",
        )
    return path


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with io.BufferedReader(open_source(path)) as opened:
            size = os.fstat(opened.fileno()).st_size
            # A file that grows meanwhile is still read to its limit only.
            data = b"" if size > max_bytes else opened.read(max_bytes + 1)
    except TableRefused as error:
        raise _not_a_file() if error.reason is FileReason.NOT_A_FILE else _not_found() from None
    except OSError as error:
        if error.errno in _FOR_GOOD:
            raise _not_found() from None
        raise
    if size > max_bytes or len(data) > max_bytes:
        raise too_large(max(size, len(data)), max_bytes)
    return data


def _bad_reference(what: str) -> PhotoRefused:
    return PhotoRefused(PhotoProblem.BAD_REFERENCE, f"the photo's reference {what}; use file:///…")


def _not_found() -> PhotoRefused:
    return PhotoRefused(
        PhotoProblem.NOT_FOUND, "the reference names no file that can be opened; check its path and rights"
    )


def _not_a_file() -> PhotoRefused:
    return PhotoRefused(PhotoProblem.NOT_A_FILE, "the reference names a folder, device or pipe; name a file")
