"""Where a run's files come from: a merger far away, or a folder on this machine.

What a server says is not believed blindly: a path that leads out of the folder it is to lie in is refused.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase

from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, FAILED, CommandFailed
from prism_cli.local_runs import LocalRun
from prism_merger.run_files import NotThere

_CONNECT_S, _READ_S = 10.0, 60.0
_CHUNK = 1 << 18
_DEFAULT_RETRY_S = 1.0
_LONGEST_RETRY_S = 30.0
_LONGEST_PATH = 1024


class Gone(Exception):
    """The file is not there any more."""


class TryAgain(Exception):
    """Nothing, or not all, came; it may the next time. `after_s`: seconds to wait, None as one likes."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Offered:
    """A file that a source has."""

    path: str
    kind: str
    bytes: int
    etag: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source has of a run. `status` is the manifest's, None while there is no manifest."""

    run_id: str
    status: str | None
    detail: str | None
    files: tuple[Offered, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes from `start` on. `size` and `etag` are of the whole file as it is now."""

    start: int
    size: int
    etag: str
    pieces: Iterator[bytes]


class Source(Protocol):
    """Where files come from. Every method may raise TryAgain and CommandFailed."""

    def offer(self) -> Offer:
        """Return what there is."""
        ...

    def read(self, file: Offered, start: int, etag: str) -> Content:
        """Return the bytes from `start` on, or all if the file has another etag by now. Raise Gone."""
        ...


class FolderSource:
    """A run on this machine."""

    def __init__(self, run: LocalRun) -> None:
        self._run = run

    def offer(self) -> Offer:
        files = [
            Offered(one.path, one.kind.value, one.bytes, one.etag, one.sha256)
            for one in self._run.files.listing()
        ]
        told = self._run.manifest
        return Offer(self._run.run_id, told.get("status"), told.get("detail"), tuple(files))

    def read(self, file: Offered, start: int, etag: str) -> Content:
        try:
            opened = self._run.files.open(file.path)
        except NotThere:
            raise Gone from None
        first = start if opened.file.etag == etag else 0
        return Content(first, opened.file.bytes, opened.file.etag, _pieces(opened.descriptor, first))


def _pieces(descriptor: int, start: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        stream.seek(start)
        while piece := stream.read(_CHUNK):
            yield piece


class MergerSource:
    """A run of one of some mergers, each asked in turn until one has it."""

    def __init__(self, run_id: str, urls: Sequence[str], token: str) -> None:
        self._run_id = run_id
        self._urls = list(urls)
        self._session = requests.Session()
        self._session.auth = _Bearer(token)
        # A proxy for the world outside is none for this machine.
        self._session.trust_env = not all(_is_here(url) for url in urls)

    def offer(self) -> Offer:
        refused: list[CommandFailed] = []
        for url in list(self._urls):
            answer = self._get(f"{url}/runs/{quote(self._run_id)}")
            with answer:
                if answer.status_code == 404:
                    refused.append(_not_found(self._run_id, url, answer))
                    continue
                found = _offer(_checked(answer, url), self._run_id, url)
            self._urls = [url]
            return found
        raise next((one for one in refused if one.what.startswith("another")), refused[-1])

    def read(self, file: Offered, start: int, etag: str) -> Content:
        # Packed, its length and its ranges would be others.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": f'"{etag}"'}
        url = self._urls[0]
        answer = self._get(f"{url}/runs/{quote(self._run_id)}/files/{quote(file.path)}", headers)
        if answer.status_code == 404:
            answer.close()
            raise Gone
        _checked(answer, url)
        first = start if answer.status_code == 206 else 0
        try:
            size = first + int(answer.headers["Content-Length"])
        except (KeyError, ValueError):
            raise _not_a_merger(url) from None
        return Content(first, size, answer.headers.get("ETag", "").strip('"'), _streamed(answer, url))

    def _get(self, url: str, headers: dict[str, str] | None = None) -> requests.Response:
        try:
            return self._session.get(
                url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S), allow_redirects=False
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TryAgain(f"{_origin(url)}: no answer: {_reason(error)}") from None
        except requests.RequestException as error:
            raise CommandFailed(BAD_INPUT, "cannot ask", url, _reason(error)) from None


class _Bearer(AuthBase):
    """Sends the token; set as `auth`, so that no `.netrc` puts another one in its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def merger_urls(text: str) -> list[str]:
    """Return the addresses in a list with commas. Raise CommandFailed for one that is none."""
    urls = [one.strip().rstrip("/") for one in text.split(",") if one.strip()]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise CommandFailed(
                BAD_INPUT, "not the address of a merger", printable(url, 200), "http://HOST:8083"
            )
    return urls


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _streamed(answer: requests.Response, url: str) -> Iterator[bytes]:
    try:
        with answer:
            yield from answer.iter_content(_CHUNK)
    except requests.RequestException as error:
        raise TryAgain(f"{url}: the connection broke: {_reason(error)}") from None


def _checked(answer: requests.Response, url: str) -> requests.Response:
    """Return an answer that is one. Raise TryAgain or CommandFailed."""
    code = answer.status_code
    if code in (200, 206):
        return answer
    with answer:
        if code in (502, 503, 504):
            raise TryAgain(f"{url} says {_said(answer)}", _retry_after(answer))
        if code == 401:
            raise CommandFailed(
                BAD_INPUT,
                "the merger takes another token",
                url,
                "set its PRISM_FILES_TOKEN, or --token-file FILE",
            )
        raise CommandFailed(FAILED, f"unexpected answer: {_said(answer)}", url, "is it a merger's address?")


def _not_found(run_id: str, url: str, answer: requests.Response) -> CommandFailed:
    told = _object(answer)
    if told.get("error") == "another merger's run":
        hint = printable(str(told.get("hint")), 100)
        return CommandFailed(BAD_INPUT, f"another merger's run: {hint}", url, "add its address to --url")
    if told.get("error") == "files are not served":
        return CommandFailed(BAD_INPUT, "the merger serves no files", url, "start it with PRISM_FILES_TOKEN")
    if told.get("error") == "no such run":
        return CommandFailed(
            BAD_INPUT, f"no run {printable(run_id, 130)} there", url, "list them: prism status"
        )
    return _not_a_merger(url)


def _not_a_merger(url: str) -> CommandFailed:
    return CommandFailed(BAD_INPUT, "what answers is no merger of this version", url, "correct the address")


def _offer(answer: requests.Response, run_id: str, url: str) -> Offer:
    told = _object(answer)
    files = told.get("files")
    if told.get("run_id") != run_id or not isinstance(files, list):
        raise _not_a_merger(url)
    offered = tuple(_offered(one, url) for one in files)
    status, detail = told.get("status"), told.get("detail")
    return Offer(run_id, str(status) if status else None, str(detail) if detail else None, offered)


def _offered(told: Any, url: str) -> Offered:
    try:
        found = Offered(
            str(told["path"]),
            str(told["kind"]),
            int(told["bytes"]),
            str(told["etag"]),
            None if told["sha256"] is None else str(told["sha256"]),
        )
    except (KeyError, TypeError, ValueError):
        raise _not_a_merger(url) from None
    if not is_safe(found.path):
        what = f"the server names a file outside of the folder: {printable(found.path, 100)!r}"
        raise CommandFailed(FAILED, what, url, "do not trust this server")
    return found


def is_safe(path: str) -> bool:
    """Return whether a path stays below the folder that it is put into, whatever system that is on."""
    pure = PurePosixPath(path)
    return (
        0 < len(path) <= _LONGEST_PATH
        and pure.as_posix() == path
        and path.isprintable()
        and not pure.is_absolute()
        and ".." not in pure.parts
        and not set(path) & set('\\:*?"<>|')
    )


def _object(answer: requests.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return {}
    except requests.RequestException as error:
        raise TryAgain(f"the connection broke: {_reason(error)}") from None
    return found if isinstance(found, dict) else {}


def _said(answer: requests.Response) -> str:
    error = _object(answer).get("error")
    return f"{answer.status_code}{f', {printable(str(error), 100)}' if error else ''}"


def _retry_after(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_S) if text.isdecimal() else _DEFAULT_RETRY_S


def _reason(error: BaseException) -> str:
    """Return the innermost cause in a few words: requests wraps it three times over."""
    while (inner := error.__context__ or _wrapped(error)) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text, 120)


def _wrapped(error: BaseException) -> BaseException | None:
    inside = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return inside if isinstance(inside, BaseException) else None
