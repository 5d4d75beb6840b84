"""What the merger knows of a run and hands to the process that writes its reports, as one JSON file."""

from typing import Any

from pydantic import Field

from prism.messages.base import Part


class CodedColumn(Part):
    """A column that the model filled.

    Attributes:
        name: as the prompt file calls it.
        shown: as the output calls it.
        model: which of several models filled it; none: the run's only one, or each batch another.
        labels: the prompt's list; None for free text.
        ruled: what the prompt's own rules put there beside.
    """

    name: str
    shown: str
    model: str = ""
    labels: list[str] | None = None
    ruled: list[str] = []


class FileFacts(Part):
    """One file, and where its merged rows are: in the store, or in a published CSV with all columns.

    Neither: nothing is known but the counts. `ranges`: see RunFile.

    Attributes:
        rows: of the input.
        rows_ok, rows_failed, rows_missing: add up to `asked`; missing ones count as failed.
        models: those whose answers stand side by side in each row, in the columns' order.
        model: whose answers these are, where each of several models has a file of its own (a retry).
        file_ids: in the store; of `models` one each.
    """

    label: str
    columns: list[str] = []
    delimiter: str = ","
    ranges: list[tuple[int, int]] = []
    rows: int = 0
    rows_ok: int = 0
    rows_failed: int = 0
    rows_missing: int = 0
    models: list[str] = []
    model: str = ""
    file_ids: list[int] = []
    csv: str | None = None

    @property
    def asked(self) -> int:
        """Answers that were asked for: one for each row, or one for each row and model."""
        return self.rows * max(1, len(self.models))

    @property
    def rows_merged(self) -> int:
        """Answers that have come back, failed ones included."""
        return self.rows_ok + self.rows_failed - self.rows_missing

    def number(self, ordinal: int) -> int:
        """Return the number that the file gives, from 1, to a row that the run numbers from 0."""
        for first, last in self.ranges:
            if ordinal <= last - first:
                return first + ordinal
            ordinal -= last - first + 1
        return ordinal + 1


class Completion(Part):
    """A retry whose rows the run's output has taken in; `working_s`: from its first to its last result."""

    run_id: str
    ok: int
    failed: int
    published_at: str = ""
    working_s: float = 0.0


class Facts(Part):
    """One run. `manifest` is its `run_manifest.json`, with what retries did counted in; paths are absolute.

    `coded`: where every model does every row, each column once for each model, as the output has them.
    `disagreements`: only where models' answers stand side by side.
    """

    run_id: str
    parent: str = ""
    completed_by: list[Completion] = []
    description: str = ""
    batch_size: int = 0
    retries: int = 0
    delay: float = 0.0
    manifest: dict[str, Any]
    coded: list[CodedColumn] = []
    files: list[FileFacts] = []
    warnings: list[str] = []
    missing_reason: str = ""
    timeline: list[tuple[float, int, int, int]] = Field(
        [], description="seconds after the first result; rows, failed rows and tokens until then"
    )
    store: str
    summary: str | None = None
    analytics: str | None = None
    report: str | None = None
    disagreements: str | None = None

    @property
    def models(self) -> list[str]:
        """The models whose answers stand side by side; none where a row has one answer."""
        return next((one.models for one in self.files if one.models), [])

    @property
    def wants_nothing(self) -> bool:
        """Whether the job wants none of the three."""
        return self.summary is None and self.analytics is None and self.report is None
