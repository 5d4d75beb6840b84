"""A run into the intake topic: its files first, then the request that makes a run of them.

What was sent before a death is no run: without its request nothing is made of it, and sent again it is the
same run under the same id. Large files that the fleet can read itself are named, not sent.
"""

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from prism.messages import RunRequest, intake
from prism_cli.connection import Connection
from prism_cli.job_spec import JobSpec
from prism_cli.submission import Part, Source, by_reference, parts, send


@dataclass(frozen=True, slots=True)
class FileEnvelope:
    """What the headers of a requested run's file say."""

    run_id: str
    number: int
    filename: str

    def headers(self, source: Source) -> dict[str, str]:
        """Return the headers that all of a file's messages carry."""
        found = {
            intake.HEADER_RUN_ID: self.run_id,
            intake.HEADER_FILE: str(self.number),
            intake.HEADER_FILENAME: self.filename,
        }
        if source.encoding:
            found[intake.HEADER_ENCODING] = source.encoding
        return found


def request_run(connection: Connection, spec: JobSpec, run_id: str, options: Namespace) -> int:
    """Send a job's run; return how many bytes of its files went through the broker. Raises BrokerAway."""
    uris = {
        one.label: one.source.path.resolve().as_uri()
        for one in spec.files
        if by_reference(options, one.source, connection)
    }
    # A file keeps its number, whichever others are named and not sent.
    sent = [
        (FileEnvelope(run_id, number, one.filename), one.source)
        for number, one in enumerate(spec.files, 1)
        if one.label not in uris
    ]
    send_run(connection, run_id, sent, spec.request(uris), options.priority)
    return sum(source.size for _, source in sent)


def send_run(
    connection: Connection,
    run_id: str,
    files: Iterable[tuple[FileEnvelope, Source]],
    request: RunRequest,
    priority: int | None = None,
) -> None:
    """Send a run's files, then the request that makes a run of them. Raises BrokerAway."""
    pieces = (piece for envelope, source in files for piece in parts(source, envelope, reference=False))
    # One key for all: they lie in one partition, in this order.
    send(connection, chain(pieces, [_part(run_id, request, priority)]), run_id)


def _part(run_id: str, request: RunRequest, priority: int | None) -> Part:
    headers = {intake.HEADER_RUN_ID: run_id, intake.HEADER_TYPE: intake.REQUEST_TYPE}
    if priority is not None:
        headers[intake.HEADER_PRIORITY] = str(priority)
    return Part(request.to_bytes(), headers)
