"""Which of a run's models answers for which rows.

`fanout`: every model does every row. Each input file becomes one file of the run for each model (its
variants, see `RunFile`), which are fed, answered, merged and done again on their own, as any other file; only
what is published is one file again, with the models' columns side by side.
`split`: the batches of a file go to the models in turn, by their sequence: the same rows to the same model,
however often they are fed.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from prism.messages import RunFile, RunRecord
from prism.runs.catalogue import Catalogue, ModelEntry, entry_of
from prism.runs.job import Job, Model
from prism.runs.naming import clean_label, model_tag, models_tag


def recorded_entries(catalogue: Catalogue, model: Model) -> dict[str, Any]:
    """Return what a run's record keeps of `models.json`: `model_entry`, of several models `model_entries`."""
    if model.several:
        return {"model_entries": {name: _dumped(catalogue.entry(name)) for name in model.names}}
    name = model.only
    return {"model_entry": _dumped(catalogue.entry(name)) if name else {}}


def _dumped(entry: ModelEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_defaults=True)


def entries(record: RunRecord, job: Job) -> tuple[ModelEntry, ...]:
    """Return the entry of each of a run's models, as it was at acceptance. Raises CatalogueRefused."""
    return tuple(entry_for(record, job, name) for name in job.model.chosen)


def entry_for(record: RunRecord, job: Job, name: str | None) -> ModelEntry:
    """Return the entry of one of a run's models, under the name that the job has. Raises CatalogueRefused."""
    if not job.model.several:
        return entry_of(record.model_entry, name)
    # What counts and columns go by is the job's name: `models.json` may have it with its tag.
    return entry_of(record.model_entries.get(name or "", {}), name).model_copy(update={"name": name})


def model_of(job: Job, file: RunFile, sequence: int) -> str | None:
    """Return which model answers for a batch of a file; None: the fleet's own."""
    if file.model:
        return file.model
    chosen = job.model.chosen
    return chosen[sequence % len(chosen)]


def tag_of(model: Model, catalogue: Catalogue) -> str:
    """Return what stands for a run's models in its id."""
    tags = [model_tag(name, catalogue.entry(name).id if name else None) for name in model.chosen]
    return models_tag(tags, model.chosen)


def fan_out(file: RunFile, job: Job, entries_: Sequence[ModelEntry]) -> list[RunFile]:
    """Return what a run feeds of an input file: itself, or its variants for each of several models."""
    if file.model or not job.model.fans_out:
        return [file]
    tags = _tags(entries_)
    return [_variant(file, one.name, tag) for one, tag in zip(entries_, tags, strict=True)]


def _variant(file: RunFile, model: str, tag: str) -> RunFile:
    label = clean_label(f"{file.label}.{tag}")
    return file.model_copy(update={"label": label, "origin": file.label, "model": model})


def _tags(entries_: Sequence[ModelEntry]) -> list[str]:
    tags: list[str] = []
    for number, entry in enumerate(entries_, 1):
        tag = model_tag(entry.name, entry.id)
        tags.append(tag if tag not in tags else f"{tag}-{number}")
    return tags


def inputs(record: RunRecord) -> list[RunFile]:
    """Return the files that a run was asked for: its variants put together again.

    A retry was asked for the variants that have failed rows.
    """
    if record.parent:
        return list(record.files)
    found: dict[str, RunFile] = {}
    for one in record.files:
        bare = one.model_copy(update={"label": one.input_label, "origin": "", "model": ""})
        found.setdefault(bare.label, bare)
    return list(found.values())


def share_a_server(entries_: Sequence[ModelEntry]) -> bool:
    """Return whether two of a run's models are of one Ollama, which may have room for one of them only."""
    ours = [one for one in entries_ if one.backend == "ollama"]
    servers = [frozenset(url.rstrip("/") for url in one.base_url) or _DEFAULT for one in ours]
    return any(one & other for one, other in combinations(servers, 2))


# The server of a model without a `base_url`.
_DEFAULT = frozenset({""})
