"""What a worker has to know of a run: its job, its prompt file, and which cells make a prompt row.

A run with several models has a context for each: their servers, and what a server reloads a model for, are
not the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from prism.annotation import PromptFile, PromptRow
from prism.messages import Batch, RunRecord
from prism.runs.catalogue import ModelEntry
from prism.runs.job import Job, JobRefused, parse_job
from prism.runs.models import entry_for, model_of
from prism.service.logs import get_logger
from prism_model_worker.endpoints import Endpoints, ServerGroup

log = get_logger(__name__)

MESSAGE_COLUMN = "Message"
TITLE_COLUMN = "Title"
SENTIMENT_COLUMN = "Sentiment"

# Rough on purpose: a constant context per run matters more than a tight one (a change reloads the model).
_CHARS_PER_TOKEN = 3
_TOKENS_PER_ROW = 600
_MIN_CONTEXT, _MAX_CONTEXT = 4096, 32_768
_ANSWER_TOKENS_PER_COLUMN = 120
# A heartbeat is a small message.
TOLD_OUT_OF_QUOTA = 100


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
        cls,
        record: RunRecord,
        default_model: str,
        servers: Callable[[ModelEntry], ServerGroup],
        name: str | None = None,
    ) -> "RunContext":
        """Return the context of a run and of one of its models; `name`: which of several.

        Raises CatalogueRefused, JobRefused or PromptRefused for what no ingestor accepts.
        """
        job = parse_job(record.job, record.job_name)
        model = name or job.model.only or default_model
        prompt_file = PromptFile.parse(record.prompt)
        return cls(record, job, prompt_file, model, servers(entry_for(record, job, model)))

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


# A run's models, each with its servers.
Wanted = frozenset[tuple[ServerGroup, str]]


def _out_of_quota(wanted: Wanted) -> bool:
    closed = [(servers, model) for servers, model in wanted if not servers.may_call(model)]
    return bool(closed) and all(servers.out_of_quota(model) for servers, model in closed)


class RunContexts:
    """The contexts of the runs that batches have come of. Of the owner thread; others may list them."""

    def __init__(self, default_model: str, endpoints: Endpoints) -> None:
        self._default_model = default_model
        self._endpoints = endpoints
        # Of each run, by model.
        self._known: dict[str, dict[str, RunContext]] = {}
        # Of each run that has not ended; replaced as a whole, for others read it.
        self._wanted: dict[str, Wanted] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._known

    def all(self) -> list[RunContext]:
        """Return every context."""
        return [one for by_model in list(self._known.values()) for one in by_model.values()]

    def of(self, record: RunRecord, batch: Batch) -> RunContext | None:
        """Return the context of a batch's run and model; None if the run has no such file, or model.

        Raises what RunContext.of does.
        """
        file = record.file(batch.label)
        if file is None:
            return None
        if record.run_id not in self._known:
            self._known[record.run_id] = self._made(record)
        by_model = self._known[record.run_id]
        job = next(iter(by_model.values())).job
        return by_model.get(model_of(job, file, batch.sequence) or self._default_model)

    def wanted_models(self) -> frozenset[str]:
        """Return the worker's own model and those of runs that have not ended. Any thread may ask."""
        own = frozenset([self._default_model] if self._default_model else [])
        return own.union(model for wanted in list(self._wanted.values()) for _, model in wanted)

    def out_of_quota(self) -> list[str]:
        """Return the runs that wait for a used-up quota and for no other fault, as many as are told."""
        found = (run_id for run_id, wanted in self._wanted.items() if _out_of_quota(wanted))
        return list(islice(found, TOLD_OUT_OF_QUOTA))

    def _made(self, record: RunRecord) -> dict[str, RunContext]:
        job = parse_job(record.job, record.job_name)
        made = [
            RunContext.of(record, self._default_model, self._endpoints.group, name)
            for name in job.model.chosen
        ]
        for one in made:
            self._endpoints.watch(one.servers, one.model)
        return {one.model: one for one in made}

    def take_in(self, record: RunRecord) -> None:
        """Replace what is known of a run; forget one that is published."""
        for one in self._known.get(record.run_id, {}).values():
            one.record = record
        if is_published(record):
            self._known.pop(record.run_id, None)

    def watch_models(self, record: RunRecord) -> None:
        """Watch the models of a run that may bring batches: one that is there makes a worker ready."""
        if record.state.ended:
            self._wanted = {run: models for run, models in self._wanted.items() if run != record.run_id}
        if record.state.ended or not record.prompt:
            return
        try:
            job = parse_job(record.job)
            models = {name or self._default_model for name in job.model.chosen}
            wanted = frozenset((self._endpoints.group(entry_for(record, job, one)), one) for one in models)
            for servers, model in wanted:
                self._endpoints.watch(servers, model)
            self._wanted = {**self._wanted, record.run_id: wanted}
        except (JobRefused, ValueError) as error:
            log.warning("job_not_read", run_id=record.run_id, error=error)


def is_published(record: RunRecord) -> bool:
    """Return whether nothing of a run is wanted any more."""
    return record.state.value.startswith("completed")
