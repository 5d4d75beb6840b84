"""What a worker has to know of a run: its job, its prompt file, and which cells make a prompt row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from prism.annotation import PromptFile, PromptRow
from prism.messages import Batch, RunRecord
from prism.runs.catalogue import ModelEntry, entry_of
from prism.runs.job import Job, parse_job
from prism_model_worker.endpoints import ServerGroup

MESSAGE_COLUMN = "Message"
TITLE_COLUMN = "Title"
SENTIMENT_COLUMN = "Sentiment"

# Rough on purpose: a constant context per run matters more than a tight one (a change reloads the model).
_CHARS_PER_TOKEN = 3
_TOKENS_PER_ROW = 600
_MIN_CONTEXT, _MAX_CONTEXT = 4096, 32_768
_ANSWER_TOKENS_PER_COLUMN = 120


@dataclass
class RunContext:
    """One run, ready to be worked on. The owner thread alone replaces `record`, when its state changes."""

    record: RunRecord
    job: Job
    prompt_file: PromptFile
    model: str
    servers: ServerGroup

    @classmethod
    def of(
        cls, record: RunRecord, default_model: str, servers: Callable[[ModelEntry], ServerGroup]
    ) -> "RunContext":
        """Return the context of a run.

        Raises CatalogueRefused, JobRefused or PromptRefused for what no ingestor accepts.
        """
        job = parse_job(record.job, record.job_name)
        model = job.model.name or default_model
        prompt_file = PromptFile.parse(record.prompt)
        return cls(record, job, prompt_file, model, servers(entry_of(record.model_entry, model)))

    @cached_property
    def num_ctx(self) -> int:
        """Context length in tokens, the same for every call of the run."""
        fixed = len(self.prompt_file.system_prompt) // _CHARS_PER_TOKEN
        wanted = fixed + self.job.model.batch_size * _TOKENS_PER_ROW + self.num_predict
        size = _MIN_CONTEXT
        while size < min(wanted, _MAX_CONTEXT):
            size *= 2
        return size

    @cached_property
    def num_predict(self) -> int:
        """Most tokens of an answer; one that is longer is cut and not accepted."""
        columns = len(self.prompt_file.columns_to_code) + 1
        return 256 + self.job.model.batch_size * columns * _ANSWER_TOKENS_PER_COLUMN

    def prompt_rows(self, batch: Batch, indices: Sequence[int]) -> list[PromptRow]:
        """Return what the model is shown of some rows of a batch."""
        file = self.record.file(batch.label)
        columns = file.columns if file is not None else []
        places = {name: columns.index(name) for name in _SHOWN if name in columns}
        image = self.prompt_file.image_column is not None
        return [
            _prompt_row(batch.rows[index].row_id, batch.rows[index].cells, places, image) for index in indices
        ]

    def photo_cell(self, batch: Batch, index: int) -> str | None:
        """Return the cell that holds a row's photo; None for a run without photos."""
        file, name = self.record.file(batch.label), self.prompt_file.image_column
        if name is None or file is None or name not in file.columns:
            return None
        cells, place = batch.rows[index].cells, file.columns.index(name)
        return cells[place] if place < len(cells) else ""


_SHOWN = (MESSAGE_COLUMN, TITLE_COLUMN, SENTIMENT_COLUMN)


def _prompt_row(row_id: str, cells: Sequence[str], places: dict[str, int], image: bool) -> PromptRow:
    def cell(name: str) -> str | None:
        place = places.get(name)
        return cells[place] if place is not None and place < len(cells) else None

    return PromptRow(
        row_id=row_id,
        title=cell(TITLE_COLUMN) or None,
        message=cell(MESSAGE_COLUMN) or "",
        sentiment=cell(SENTIMENT_COLUMN) or None,
        image=image,
    )
