"""`/runs/…`: a run's files, read-only, for whoever has the token.

Argument. A download takes no thread: waitress's loop sends an open file by itself, piece by piece, as its
client reads. Two things could still hold up `/health`. A client that reads as fast as the loop sends would
keep the loop to itself until the file ends, so a file says after each `_TURN_BYTES` that it has nothing just
now, and the loop looks around. And clients that read nothing keep their connection, of which there are a
hundred: so many files are open at once and no more (503), and the kernel ends a connection that takes
nothing for a minute (`prism.service.http`).
"""

import hmac
import io
import os
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import PurePosixPath
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.http import parse_range_header

from prism.runs.naming import is_run_id
from prism.service.http import json_response
from prism.service.logs import get_logger
from prism_merger.known_runs import ElsewhereRun, KnownRuns, NotYetKnown, UnknownRun
from prism_merger.run_files import NotThere, OpenFile, RunFile, RunFiles

log = get_logger(__name__)

MOST_DOWNLOADS = 16
RETRY_S = 5
_TURN_BYTES = 1024 * 1024
_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
# A report is one file with its scripts and styles inside: it may run them, and reach nothing else.
_POLICY = "default-src 'none'; sandbox"
_REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox allow-scripts"
)


def pages(known: KnownRuns, token: str | None, most: int = MOST_DOWNLOADS) -> Blueprint:
    """Return the pages; without a token they only say how to turn them on."""
    made = Blueprint("runs", __name__)
    slots = threading.BoundedSemaphore(most)
    guarded = _Guard(known, token)

    @made.get("/runs/<run_id>", provide_automatic_options=False, merge_slashes=False)
    def run(run_id: str) -> Response:
        return guarded.answer(run_id, _listing)

    @made.get("/runs/<run_id>/files/<path:path>", provide_automatic_options=False, merge_slashes=False)
    def file(run_id: str, path: str) -> Response:
        return guarded.answer(run_id, lambda files: _download(files, path, slots))

    return made


class _Guard:
    """Asks for the token, then finds the run."""

    def __init__(self, known: KnownRuns, token: str | None) -> None:
        self._known = known
        self._token = token.encode() if token else None

    def answer(self, run_id: str, page: Callable[[RunFiles], Response]) -> Response:
        if self._token is None:
            return _error(404, "files are not served", "set PRISM_FILES_TOKEN for the merger")
        if not self._is_allowed(self._token):
            response = _error(401, "no token, or another one", "send Authorization: Bearer PRISM_FILES_TOKEN")
            response.headers["WWW-Authenticate"] = 'Bearer realm="prism"'
            return response
        if not is_run_id(run_id):
            return _error(404, "no such run", "it is no run id")
        try:
            return page(self._known.files(run_id))
        except ElsewhereRun as error:
            hint = f"merger {error.ordinal} of {self._known.replicas} has it"
            return _error(404, "another merger's run", hint, merger=error.ordinal)
        except UnknownRun:
            return _error(404, "no such run", "see prism status")
        except NotYetKnown:
            return _busy("the runs topic is not read yet")
        except NotThere:
            return _error(404, "no such file of this run", f"see /runs/{run_id}")

    def _is_allowed(self, token: bytes) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Compared also when the scheme is wrong, so that the time says nothing.
        same = hmac.compare_digest(given.strip().encode(errors="replace"), token)
        return same and scheme.lower() == "bearer"


def _listing(files: RunFiles) -> Response:
    manifest = files.manifest()
    return json_response(
        {
            "run_id": files.run_id,
            "status": manifest.get("status"),
            "detail": manifest.get("detail"),
            "rows": manifest.get("rows"),
            "files": [_as_json(one) for one in files.listing()],
        }
    )


def _as_json(file: RunFile) -> dict[str, object]:
    return {
        "path": file.path,
        "kind": file.kind.value,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "etag": file.etag,
        "media_type": _media_type(file).partition(";")[0],
    }


def _download(files: RunFiles, path: str, slots: threading.BoundedSemaphore) -> Response:
    found = files.open(path)
    served = None
    try:
        response, span = _head(found.file)
        if request.method == "HEAD" or span is None or span[0] == span[1]:
            return response
        if not slots.acquire(blocking=False):
            return _busy("too many downloads at once")
        served = _ServedFile(found, span[0], slots.release)
        response.response = request.environ["wsgi.file_wrapper"](served)
        response.direct_passthrough = True
        log.info("file_served", run=files.run_id, path=path, start=span[0], bytes=span[1] - span[0])
        return response
    finally:
        if served is None:
            os.close(found.descriptor)


def _head(file: RunFile) -> tuple[Response, tuple[int, int] | None]:
    """Return the answer without its bytes, and which bytes are asked for; None for none."""
    response = Response(content_type=_media_type(file))
    headers = response.headers
    headers["ETag"] = f'"{file.etag}"'
    headers["Last-Modified"] = formatdate(file.modified, usegmt=True)
    headers["Accept-Ranges"] = "bytes"
    headers["Content-Disposition"] = _disposition(PurePosixPath(file.path).name)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Content-Security-Policy"] = _REPORT_POLICY if file.path.endswith(".html") else _POLICY
    if file.etag in request.if_none_match:
        response.status_code = 304
        return response, None
    span = _span(file)
    if span is None:
        response.status_code = 416
        headers["Content-Range"] = f"bytes */{file.bytes}"
        response.content_length = 0
        return response, None
    if span != (0, file.bytes):
        response.status_code = 206
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{file.bytes}"
    response.content_length = span[1] - span[0]
    return response, span


def _span(file: RunFile) -> tuple[int, int] | None:
    """Return the bytes that are asked for as [first, end); None when there are no such bytes.

    What cannot be understood, several ranges and a range of another version ask for the whole (RFC 9110).
    """
    whole = (0, file.bytes)
    wanted = parse_range_header(request.headers.get("Range"))
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return whole
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() != f'"{file.etag}"':
        return whole
    first, end = wanted.ranges[0]
    if end is None:  # from `first` on, or the last so many bytes
        end = file.bytes
        first = first if first >= 0 else max(0, end + first)
    return (first, min(end, file.bytes)) if first < file.bytes else None


def _media_type(file: RunFile) -> str:
    return _TYPES.get(PurePosixPath(file.path).suffix, "application/octet-stream")


def _disposition(name: str) -> str:
    plain = name.replace("\\", "_").replace('"', "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _busy(why: str) -> Response:
    response = _error(503, why, f"ask again in {RETRY_S} s")
    response.headers["Retry-After"] = str(RETRY_S)
    return response


def _error(status: int, what: str, hint: str, **more: object) -> Response:
    return json_response({"error": what, "hint": hint, **more}, status)


class _ServedFile(io.RawIOBase):
    """A file as waitress's loop reads it: see the module's argument. Closing it frees its slot, once."""

    def __init__(self, opened: OpenFile, start: int, freed: Callable[[], None]) -> None:
        self._file = os.fdopen(opened.descriptor, "rb", buffering=0)
        self._file.seek(start)
        self._path = opened.file.path
        self._freed = freed
        self._turn = 0

    def read(self, size: int = -1) -> bytes:
        if self._turn >= _TURN_BYTES:
            self._turn = 0
            return b""
        piece = self._file.read(size)
        if not piece and size:
            log.warning("served_file_became_shorter", path=self._path)
            raise OSError("the file has become shorter")
        self._turn += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            self._freed()
