"""Requested runs while they come in: the request, and those of its files that travel in the topic.

A request and its files may come in any order and in any partitions. None of them counts as read before the
run is written: until then a death makes whoever is next read them all again.
"""

from dataclasses import dataclass, field

from prism.messages import (
    BadMessage,
    FileReason,
    MessageSource,
    RequestedFile,
    RunFile,
    RunRequest,
    UriSource,
)
from prism.messages.topics import MIB
from prism.runs.naming import clean_label
from prism.runs.ranges import RangesRefused, RowRanges, ordered

Place = tuple[int, int]

# Before anything is parsed: requests wait in memory for their files, and take many times their bytes there.
MAX_REQUEST_BYTES = 8 * MIB


class RequestRefused(Exception):
    """A request that no run can be made of, in one line."""

    def __init__(self, reason: FileReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Requested:
    """What has come of one requested run. `places`: partition and offset of every record of it."""

    last_at: float
    # As it came: parsed, it takes a dozen times its bytes, and many may wait for their files.
    value: bytes | None = None
    in_topic: tuple[int, ...] = ()
    total: int = 0
    priority: str | None = None
    files: dict[int, MessageSource] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)

    def asked(self, request: RunRequest, value: bytes | None) -> None:
        """Take in the request: as it came, and what of it is needed while its files come."""
        self.value, self.total = value, len(request.files)
        self.in_topic = tuple(number for number, one in enumerate(request.files, 1) if one.uri is None)

    @property
    def request(self) -> RunRequest | None:
        """The request, parsed anew; None before it has come."""
        return None if self.value is None else parse_request(self.value)

    def came(self, number: int, source: MessageSource) -> None:
        """Take in one file; the last of a number counts: what came before is of a sender that has died."""
        self.files[number] = source

    @property
    def awaited(self) -> list[int]:
        """The numbers of the files that have not come; all are unknown before the request."""
        return [number for number in self.in_topic if number not in self.files]

    @property
    def complete(self) -> bool:
        """Whether the run can be made."""
        return self.value is not None and not self.awaited

    def missing(self) -> str:
        """Return what did not come, in words."""
        if self.value is None:
            return f"{len(self.files)} files came, the request that names the job did not"
        return f"file {self.awaited[0]} of {self.total} did not come"


def parse_request(value: bytes | None) -> RunRequest:
    """Return a request. Raise RequestRefused."""
    if value is not None and len(value) > MAX_REQUEST_BYTES:
        detail = f"the request takes {len(value)} bytes, at most {MAX_REQUEST_BYTES}"
        raise RequestRefused(FileReason.TOO_LARGE, detail)
    try:
        found = RunRequest.parse(value)
    except BadMessage as error:
        raise RequestRefused(FileReason.BAD_REQUEST, str(error)) from None
    labels = [clean_label(one.label) for one in found.files]
    twice = next((one for one in labels if labels.count(one) > 1), None)
    if twice is not None:
        raise RequestRefused(FileReason.BAD_REQUEST, f"two files have the label {twice}")
    return found


def run_files(request: RunRequest, requested: Requested, job_ranges: RowRanges) -> list[RunFile]:
    """Return the files of a complete request. Raise RequestRefused."""
    return [
        # What lies in the topic of a file that is named is of a sender that has died.
        _run_file(one, requested.files.get(number) if one.uri is None else None, job_ranges)
        for number, one in enumerate(request.files, 1)
    ]


def _run_file(one: RequestedFile, source: MessageSource | None, job_ranges: RowRanges) -> RunFile:
    try:
        ranges = ordered(one.ranges) or job_ranges
    except RangesRefused as error:
        raise RequestRefused(FileReason.BAD_REQUEST, f"{one.label}: {error}") from None
    return RunFile(
        label=clean_label(one.label),
        filename=one.filename,
        source=source if source is not None else UriSource(uri=one.uri or "", encoding=one.encoding),
        sha256=one.sha256,
        ranges=ranges,
    )
