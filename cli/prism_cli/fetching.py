"""`prism fetch`: a run's files brought here, each whole and under its name, or not at all.

Argument. A file comes under a temporary name that holds the version it is of (its ETag), so that after a
death the next fetch goes on behind the bytes that are there, and never sticks two versions together: the
server, too, sends the rest only while the version is the same (`If-Range`). A kernel lock keeps a second
fetch from writing the same file. When all bytes are there and the SHA-256 is the manifest's, the file gets
its name by a link, which the kernel refuses where the name is taken.
"""

import fcntl
import hashlib
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prism_cli import connection as connections
from prism_cli import fleet_file
from prism_cli.console import count, files, printable, say, write_json, write_line
from prism_cli.exits import BAD_INPUT, DONE, FAILED, CommandFailed
from prism_cli.file_sources import (
    Content,
    FolderSource,
    Gone,
    MergerSource,
    Offer,
    Offered,
    Source,
    TryAgain,
    merger_urls,
)
from prism_cli.local_runs import LocalRun, find_run, output_root
from prism_merger.run_files import Kind
from prism_merger.volume import NameTaken, claim, sync_folder

TRIES = 6
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_CHUNK = 1 << 20

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one file: `brought`, `there` (the same was), `different` (another was), `gone`."""

    file: Offered
    path: Path
    state: str


def run(options: Namespace) -> int:
    """Bring a run's files, or say where they are when they lie on this machine."""
    environ = connections.environment()
    place = find(options, environ)
    if isinstance(place, LocalRun):
        return _report_here(options, place)
    folder = options.to or Path(options.run_id)
    offer = patiently(place.offer)
    fetcher = Fetcher(place, folder, options.force)
    done = [fetcher.bring(one) for one in chosen(offer, options.only)]
    return _report(options, offer, folder, done)


def find(options: Namespace, environ: Mapping[str, str]) -> Source | LocalRun:
    """Return where the files come from, or the run of this machine that need not be brought anywhere."""
    named = options.url or environ.get("PRISM_MERGER_URL")
    if named:
        return MergerSource(options.run_id, merger_urls(named), _token(options, environ))
    folder = connections.data_dir(options, environ).absolute()
    here = find_run(output_root(folder, environ), options.run_id)
    is_here = any(True for _ in here.files.listing())
    if is_here and options.to is None:
        return here
    fleet = fleet_file.read(folder) if fleet_file.alive(folder) else None
    urls = [one.url for one in fleet.services if one.name == "merger" and one.url] if fleet else []
    if fleet is not None and urls and fleet.files_token.get_secret_value():
        return MergerSource(options.run_id, urls, fleet.files_token.get_secret_value())
    if is_here:
        return FolderSource(here)
    raise CommandFailed(
        BAD_INPUT,
        f"no run {printable(options.run_id, 130)} here",
        str(here.files.places.root),
        "for a fleet elsewhere name its merger: --url http://HOST:8083, or PRISM_MERGER_URL",
    )


def _token(options: Namespace, environ: Mapping[str, str]) -> str:
    if options.token_file is not None:
        try:
            token = Path(options.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(BAD_INPUT, f"cannot read the token: {error}") from None
    else:
        token = environ.get("PRISM_FILES_TOKEN", "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise CommandFailed(
            BAD_INPUT,
            "no token for the merger",
            next="set PRISM_FILES_TOKEN or PRISM_FILES_TOKEN_FILE as for the merger, or --token-file FILE",
        )
    return token


def chosen(offer: Offer, only: str | None) -> list[Offered]:
    """Return the files to bring; by default all but the parts that a published output holds."""
    if only == "outputs":
        return [one for one in offer.files if one.kind == Kind.OUTPUT]
    published = any(one.kind == Kind.OUTPUT for one in offer.files)
    return [one for one in offer.files if only == "all" or not published or one.kind != Kind.PART]


class Fetcher:
    """Brings files of one source into one folder. Raises CommandFailed."""

    def __init__(self, source: Source, folder: Path, force: bool, sleep: Sleep = time.sleep) -> None:
        self._source = source
        self._folder = folder
        self._force = force
        self._sleep = sleep

    def bring(self, file: Offered) -> Fetched:
        """Bring one file, unless it is here; another one of its name stays, unless it is forced away."""
        path = self._folder / file.path
        try:
            return Fetched(file, path, self._bring(file, path))
        except Gone:
            return Fetched(file, path, "gone")
        except OSError as error:
            what = f"cannot write: {error.strerror or error}"
            raise CommandFailed(FAILED, what, str(path), "repair it and run the command again") from None

    def _bring(self, file: Offered, path: Path) -> str:
        if file.sha256 is not None and os.path.lexists(path):
            if path.is_file() and sha256(path) == file.sha256:
                return "there"
            if not self._force:
                return "different"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_of(path, file)
        with temporary.open("a+b") as target:
            _hold(target.fileno(), path)
            digest = self._download(file, target.fileno())
            if file.sha256 is not None and digest != file.sha256:
                temporary.unlink()
                raise CommandFailed(
                    FAILED,
                    "what came has another SHA-256 than the manifest says",
                    printable(file.path),
                    "it may have been replaced meanwhile: run the command again",
                )
            os.fsync(target.fileno())
            state = self._name(temporary, path, digest)
        _forget_others(path)
        return state

    def _name(self, temporary: Path, path: Path, digest: str) -> str:
        if self._force and not path.is_dir():
            temporary.replace(path)
            sync_folder(path.parent)
            return "brought"
        try:
            claim(temporary, path)
        except NameTaken:
            same = path.is_file() and sha256(path) == digest
            temporary.unlink(missing_ok=True)
            return "there" if same else "different"
        return "brought"

    def _download(self, file: Offered, target: int) -> str:
        """Bring the bytes that are missing; return the SHA-256 of all."""
        etag, size, failures = file.etag, file.bytes, 0
        while True:
            before = os.fstat(target).st_size
            try:
                # The last byte of a whole one is asked for again: so the server says if it still counts.
                content = self._source.read(file, min(before, max(size - 1, 0)), etag)
                etag, size = content.etag, content.size
                os.ftruncate(target, content.start)
                _write(content, target)
                if os.fstat(target).st_size == size:
                    return _digest_of(target)
                why = TryAgain("the connection ended early")
            except TryAgain as error:
                why = error
            failures = 1 if os.fstat(target).st_size > before else failures + 1
            self._wait(file.path, why, failures)

    def _wait(self, path: str, why: TryAgain, failures: int) -> None:
        _wait(f"{printable(path)}: {why}", why, failures, self._sleep)


def patiently(ask: Callable[[], Offer], sleep: Sleep = time.sleep) -> Offer:
    """Return the answer, asked for again while it may still come."""
    failures = 0
    while True:
        try:
            return ask()
        except TryAgain as error:
            failures += 1
            _wait(str(error), error, failures, sleep)


def _wait(what: str, why: TryAgain, failures: int, sleep: Sleep) -> None:
    if failures >= TRIES:
        raise CommandFailed(
            FAILED,
            f"given up after {TRIES} tries: {what}",
            next="run the command again: it goes on from there",
        )
    pause = why.after_s or min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (failures - 1))
    say(f"{what}; again in {pause:.1f} s")
    sleep(pause)


