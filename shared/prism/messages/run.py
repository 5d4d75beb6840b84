"""`prism.runs`: what a run is, where its source lies, how far it is fed.

Key `RUN` holds the run, key `RUN/cursor` its cursor. Only the active ingestor writes them, with an
epoch that each takeover raises: of two records of one key the one with the higher epoch counts.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from prism.messages.base import Message, Part
from prism.messages.intake import DEFAULT_PRIORITY
from prism.messages.trace import TraceContext

CURSOR_SUFFIX = "/cursor"


class RunState(StrEnum):
    """Where a run stands. `stalled` is no state but a flag beside it."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    PAUSED = "paused"
    MERGING = "merging"
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing is fed any more, for good."""
        return self not in _UNENDED


_UNENDED = {RunState.ACCEPTED, RunState.RUNNING, RunState.PAUSED, RunState.MERGING}


class MessageSource(Part):
    """A CSV that came in the topic, as one message or as chunks in order."""

    kind: Literal["message"] = "message"
    partition: int
    offsets: list[int] = Field(description="of the message, or of its chunks in their order")
    encoding: Literal["gzip"] | None = None


class UriSource(Part):
    """A CSV that lies elsewhere, as it was when the run was accepted."""

    kind: Literal["uri"] = "uri"
    uri: str
    size: int | None = Field(None, description="bytes")
    mtime_ns: int | None = None
    encoding: Literal["gzip"] | None = None


Source = Annotated[MessageSource | UriSource, Field(discriminator="kind")]


class RunFile(Part):
    """One input file of a run. What pass 1 finds out is empty until then."""

    label: str
    origin: str = Field("", description="the input file of which this is what one of several models does")
    model: str = Field("", description="that model; none: the run's own, or its models in turn")
    filename: str = ""
    source: Source
    sha256: str | None = Field(None, description="of the bytes as they came")
    bytes: int = 0
    plain_sha256: str | None = Field(None, description="of the CSV that a source of another format becomes")
    columns: list[str] = []
    delimiter: str = ","
    ranges: list[tuple[int, int]] = Field(
        [], description="first and last of the rows taken, from 1; none: all"
    )
    rows: int = Field(0, description="rows in; each ends as ok or failed")
    batches: int = Field(0, description="sequences 0 … batches-1 are all there is")

    @property
    def input_label(self) -> str:
        """The label of the input file."""
        return self.origin or self.label


class RunRecord(Message):
    """One run, with all that another process needs to go on with it."""

    run_id: str
    epoch: int
    owner: str = Field("", description="the ingestor that wrote this")
    state: RunState
    reason: str | None = Field(None, description="typed reason of `refused` and `failed`")
    detail: str | None = Field(None, description="one line for a person: what, where, what next")
    line: int | None = None
    column: int | None = None
    stalled: str | None = Field(None, description="why nothing moves, while nothing moves")
    job_name: str = ""
    job: dict[str, Any] = {}
    prompt: dict[str, Any] = {}
    model_entry: dict[str, Any] = Field({}, description="the job's model in `models.json`, as it was then")
    model_entries: dict[str, dict[str, Any]] = Field({}, description="of several models, by name")
    files: list[RunFile] = []
    parent: str = Field("", description="the run whose failed rows this one does again")
    merge_asked: bool = Field(False, description="publish although the job says `auto_merge: false`")
    results_partition: int = 0
    priority: int = DEFAULT_PRIORITY
    traceparent: str | None = Field(None, description="W3C: the span under which the run's spans belong")
    tracestate: str | None = None
    created_at: str = ""
    updated_at: str = ""

    @property
    def trace(self) -> TraceContext | None:
        """The trace that the run belongs to; None where nobody traces it."""
        return TraceContext.of(self.traceparent, self.tracestate)

    def in_trace(self, trace: TraceContext | None) -> "RunRecord":
        """Return the run as a part of a trace."""
        if trace is None:
            return self
        return self.model_copy(update={"traceparent": trace.parent, "tracestate": trace.state})

    def file(self, label: str) -> RunFile | None:
        """Return the file of that label."""
        return next((one for one in self.files if one.label == label), None)

    @property
    def rows(self) -> int:
        """Rows in, over all files."""
        return sum(one.rows for one in self.files)


class CutPosition(Part):
    """Where the batch `sequence` begins: enough to cut it again, byte for byte."""

    sequence: int = 0
    ordinal: int = Field(0, description="0-based number among the rows that are taken")
    skipped: int = Field(0, description="rows before it that are not taken")
    offset: int = Field(0, description="byte offset in the plain (inflated) CSV; 0 = after the header")
    line: int = 0


class FileCursor(Part):
    """The two positions of one file, and how often lost batches were fed again."""

    next: CutPosition = CutPosition()
    oldest: CutPosition = CutPosition()
    refed: dict[int, int] = {}


class Cursor(Message):
    """How far a run is fed."""

    run_id: str
    epoch: int
    owner: str = ""
    files: dict[str, FileCursor] = {}
    updated_at: str = ""


def cursor_key(run_id: str) -> str:
    """Return the key of a run's cursor."""
    return run_id + CURSOR_SUFFIX
