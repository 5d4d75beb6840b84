"""What the merger knows of a run and hands to the process that writes its reports, as one JSON file."""

from typing import Any

from pydantic import Field

from prism.messages.base import Part


class CodedColumn(Part):
    """A column that the model filled.

    Attributes:
        name: as the prompt file calls it.
        shown: as the output calls it.
        labels: the prompt's list; None for free text.
        ruled: what the prompt's own rules put there beside.
    """

    name: str
    shown: str
    labels: list[str] | None = None
    ruled: list[str] = []


class FileFacts(Part):
    """One file, and where its merged rows are: in the store, or in a published CSV with all columns.

    Neither: nothing is known but the counts. `ranges`: see RunFile.
    """

    label: str
    columns: list[str] = []
    delimiter: str = ","
    ranges: list[tuple[int, int]] = []
    rows: int = 0
    rows_ok: int = 0
    rows_failed: int = 0
    rows_missing: int = 0
    file_id: int | None = None
    csv: str | None = None

    @property
    def rows_merged(self) -> int:
        """Rows that have come back."""
        return self.rows_ok + self.rows_failed - self.rows_missing

    def number(self, ordinal: int) -> int:
        """Return the number that the file gives, from 1, to a row that the run numbers from 0."""
        for first, last in self.ranges:
            if ordinal <= last - first:
                return first + ordinal
            ordinal -= last - first + 1
        return ordinal + 1


class Facts(Part):
    """One run. `manifest` is its `run_manifest.json`; paths are absolute."""

    run_id: str
    parent: str = ""
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

    @property
    def wants_nothing(self) -> bool:
        """Whether the job wants none of the three."""
        return self.summary is None and self.analytics is None and self.report is None