def temporary_of(path: Path, file: Offered) -> Path:
    """Return where a version of a file is gathered until it is whole."""
    return path.with_name(f".{path.name}.{hashlib.sha256(file.etag.encode()).hexdigest()[:12]}.fetch")


def sha256(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return _digest_of(file.fileno())


def _digest_of(descriptor: int) -> str:
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _CHUNK, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _write(content: Content, target: int) -> None:
    left = content.size - content.start
    for piece in content.pieces:
        # More than was announced is not taken: a disk is not filled by whoever answers.
        view = memoryview(piece)[:left]
        left -= len(view)
        while view:
            view = view[os.write(target, view) :]
        if left <= 0:
            return


def _hold(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CommandFailed(
            BAD_INPUT, "another prism fetch brings this file", printable(str(path)), "wait for it"
        ) from None


def _forget_others(path: Path) -> None:
    """Remove what earlier fetches have gathered of versions that nobody has any more."""
    for name in os.listdir(path.parent):
        if name.startswith(f".{path.name}.") and name.endswith(".fetch"):
            with suppress(OSError):
                (path.parent / name).unlink()


def _report(options: Namespace, offer: Offer, folder: Path, done: list[Fetched]) -> int:
    states = {
        state: [one for one in done if one.state == state] for state in ("brought", "there", "different")
    }
    if options.json:
        _write_json(offer, folder, [(one.file, one.path, one.state) for one in done])
    else:
        for one in [*states["brought"], *states["there"]]:
            write_line(printable(str(one.path)))
    size = sum(one.file.bytes for one in states["brought"])
    say(
        f"{offer.run_id}: {files(len(states['brought']))} with {count(size)} bytes brought to "
        f"{printable(str(folder))}, {count(len(states['there']))} were there"
    )
    _say_what_is_missing(offer, [one for one in done if one.state == "gone"])
    if states["different"]:
        first = printable(str(states["different"][0].path))
        raise CommandFailed(
            BAD_INPUT,
            f"{files(len(states['different']))} of the same name but with other content stays as it is",
            first,
            "choose another --to, or --force",
        )
    return FAILED if options.only == "outputs" and not done else DONE


def _report_here(options: Namespace, here: LocalRun) -> int:
    """Say where the files of a run of this machine are."""
    offer = FolderSource(here).offer()
    root = here.files.places.root
    found = chosen(offer, options.only)
    if options.json:
        _write_json(offer, root, [(one, root / one.path, "there") for one in found])
    else:
        for one in found:
            write_line(printable(str(root / one.path)))
    say(f"{offer.run_id}: its files are on this machine; --to DIR copies them")
    _say_what_is_missing(offer, [])
    return FAILED if options.only == "outputs" and not found else DONE


def _say_what_is_missing(offer: Offer, gone: Iterable[Fetched]) -> None:
    for one in gone:
        say(f"{printable(one.file.path)} was removed meanwhile")
    if offer.status is None:
        say(f"{offer.run_id} has not ended yet: run the command again then")
    elif any(one.kind == Kind.OUTPUT for one in offer.files):
        return
    elif offer.status.startswith("completed"):
        say(f"no output of {offer.run_id} is there any more: its manifest says where it was published")
    else:
        detail = f": {printable(offer.detail, 300)}" if offer.detail else ""
        say(f"there is no output: {offer.run_id} is {printable(offer.status)}{detail}")


def _write_json(offer: Offer, folder: Path, found: Iterable[tuple[Offered, Path, str]]) -> None:
    write_json(
        {
            "run_id": offer.run_id,
            "status": offer.status,
            "detail": offer.detail,
            "folder": str(folder.absolute()),
            "files": [
                {
                    "path": str(path.absolute()),
                    "kind": file.kind,
                    "bytes": file.bytes,
                    "sha256": file.sha256,
                    "state": state,
                }
                for file, path, state in found
            ],
        }
    )
