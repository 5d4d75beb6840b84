"""A job file as `prism run` takes it: its prompt, its model's entry and its input files found and examined.

Paths of a job are relative to its own folder, or else to where the command runs, as PRISM v6 had them.
"""

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from prism.annotation.prompt_file import PromptFile, PromptRefused
from prism.annotation.strict_json import NotStrictJson, load_strictly
from prism.conversion import stem_of
from prism.messages import FileReason, RequestedFile, RunFile, RunRecord, RunRequest, UriSource
from prism.runs.catalogue import Catalogue, ModelEntry, read_catalogue
from prism.runs.config_files import find_catalogue, find_settings
from prism.runs.job import InputFile, Job, parse_job, read_job
from prism.runs.models import recorded_entries, tag_of
from prism.runs.naming import clean_label, is_run_id
from prism.runs.project_settings import read_settings, with_settings
from prism.runs.ranges import RowRanges, ranges_of
from prism.runs.sameness import difference
from prism.tables import TableRefused, open_source
from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, USAGE, CommandFailed
from prism_cli.submission import Source, examine

MAX_PROMPT_BYTES = 1_000_000
_GLOB = "*?["
# What a folder of inputs may hold beside others' files.
_INPUT_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class SpecFile:
    """One input file, read through once for its checksum."""

    label: str
    source: Source
    ranges: RowRanges

    @property
    def filename(self) -> str:
        """The file's name as text; what is none of a name in other bytes is replaced."""
        return _as_text(self.source.path.name)[:255]

    def requested(self, uri: str | None) -> RequestedFile:
        """Return the file as a request names it."""
        return RequestedFile(
            label=self.label,
            filename=self.filename,
            sha256=self.source.sha256,
            uri=uri,
            encoding="gzip" if uri and self.source.encoding == "gzip" else None,
            ranges=self.ranges,
        )


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job with all that a run of it needs. `fields` is the job as it is sent."""

    path: Path
    job: Job
    fields: dict[str, Any]
    prompt: dict[str, Any]
    catalogue: Catalogue
    files: tuple[SpecFile, ...]
    parent: str = ""

    @property
    def name(self) -> str:
        """The job's name in messages: its file's."""
        return _as_text(self.path.stem)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """What `models.json` says of the job's models; none for the fleet's own."""
        return tuple(self.catalogue.entry(name) for name in self.job.model.chosen if name)

    def with_model(self, name: str) -> "JobSpec":
        """Return the same job with another model."""
        fields = merged(self.fields, {"model": _one_model(name)})
        return replace(self, fields=fields, job=parse_job(fields, self.path.name))

    def request(self, uris: Mapping[str, str]) -> RunRequest:
        """Return the run request. uris: of the files that the fleet reads where they lie, by label."""
        return RunRequest(
            job_name=self.name[:255],
            job=self.fields,
            prompt=self.prompt,
            **recorded_entries(self.catalogue, self.job.model),
            files=[one.requested(uris.get(one.label)) for one in self.files],
            parent=self.parent,
        )

    def difference(self, known: RunRecord) -> str | None:
        """Return what differs between this job and a run that is there; None if nothing does."""
        nowhere = UriSource(uri="")
        files = [
            RunFile(
                label=clean_label(one.label), source=nowhere, filename=one.filename,
                sha256=one.source.sha256, ranges=one.ranges,
            )
            for one in self.files
        ]  # fmt: skip
        return difference(known, self.fields, self.prompt, files)


def read_spec(path: Path, options: Namespace) -> JobSpec:
    """Return a job file's job, the options' changes applied, with its files examined.

    Raises CommandFailed (3), JobRefused and PromptRefused for what cannot be used.
    """
    if not os.path.isfile(path):
        raise CommandFailed(BAD_INPUT, "no such job file", printable(str(path)), "make one: prism init FILE")
    return spec_of(path, read_job(path)[1], options)


def spec_of(
    path: Path, fields: Mapping[str, Any], options: Namespace, prompt: dict[str, Any] | None = None
) -> JobSpec:
    """Return the job of a file's fields, whether or not it is written yet; `prompt`: instead of its file's.

    Raises CommandFailed (3), JobRefused and PromptRefused for what cannot be used.
    """
    fields = with_settings(fields, read_settings(find_settings(path)))
    fields = merged(fields, _overrides(options))
    job = parse_job(fields, path.name)
    if not job.input_queue:
        raise CommandFailed(
            BAD_INPUT, "input_queue names no file", path.name, "add `input_queue: [{path: data.csv}]`"
        )
    ranges = options.rows or ranges_of(job)
    files = tuple(SpecFile(label, examine(one), ranges) for label, one in _inputs(job, path.parent))
    prompt = read_prompt(job, path.parent) if prompt is None else prompt
    return JobSpec(path, job, fields, prompt, catalogue_of(path), files)


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's fields with some changed, section by section."""
    found = dict(fields)
    for key, value in changes.items():
        inner = found.get(key)
        found[key] = (
            merged(inner if isinstance(inner, Mapping) else {}, value)
            if isinstance(value, Mapping)
            else value
        )
    return found


