"""`prism submit`: a CSV into the intake topic, as one message, as chunks, or as a reference.

A file is read twice as a stream, never whole: once for its checksum, which names the run, once to be
sent. Chunks are sent one after another, each acknowledged before the next is read.
"""

import hashlib
import json
import os
import stat
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from prism.conversion import stem_of
from prism.kafka.clients import ErrorWatch
from prism.kafka.errors import BrokerAway, failure
from prism.messages import intake
from prism.messages.topics import MIB
from prism.runs.naming import clean_label
from prism_cli import connection as connections
from prism_cli.board import Board
from prism_cli.connection import Connection
from prism_cli.console import printable, say, write_json, write_line
from prism_cli.exits import BAD_INPUT, DONE, USAGE, CommandFailed
from prism_cli.watching import attend, finish

ONE_MESSAGE_BYTES = 15 * MIB
CHUNK_BYTES = 8 * MIB
# A file that the fleet can read itself need not go through the broker's disk when it is large.
REFERENCE_BYTES = 64 * MIB
_READ_BYTES = 1 * MIB
_ACKNOWLEDGE_S = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it is to be sent."""

    path: Path
    size: int
    sha256: str
    encoding: str | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers and the key say."""

    job: str
    run_id: str
    label: str
    filename: str
    priority: int | None = None

    def headers(self, source: Source) -> dict[str, str]:
        """Return the headers that all of a file's messages carry."""
        found = {
            intake.HEADER_JOB: self.job,
            intake.HEADER_RUN_ID: self.run_id,
            intake.HEADER_FILENAME: self.filename,
        }
        if self.priority is not None:
            found[intake.HEADER_PRIORITY] = str(self.priority)
        if source.encoding:
            found[intake.HEADER_ENCODING] = source.encoding
        return found


