"""`prism.progress`: what is merged of a run, in absolute counts. Its reader takes credit from it."""

from enum import StrEnum

from pydantic import Field

from prism.messages.base import Message, Part


class MergeState(StrEnum):
    """How far the merger is with a run."""

    MERGING = "merging"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    WITHHELD = "withheld"


class OutputFile(Part):
    """One published file."""

    label: str
    format: str = "csv"
    path: str = Field(description="relative to the merger's folder; empty for a file that lies elsewhere")
    uri: str = ""
    rows: int
    bytes: int
    sha256: str


class FileProgress(Part):
    """What is merged of one file."""

    merged_through: int = Field(0, description="every sequence below this one is merged")
    merged_above: list[tuple[int, int]] = Field(
        default=[], description="merged sequences above it, as [first, last] runs"
    )
    rows_ok: int = 0
    rows_failed: int = 0


class ModelProgress(Part):
    """What one of several models has done of a run."""

    rows_ok: int = 0
    rows_failed: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    digests: list[str] = Field([], description="more than one: the model changed in the middle")


class Progress(Message):
    """One run's merged counts."""

    run_id: str
    state: MergeState = MergeState.MERGING
    detail: str | None = Field(None, description="why an output is withheld, or what publication waits for")
    results_partition: int = 0
    topic_id: str = Field("", description="of prism.results: another id, another topic")
    read_to: int = Field(0, description="next offset to be read of the run's results partition")
    files: dict[str, FileProgress] = {}
    rows_ok: int = 0
    rows_failed: int = 0
    failed_by_reason: dict[str, int] = {}
    calls: int = 0
    repeated_calls: int = Field(
        0, description="of calls: about rows asked about before; repairs, halves, tries"
    )
    extra_calls: int = Field(
        0, description="calls whose answer was already there, and the bound for killed workers"
    )
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    reused_rows: int = Field(0, description="rows answered as others that say the same, without a call")
    model_digests: list[str] = Field(
        [], description="of several models all; of one more than one: it changed in the middle"
    )
    models: dict[str, ModelProgress] = Field({}, description="by name, of a run with several models")
    rows_per_s: float = Field(0.0, description="over the last seconds")
    mean_rows_per_s: float = 0.0
    eta_s: float | None = None
    outputs: list[OutputFile] = []
    labels: dict[str, dict[str, int]] = Field(
        {}, description="how often each label was given, by column; columns of free text are left out"
    )
    reports: list[str] | None = Field(
        None, description="summary, analytics and report, relative to the merger's folder; none: not yet"
    )
    merger: str = ""
    updated_at: str = ""