def _overrides(options: Namespace) -> dict[str, Any]:
    found: dict[str, dict[str, str | None]] = {}
    if options.version is not None:
        found["project"] = {"version": options.version}
    if options.workers is not None:
        found["parallelization"] = {"workers": str(options.workers)}
    if options.model is not None:
        found["model"] = _one_model(options.model)
    return found


def _one_model(name: str) -> dict[str, str | None]:
    """Return what makes a job one of this model, whatever it says."""
    return {"name": name, "names": None}


def new_run_id(spec: JobSpec, now: datetime) -> str:
    """Return `{project}_{version}_m{tag}_{time}`, as PRISM v6 names runs. Raise CommandFailed (2)."""
    project, tag = spec.job.project, tag_of(spec.job.model, spec.catalogue)
    run_id = f"{project.name}_{project.version}_m{tag}_{now:%Y%m%d_%H%M%S}"
    if not is_run_id(run_id):
        raise CommandFailed(USAGE, f"{run_id} is too long for a run id", next="give one: --run-id ID")
    return run_id


def read_prompt(job: Job, folder: Path) -> dict[str, Any]:
    """Return the job's prompt file as it is written. Raises CommandFailed (3)."""
    path = _found(job.prompts.config_file, folder)
    try:
        with open_source(path) as stream:
            text = stream.read(MAX_PROMPT_BYTES + 1)
        if len(text) > MAX_PROMPT_BYTES:
            raise ValueError(f"more than {MAX_PROMPT_BYTES} bytes")
        PromptFile.parse(text)
        return dict(load_strictly(text.decode("utf-8-sig").strip()))
    except TableRefused as error:
        what = "no such prompt file" if error.reason is FileReason.NOT_FOUND else "the prompt is no file"
        raise CommandFailed(
            BAD_INPUT, what, printable(str(path)), "see prompts.config_file in the job"
        ) from None
    except (OSError, ValueError, NotStrictJson, PromptRefused) as error:
        raise CommandFailed(BAD_INPUT, printable(str(error)), printable(str(path))) from None


def catalogue_of(path: Path) -> Catalogue:
    """Return the `models.json` that holds for a job file. Raises CatalogueRefused."""
    found = find_catalogue(path)
    return Catalogue() if found is None else read_catalogue(found.parent)


def _inputs(job: Job, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the input files with their labels, folders and patterns expanded. Raises CommandFailed (3)."""
    labels: dict[str, Path] = {}
    for one in job.input_queue:
        paths = list(_expanded(one, folder))
        for path in paths:
            label = one.label or stem_of(path.name)
            if one.label and len(paths) > 1:
                label = f"{one.label}_{stem_of(path.name)}"
            label = clean_label(label)
            if label in labels:
                raise CommandFailed(
                    BAD_INPUT,
                    f"{printable(str(path))} and {printable(str(labels[label]))} have the label {label}",
                    "input_queue",
                    "give each a label of its own",
                )
            labels[label] = path
    yield from labels.items()


def _expanded(one: InputFile, folder: Path) -> Iterator[Path]:
    path = _found(one.path, folder)
    if os.path.isdir(path):
        found = sorted(inner for inner in path.iterdir() if _is_input(inner))
    elif any(mark in one.path for mark in _GLOB) and not os.path.exists(path):
        found = list(dict.fromkeys(inner.resolve() for inner in _matching(one.path, folder)))
    else:
        found = [path]
    if not found:
        raise CommandFailed(
            BAD_INPUT, "no input file there", printable(one.path), "see input_queue in the job"
        )
    yield from found


def _matching(pattern: str, folder: Path) -> list[Path]:
    """Return what a pattern matches: beside the job, or else from here. Raises CommandFailed (3)."""
    wanted = _at_home(pattern)
    places = (Path(wanted.anchor),) if wanted.is_absolute() else (folder, Path())
    try:
        relative = str(wanted.relative_to(wanted.anchor))
        found = (sorted(one for one in place.glob(relative) if one.is_file()) for place in places)
        return next((one for one in found if one), [])
    except ValueError as error:
        raise CommandFailed(
            BAD_INPUT, f"no usable pattern: {error}", printable(pattern), "see input_queue in the job"
        ) from None


def _is_input(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return path.is_file() and not path.name.startswith(".") and name.endswith(_INPUT_ENDINGS)


def _as_text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _found(path: str, folder: Path) -> Path:
    """Return where a job's path leads: from its own folder, or else from here."""
    wanted = _at_home(path)
    beside = folder / wanted
    return beside if os.path.exists(beside) or not os.path.exists(wanted) else wanted


def _at_home(path: str) -> Path:
    """Return a job's path with `~` resolved. Raises CommandFailed (3) for what can be no path."""
    try:
        if "\0" in path:
            raise RuntimeError("a NUL is in it")
        return Path(path).expanduser()
    except RuntimeError as error:
        raise CommandFailed(
            BAD_INPUT, f"no usable path: {error}", printable(path), "correct it in the job"
        ) from None
