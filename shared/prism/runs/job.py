"""Job files: what is to be done with the rows of a CSV.

Every scalar of the YAML is read as text (`marked_yaml`) and given its type by the model here. A key that is
none is refused in a file, with its line and the nearest right name: a misspelt key would do nothing, in
silence. In a run's record it is ignored: a newer ingestor may know it.
"""

import difflib
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from prism.runs import marked_yaml
from prism.runs.marked_yaml import MarkedYaml, YamlRefused
from prism.runs.naming import PatternRefused, check_pattern


def _check_folder(folder: str) -> str:
    """Refuse what leads out of the folder that a fleet writes to (`PRISM_OUTPUT_ROOT`)."""
    path = PurePosixPath(folder.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in folder or "\0" in folder:
        raise ValueError("must be a folder below that of the run: relative, and without '..'")
    return folder


Folder: TypeAlias = Annotated[str, Field(max_length=200), AfterValidator(_check_folder)]

# As YAML 1.2 writes "no value".
_NOTHING = ("", "~", "null", "Null", "NULL")
MAX_JOB_BYTES = 100_000


class JobRefused(Exception):
    """A job file that cannot be used: one line with file, key and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_unset(cls, fields: Any) -> Any:
        """A key or a section with nothing behind it (or YAML's null) is as if it were not there."""
        if isinstance(fields, str) and fields in _NOTHING:
            return {}
        if not isinstance(fields, dict):
            return fields
        return {key: value for key, value in fields.items() if not _is_nothing(value)}


class Project(_Section):
    """Names the run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    version: str = Field("v1", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")
    description: str = Field("", max_length=2000, description="for people")


class Model(_Section):
    """Which model answers, and how it is asked."""

    name: str | None = Field(None, description="none: the fleet's own model (OLLAMA_MODEL)")
    batch_size: int = Field(10, ge=1, le=200, description="rows per model call")
    retries: int = Field(3, ge=1, le=20, description="calls that a row may spoil before it fails")
    delay: float = Field(1.0, ge=0, le=600, description="seconds before the second try; doubles, with jitter")


class InputFile(_Section):
    """One file of a run."""

    path: str = Field(min_length=1, max_length=4096, description="relative to the job file's folder")
    label: str | None = Field(None, max_length=255, description="its name in the output; none: the file's")


class RowRange(_Section):
    """Rows of a file by their number, from 1, both ends included."""

    start: int = Field(ge=1)
    end: int = Field(ge=1)

    @model_validator(mode="after")
    def _forward(self) -> "RowRange":
        if self.end < self.start:
            raise ValueError(f"ends at {self.end}, before its start at {self.start}")
        return self


class Parallelization(_Section):
    """How many workers a local fleet has for it, and which rows they take."""

    enabled: bool = Field(True, description="no: one worker, one call at a time")
    workers: int | None = Field(None, ge=1, le=256, description="of a fleet that the run brings up")
    split_strategy: Literal["auto", "manual"] = Field("auto", description="manual: the rows of manual_ranges")
    manual_ranges: list[RowRange] = Field([], max_length=1000)

    @model_validator(mode="after")
    def _apart(self) -> "Parallelization":
        ordered = sorted(self.manual_ranges, key=lambda one: one.start)
        for before, after in pairwise(ordered):
            if after.start <= before.end:
                raise ValueError(f"manual_ranges: row {after.start} stands in two of them")
        if self.split_strategy == "manual" and not ordered:
            raise ValueError("split_strategy is manual, and manual_ranges is empty")
        return self


class Checkpoints(_Section):
    """Part files while the run goes on."""

    directory: Folder = "checkpoints"
    interval: int = Field(1000, ge=1, description="rows per part file")
    cleanup_after_merge: bool = False


class Output(_Section):
    """The published file."""

    directory: Folder = "output"
    naming_pattern: str = "{run_id}_{label}"
    formats: list[Literal["csv", "jsonl", "parquet"]] = Field(["csv"], min_length=1, max_length=3)
    columns: list[str] | None = Field(None, max_length=10_000, description="which are written; none: all")
    checkpoints: Checkpoints = Checkpoints()

    @field_validator("naming_pattern")
    @classmethod
    def _usable(cls, pattern: str) -> str:
        try:
            check_pattern(pattern)
        except PatternRefused as error:
            raise ValueError(str(error)) from None
        return pattern


class ErrorHandling(_Section):
    """What becomes of what fails."""

    strategy: Literal["continue_and_report", "stop"] = Field(
        "continue_and_report", description="stop: the run ends with its first failed row"
    )
    max_worker_retries: int = Field(2, ge=0, le=100, description="starts of a worker that dies")
    save_failed_ranges: bool = True
    prompt_on_failure: bool = Field(True, description="ask on a terminal what to do with failed rows")


class Monitoring(_Section):
    """What is shown and written while a run goes on."""

    status_dir: Folder = "status"
    logs_dir: Folder = "logs"
    dashboard_refresh: float = Field(5.0, gt=0, le=3600, description="seconds")


class Merge(_Section):
    """When and in which order the output is published."""

    auto_merge: bool = Field(True, description="no: the output waits for `prism merge`")
    condition: Literal["all_success", "any_success", "always"] = "all_success"
    sort_by: str | None = Field(None, description="a column of the input; none: the input's order")
    max_failed: str | None = Field(
        None,
        pattern=r"^\d+(\.\d+)?%?$",
        description="withhold an output with more failures: a count, or per cent",
    )

    def allows(self, rows: int, failed: int) -> bool:
        """Return whether `failed` of `rows` is within `max_failed`."""
        if self.max_failed is None:
            return True
        if self.max_failed.endswith("%"):
            return failed * 100 <= float(self.max_failed[:-1]) * rows
        return failed <= float(self.max_failed)


class Prompts(_Section):
    """Where the prompt file is."""

    config_file: str = Field("prompt.json", description="relative to the job file's folder")


class Table(_Section):
    """How the input is written."""

    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = Field(
        "auto", description="auto: by the file's ending, .csv without one"
    )
    delimiter: str = Field(",", pattern='^[^"\\r\\n\\x00\ufeff]$', description="one character between cells")
    columns: dict[str, str] = Field({}, description="columns that are called otherwise: {Message: text}")
    required_columns: list[str] = ["Message"]


class Budget(_Section):
    """What a run may cost; when it is reached nothing more is fed."""

    tokens: int | None = Field(None, ge=1, description="prompt and completion tokens together")
    money: Decimal | None = Field(None, gt=0, description="in the currency of the model's price")


class Job(_Section):
    """One job file."""

    project: Project = Project()
    model: Model = Model()
    input_queue: list[InputFile] = Field([], max_length=1000)
    parallelization: Parallelization = Parallelization()
    output: Output = Output()
    error_handling: ErrorHandling = ErrorHandling()
    merge: Merge = Merge()
    prompts: Prompts = Prompts()
    monitoring: Monitoring = Monitoring()
    table: Table = Table()
    budget: Budget = Budget()
    dedupe: bool = Field(True, description="rows that say the same are asked once")


def parse_job(fields: Any, where: str = "job") -> Job:
    """Return the job in a mapping; what is no key is ignored. Raise JobRefused with the first wrong value."""
    return _parsed(MarkedYaml(fields), where)


def read_job(path: Path) -> tuple[Job, dict[str, Any]]:
    """Return a job file's job, and its fields as written. Raise JobRefused."""
    try:
        text = _read_text(path)
    except FileNotFoundError:
        raise JobRefused(
            f"no job file {path.name} in {path.parent}: put it there or send another `job` header"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobRefused(f"{path.name}: cannot be read: {error}") from None
    try:
        found = marked_yaml.load(text)
    except YamlRefused as error:
        raise JobRefused(f"{_place(path.name, error.line)}: {error}") from None
    if _is_nothing(found.value):
        found.value = {}
    job = _parsed(found, path.name)
    for keys, known in _unknown(found.value, Job, ()):
        raise JobRefused(f"{_place(path.name, found.line(keys))}: {_dotted(keys)}: {_advice(keys, known)}")
    return job, found.value


def _parsed(found: MarkedYaml, where: str) -> Job:
    if not isinstance(found.value, dict):
        raise JobRefused(f"{where}: a job file is a mapping of sections (project, model, …)")
    try:
        return Job.model_validate(found.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = _place(where, found.line(first["loc"]))
        what = f"{first['msg']} (it is {first['input']!r:.80})"
        raise JobRefused(f"{place}: {_dotted(first['loc'])}: {what}") from None


def _place(where: str, line: int) -> str:
    return f"{where}, line {line}" if line else where


def _dotted(keys: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, keys))!s:.100}"


def _advice(keys: tuple[str | int, ...], known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(keys[-1]), known, n=1)
    return f"no such key; {f'did you mean {near[0]}?' if near else 'there are: ' + ', '.join(known)}"


def _unknown(
    fields: Any, section: type[BaseModel], above: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], tuple[str, ...]]]:
    """Yield the paths of keys that are none, each with those that its section has."""
    if not isinstance(fields, dict):
        return
    for key, value in fields.items():
        path = (*above, key)
        if key not in section.model_fields:
            yield path, tuple(section.model_fields)
            continue
        inner = _section_of(section.model_fields[key].annotation)
        for number, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if inner is not None:
                yield from _unknown(item, inner, path if number is None else (*path, number))


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, one or a list of them."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _read_text(path: Path) -> str:
    with path.open("rb") as stream:
        text = stream.read(MAX_JOB_BYTES + 1)
    if len(text) > MAX_JOB_BYTES:
        raise JobRefused(f"{path.name}: more than {MAX_JOB_BYTES} bytes: no job file is so long")
    return text.decode("utf-8-sig")


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in _NOTHING)