class Headers(Protocol):
    """What knows the headers of a file's messages."""

    def headers(self, source: Source) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One message for the intake topic."""

    value: bytes
    headers: dict[str, str]


def run(options: Namespace) -> int:
    """Send a file; with --wait follow its run to the end. With --dry-run only tell what it would take."""
    if options.dry_run:
        # Imports the services' parts: nothing that a file that is sent should wait for.
        from prism_cli import dry_run

        return dry_run.run(options)
    _assert_sent(options)
    source = examine(options.file)
    connection = connections.connect(options)
    check_job(options.job, connection)
    envelope = address(options, source, datetime.now(UTC))
    known = options.run_id is not None and _is_there(connection, envelope.run_id, source)
    if not known:
        send(connection, parts(source, envelope, by_reference(options, source, connection)), envelope.label)
    _confirm(options, source, envelope, known)
    if not options.wait:
        return DONE
    board = Board(connection)
    try:
        board.catch_up()
        view = attend(board, envelope.run_id, options.timeout)
        return finish(view, connection.data_dir, options.json)
    finally:
        board.close()


def examine(path: Path) -> Source:
    """Return a file's size and checksum; raise CommandFailed (3) for what is no readable file."""
    try:
        size, checksum = _read_through(path)
    except FileNotFoundError:
        raise _bad_file(path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise _bad_file(path, "a folder, not a file", "name a CSV in it") from None
    except OSError as error:
        raise _bad_file(path, f"cannot be read: {error.strerror}", "check its rights") from None
    return Source(path, size, checksum, "gzip" if path.suffix.lower() == ".gz" else None)


def _read_through(path: Path) -> tuple[int, str]:
    # Without O_NONBLOCK a named pipe would hang here until somebody writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
        if not stat.S_ISREG(mode):
            raise _bad_file(path, "a device or a pipe, not a file", "save it to a file first")
        digest = hashlib.sha256()
        size = 0
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _bad_file(path: Path, what: str, next: str) -> CommandFailed:
    return CommandFailed(BAD_INPUT, what, printable(str(path)), next)


def _assert_sent(options: Namespace) -> None:
    """Raise CommandFailed (2) for an option without effect: who says --sample wants no whole file sent."""
    said = {"--sample": options.sample, "--concurrency": options.concurrency, "--jobs-dir": options.jobs_dir}
    said["--model-server"] = options.model_server if options.model_server != "auto" else None
    for name, value in said.items():
        if value is not None:
            raise CommandFailed(USAGE, f"{name} is for --dry-run only", next="see prism submit --help")


def check_job(job: str, connection: Connection) -> None:
    """Raise CommandFailed (3) if the fleet runs here and has no such job; elsewhere the ingestor decides."""
    folder = connection.fleet.jobs_dir if connection.fleet else None
    if folder is not None and folder.is_dir():
        assert_job(job, folder)


def assert_job(job: str, folder: Path) -> None:
    """Raise CommandFailed (3) if a folder of job files has no such job."""
    if (folder / f"{job}.yaml").is_file():
        return
    there = ", ".join(sorted(one.stem for one in folder.glob("*.yaml"))) or "none"
    raise CommandFailed(
        BAD_INPUT, f"no job {job}.yaml", str(folder), f"put it there, or take one of: {there}"
    )


def address(options: Namespace, source: Source, now: datetime) -> Envelope:
    """Return what the messages' key and headers say."""
    return Envelope(
        job=options.job,
        run_id=options.run_id or new_run_id(options.job, source.sha256, now),
        label=clean_label(options.label or stem_of(source.path.name)),
        filename=source.path.name,
        priority=options.priority,
    )


def new_run_id(job: str, sha256: str, now: datetime) -> str:
    """Return an id for a run that was given none, so that its sender can follow it."""
    return f"{job}_{now:%Y%m%d_%H%M%S}_{sha256[:4]}"


def by_reference(options: Namespace, source: Source, connection: Connection) -> bool:
    """Return whether to send where the file lies instead of its bytes."""
    if options.reference:
        return True
    fleet = connection.fleet
    if fleet is None or source.size <= REFERENCE_BYTES:
        return False
    return source.path.resolve().is_relative_to(fleet.source_dir.resolve())


def parts(source: Source, envelope: Headers, reference: bool) -> Iterator[Part]:
    """Yield the messages that carry a file, reading it as they are taken."""
    headers = envelope.headers(source)
    if reference:
        value = json.dumps({"uri": source.path.resolve().as_uri(), "sha256": source.sha256}).encode()
        yield Part(value, {**headers, intake.HEADER_TYPE: intake.REFERENCE_TYPE})
        return
    with source.path.open("rb") as file:
        if source.size <= ONE_MESSAGE_BYTES:
            yield Part(_exactly(file, source, source.size), headers)
            return
        total = -(-source.size // CHUNK_BYTES)
        for number in range(1, total + 1):
            value = _exactly(file, source, min(CHUNK_BYTES, source.size - (number - 1) * CHUNK_BYTES))
            numbered = {intake.HEADER_PART: str(number), intake.HEADER_PARTS: str(total)}
            yield Part(value, {**headers, **numbered})


def _exactly(file: BinaryIO, source: Source, size: int) -> bytes:
    value = file.read(size)
    if len(value) != size:
        raise _bad_file(source.path, "changed while it was sent", "send it again when nothing writes to it")
    return value


def send(connection: Connection, messages: Iterator[Part], key: str) -> None:
    """Produce the messages in order, each acknowledged before the next."""
    errors = ErrorWatch()
    producer = connection.kafka.producer(errors)
    try:
        for part in messages:
            _send_one(producer, connection, part, key)
    finally:
        # What was not acknowledged is not worth waiting for: the command fails, and says so.
        producer.purge()
        producer.flush(1.0)


def _send_one(producer: Producer, connection: Connection, part: Part, key: str) -> None:
    reports: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        del message
        reports.append(error)

    headers: list[tuple[str, str | bytes | None]] = [
        (name, text.encode()) for name, text in part.headers.items()
    ]
    topic = connection.topics.intake
    try:
        producer.produce(topic, part.value, key.encode(), headers=headers, on_delivery=delivered)
    except (KafkaException, BufferError) as error:
        raise BrokerAway(f"cannot send to {topic}: {error}") from None
    deadline = time.monotonic() + _ACKNOWLEDGE_S
    while not reports:
        producer.poll(0.2)
        if time.monotonic() > deadline:
            raise BrokerAway(
                f"{connection.bootstrap} has not acknowledged the file within {_ACKNOWLEDGE_S:.0f} s; "
                "look at the broker, then send it again"
            )
    if reports[0] is not None:
        raise failure(f"{connection.bootstrap} refused the file for {topic}", reports[0])


def _is_there(connection: Connection, run_id: str, source: Source) -> bool:
    """Return whether this very run is known already; raise CommandFailed (3) if the id is another file's."""
    board = Board(connection)
    try:
        board.catch_up()
        view = board.run(run_id)
    finally:
        board.close()
    known = view.record.files[0].sha256 if view is not None and view.record.files else None
    if known is not None and known != source.sha256:
        raise CommandFailed(
            BAD_INPUT, f"run {run_id} is of another file", str(source.path), "choose another --run-id"
        )
    return known is not None


def _confirm(options: Namespace, source: Source, envelope: Envelope, known: bool) -> None:
    what = (
        "is known already, nothing was sent"
        if known
        else f"sent: {source.size:,} bytes of {envelope.filename}"
    )
    say(printable(f"{envelope.run_id} {what}"))
    if options.wait:
        return
    if options.json:
        told = {"run_id": envelope.run_id, "label": envelope.label, "job": envelope.job}
        write_json({**told, "bytes": source.size, "sha256": source.sha256, "sent": not known})
    else:
        write_line(envelope.run_id)
        say(f"follow it: prism watch {envelope.run_id}")
