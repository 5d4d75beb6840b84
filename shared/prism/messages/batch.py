"""`prism.batches` and `prism.results`: the rows of one model call, and what became of each.

A batch is named run / label / sequence, and a sequence names a fixed row range forever. A result
carries every original cell, so that whoever merges needs nothing but it and the run.
"""

from pydantic import Field

from prism.messages.base import Message, Part


def batch_id(run_id: str, label: str, sequence: int) -> str:
    """Return the name of a batch."""
    return f"{run_id}/{label}/{sequence}"


class BatchRow(Part):
    """One row as it came, or as it was rejected before any model saw it."""

    row_id: str
    cells: list[str]
    rejected: str | None = Field(None, description="a RowReason: this row is not sent to a model")


class Batch(Message):
    """The rows of one model call."""

    run_id: str
    label: str
    sequence: int
    first_row: int = Field(description="0-based number of the first row in its file")
    fed: int = Field(1, description="how many times this sequence has been fed")
    rows: list[BatchRow]

    @property
    def id(self) -> str:
        """The batch's name, the same at every feeding."""
        return batch_id(self.run_id, self.label, self.sequence)


class ResultRow(Part):
    """What became of one row: values, or a reason."""

    row_id: str
    cells: list[str]
    values: list[str] | None = Field(None, description="in the order of the prompt's columns_to_code")
    reason: str | None = Field(None, description="a RowReason; then there are no values")
    detail: str | None = None
    warnings: list[str] = []


class Usage(Part):
    """What the model calls of one batch took."""

    calls: int = 0
    repeated_calls: int = Field(
        0, description="of calls: about rows asked about before; repairs, halves, tries"
    )
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    load_seconds: float = Field(0.0, description="of model_seconds: spent on loading the model")
    reused_rows: int = Field(0, description="rows answered as others that say the same, without a call")


class Result(Message):
    """The outcome of each row of one batch, in the batch's order."""

    run_id: str
    label: str
    sequence: int
    first_row: int
    rows: list[ResultRow]
    model: str = ""
    model_digest: str = ""
    batch_size: int = Field(0, description="the job's rows per call")
    usage: Usage = Usage()
    worker_id: str = ""
    finished_at: str = ""

    @property
    def id(self) -> str:
        """The name of the batch that this answers."""
        return batch_id(self.run_id, self.label, self.sequence)
