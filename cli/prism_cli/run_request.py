"""A run into the intake topic: its files first, then the request that makes a run of them.

What was sent before a death is no run: without its request nothing is made of it, and sent again it is the
same run under the same id. Large files that the fleet can read itself are named, not sent.
"""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass

from prism.messages import intake
from prism_cli.connection import Connection
from prism_cli.job_spec import JobSpec, SpecFile
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
    """Send a run; return how many bytes of its files went through the broker. Raises BrokerAway."""
    uris = {
        one.label: one.source.path.resolve().as_uri()
        for one in spec.files
        if by_reference(options, one.source, connection)
    }
    sent = [one for one in spec.files if one.label not in uris]
    # One key for all: they lie in one partition, in this order.
    send(connection, _pieces(spec, run_id, {one.label for one in sent}), run_id)
    send(connection, iter([_request(spec, run_id, uris, options.priority)]), run_id)
    return sum(one.source.size for one in sent)


def _pieces(spec: JobSpec, run_id: str, labels: set[str]) -> Iterator[Part]:
    for number, one in enumerate(spec.files, 1):
        if one.label in labels:
            yield from _file(one, FileEnvelope(run_id, number, one.filename))


def _file(one: SpecFile, envelope: FileEnvelope) -> Iterator[Part]:
    return parts(one.source, envelope, reference=False)


def _request(spec: JobSpec, run_id: str, uris: dict[str, str], priority: int | None) -> Part:
    headers = {intake.HEADER_RUN_ID: run_id, intake.HEADER_TYPE: intake.REQUEST_TYPE}
    if priority is not None:
        headers[intake.HEADER_PRIORITY] = str(priority)
    return Part(spec.request(uris).to_bytes(), headers)
