"""Job files: what is to be done with the rows of a CSV.

Every scalar of the YAML is read as text (`marked_yaml`) and given its type by the model here. A key that is
none is refused in a file, with its line and the nearest right name: a misspelt key would do nothing, in
silence. In a run's record it is ignored: a newer ingestor may know it.
"""

import re
from decimal import Decimal
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

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
from prism.runs.keys import is_nothing, nearest_key, problem, unknown_keys
from prism.runs.marked_yaml import MarkedYaml, YamlRefused
from prism.runs.naming import PatternRefused, check_pattern, full_model_name


def _check_folder(folder: str) -> str:
    """Refuse what leads out of the folder that a fleet writes to (`PRISM_OUTPUT_ROOT`)."""
    path = PurePosixPath(folder.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in folder or "\0" in folder:
        raise ValueError("must be a folder below that of the run: relative, and without '..'")
    return folder


Folder: TypeAlias = Annotated[str, Field(max_length=200), AfterValidator(_check_folder)]

_URI = re.compile(r"[a-z][a-z0-9+.-]{0,31}://[^\s\\?#\x00-\x1f]+")


def _check_destination(place: str) -> str:
    """Let through a folder below that of the run, or a URI without secrets in it."""
    if "://" not in place:
        return _check_folder(place)
    if not _URI.fullmatch(place) or "::" in place or ".." in place.split("/"):
        raise ValueError("must be a folder, or a URI such as s3://bucket/folder")
    if "@" in place:
        raise ValueError("a URI has no credentials in it: they belong into the merger's environment")
    return place


Destination: TypeAlias = Annotated[str, Field(max_length=1000), AfterValidator(_check_destination)]

MAX_JOB_BYTES = 100_000


class JobRefused(Exception):
    """A job file that cannot be used: one line with file, key and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_unset(cls, fields: Any) -> Any:
        """A key or a section with nothing behind it (or YAML's null) is as if it were not there."""
        if is_nothing(fields):
            return {}
        if not isinstance(fields, dict):
            return fields
        return {key: value for key, value in fields.items() if not is_nothing(value)}


class Project(_Section):
    """Names the run: run ids are `{project}_{version}_m{model tag}_{timestamp}`."""

    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="the project: letters, digits, `_` and `-`, at most 64",
        examples=["customer_feedback"],
    )
    version: str = Field(
        "v1",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$",
        description="raise it when prompt or columns change: letters, digits, `_`, `.` and `-`, at most 32",
    )
    description: str = Field(
        "",
        max_length=2000,
        description="for people: what is asked, and why",
        examples=["Classify customer feedback by topic and sentiment"],
    )


class Model(_Section):
    """Which model answers, and how it is asked."""

    name: str | None = Field(
        None,
        description="as its server knows it; unset: the fleet's own model (`OLLAMA_MODEL`)",
        examples=["llama3.2"],
    )
    names: list[Annotated[str, Field(max_length=200, pattern=r"^[^\s,\x00-\x1f\x7f]+$")]] = Field(
        [],
        max_length=8,
        description='several models instead of one `name`, such as `["llama3.2", "qwen2.5"]`; see `mode`',
    )
    mode: Literal["fanout", "split"] = Field(
        "fanout",
        description=(
            "what several models do. `fanout`: each does every row, and the output has their columns side by "
            "side; `split`: each does its share, the batches in turn"
        ),
    )
    batch_size: int = Field(
        10, ge=1, le=200, description="rows per model call: few are more accurate, many are faster"
    )
    retries: int = Field(
        3, ge=1, le=20, description="calls that a row on its own may spoil before it is a failed row"
    )
    delay: float = Field(
        1.0,
        ge=0,
        le=600,
        description="seconds before the second try of a row; doubles with each further one, with jitter",
        examples=[5],
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> "Model":
        if self.name and self.names:
            raise ValueError("name and names: give one of the two")
        names = [full_model_name(one) for one in self.names]
        twice = next(
            (one for one, name in zip(self.names, names, strict=True) if names.count(name) > 1), None
        )
        if twice is not None:
            raise ValueError(f"names: {twice!r} stands there twice")
        return self

    @property
    def chosen(self) -> tuple[str | None, ...]:
        """The models that are asked, one at least; None is the fleet's own."""
        return tuple(self.names) or (self.name,)

    @property
    def several(self) -> bool:
        """Whether more than one model is asked."""
        return len(self.names) > 1

    @property
    def only(self) -> str | None:
        """The model of a run that has one, None for the fleet's own; of several the first."""
        return self.chosen[0]

    @property
    def fans_out(self) -> bool:
        """Whether each of several models does every row."""
        return self.several and self.mode == "fanout"


class InputFile(_Section):
    """One file of a run."""

    path: str = Field(
        min_length=1,
        max_length=4096,
        description="where it is, relative to the job file's folder",
        examples=["data/feedback_q1.csv"],
    )
    label: str | None = Field(
        None,
        max_length=255,
        description="its name in outputs and reports; unset: the file's name without its ending",
        examples=["q1_feedback"],
    )


class RowRange(_Section):
    """Rows of a file by their number, from 1, both ends included."""

    start: int = Field(ge=1, description="number of the first row, from 1", examples=[1])
    end: int = Field(ge=1, description="number of the last row, itself included", examples=[500])

    @model_validator(mode="after")
    def _forward(self) -> "RowRange":
        if self.end < self.start:
            raise ValueError(f"ends at {self.end}, before its start at {self.start}")
        return self


class Parallelization(_Section):
    """How many workers a local fleet has for the run, and which rows are taken."""

    enabled: bool = Field(True, description="`false`: one worker, one call at a time")
    workers: int | None = Field(
        None,
        ge=1,
        le=256,
        description="model workers of a fleet that the run brings up; a fleet that is there keeps its own",
        examples=[4],
    )
    split_strategy: Literal["auto", "manual"] = Field(
        "auto", description="`auto`: all rows; `manual`: only the rows of `manual_ranges`"
    )
    manual_ranges: list[RowRange] = Field(
        [],
        max_length=1000,
        description="rows to take when `split_strategy` is `manual`, without overlaps",
        examples=[[{"start": 1, "end": 500}, {"start": 501, "end": 1000}]],
    )

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
    """Part files: rows that are done already, while the run goes on."""

    directory: Folder = Field("checkpoints", description="where part files are kept, in a folder per run")
    interval: int = Field(1000, ge=1, description="rows per part file", examples=[25])
    cleanup_after_merge: bool = Field(
        False, description="`true`: part files are removed once the output is published"
    )


class Output(_Section):
    """The published files."""

    directory: Destination = Field(
        "output", description="where outputs are published: a folder, or a place like `s3://…`"
    )
    naming_pattern: str = Field(
        "{run_id}_{label}",
        description="their names, of `{project} {version} {label} {date} {run_id}` and text; no folders",
    )
    formats: list[Literal["csv", "jsonl", "parquet"]] = Field(
        ["csv"], min_length=1, max_length=3, description="what is written, one or several"
    )
    columns: list[str] | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        description="which columns are written, in this order; unset: all",
        examples=[["RowID", "Topic", "Key_Point"]],
    )
    checkpoints: Checkpoints = Checkpoints()

    @field_validator("naming_pattern")
    @classmethod
    def _usable(cls, pattern: str) -> str:
        try:
            check_pattern(pattern)
        except PatternRefused as error:
            raise ValueError(str(error)) from None
        return pattern

    @field_validator("formats", "columns")
    @classmethod
    def _once(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            if (names or []).count(name) > 1:
                raise ValueError(f"{name!r} stands there twice")
        return names

    @property
    def uri(self) -> str | None:
        """Where outputs go that do not stay in a folder of the merger's; None where they do."""
        return self.directory.rstrip("/") if "://" in self.directory else None


class ErrorHandling(_Section):
    """What becomes of what fails."""

    strategy: Literal["continue_and_report", "stop"] = Field(
        "continue_and_report",
        description="`continue_and_report`: other rows go on; `stop`: the run ends with its first failed row",
    )
    max_worker_retries: int = Field(
        2, ge=0, le=100, description="how often a local worker that dies is started again"
    )
    save_failed_ranges: bool = Field(
        True, description="write `failed_ranges.json` and `failed_rows.csv` when rows failed"
    )
    prompt_on_failure: bool = Field(
        True, description="ask on a terminal what to do with failed rows; elsewhere `merge` decides"
    )


class Monitoring(_Section):
    """What is shown and written while a run goes on."""

    status_dir: Folder = Field("status", description="where `RUN/worker_N.json` tell what each worker does")
    logs_dir: Folder = Field(
        "logs", description="where `RUN/run_manifest.json`, logs and summaries are written"
    )
    dashboard_refresh: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="seconds between two pictures of the dashboard, and two writings of the status files; "
        "unset: 0.5 and 5",
        examples=[5],
    )
    save_terminal_logs: bool = Field(True, description="write `RUN/run_RUN.log`, a line per event")
    create_summaries: bool = Field(
        True,
        description="write `RUN/summary_RUN.md` and `RUN/report_RUN.html` when the run has ended, of several "
        "models that each do every row `RUN/disagreements.csv` too",
    )
    create_analytics: bool = Field(True, description="write `RUN/analytics_RUN.csv` when the run has ended")


class Merge(_Section):
    """When and in which order the output is published."""

    auto_merge: bool = Field(True, description="`false`: the output waits for `prism merge`")
    condition: Literal["all_success", "any_success", "always"] = Field(
        "all_success",
        description=(
            "`all_success`: when every row has its record, failed ones included; `any_success`: the same, "
            "if one row at least is ok; `always`: also what a cancelled or failed run has"
        ),
    )
    sort_by: str | None = Field(
        None,
        description="any column of the output, numbers as numbers; unset: the input's order",
        examples=["RowID"],
    )
    max_failed: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)?%?$",
        description="withhold an output with more failed rows than this: a count, or per cent",
        examples=["10%", "10"],
    )

    def allows(self, rows: int, failed: int) -> bool:
        """Return whether `failed` of `rows` is within `max_failed`."""
        if self.max_failed is None:
            return True
        if self.max_failed.endswith("%"):
            return failed * 100 <= float(self.max_failed[:-1]) * rows
        return failed <= float(self.max_failed)


class Prompts(_Section):
    """What is asked about each row."""

    config_file: str = Field(
        "prompt.json",
        description="the prompt file, relative to the job file's folder and inside it",
        examples=["prompts/example_prompt.json"],
    )


class Table(_Section):
    """How the input is written."""

    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = Field(
        "auto", description="`auto`: by the file's ending, `.csv` without one"
    )
    delimiter: str = Field(
        ",",
        pattern='^[^"\\r\\n\\x00\ufeff]$',
        description="the one character between two cells of a CSV; unset: a tab in `.tsv` files",
    )
    columns: dict[str, str] = Field(
        {},
        max_length=1000,
        description="columns that are called otherwise in the file: PRISM's name, then the file's",
        examples=[{"RowID": "id", "Message": "text"}],
    )
    required_columns: list[str] = Field(
        ["Message"], description="an input without one of these is refused; a missing RowID is numbered"
    )

    @model_validator(mode="after")
    def _one_meaning(self) -> "Table":
        if self.format == "tsv" and self.delimiter_of("tsv") != "\t":
            raise ValueError(f"format is tsv, and delimiter is {self.delimiter!r}")
        theirs = list(self.columns.values())
        for name, wanted in self.columns.items():
            if not name or not wanted:
                raise ValueError("columns: a name is empty")
            if theirs.count(wanted) > 1:
                raise ValueError(f"columns: {wanted!r} of the file cannot be two columns")
        return self

    def delimiter_of(self, kind: str) -> str:
        """Return what is between the cells of a file of this kind: what the job says, or its kind's own."""
        if "delimiter" in self.model_fields_set:
            return self.delimiter
        return "\t" if kind == "tsv" else self.delimiter


class Budget(_Section):
    """What a run may cost; when it is reached nothing more is fed."""

    tokens: int | None = Field(
        None, ge=1, description="prompt and completion tokens together", examples=[2_000_000]
    )
    money: Decimal | None = Field(
        None, gt=0, description="in the currency of the model's price in `models.json`", examples=[2.5]
    )


class Job(_Section):
    """One job file."""

    project: Project = Project()
    model: Model = Model()
    input_queue: list[InputFile] = Field(
        [],
        max_length=1000,
        description="the files to process, in this order; a file that is dropped or submitted needs none",
        examples=[
            [
                {"path": "data/feedback_q1.csv", "label": "q1_feedback"},
                {"path": "data/feedback_q2.csv", "label": "q2_feedback"},
            ]
        ],
    )
    parallelization: Parallelization = Parallelization()
    output: Output = Output()
    error_handling: ErrorHandling = ErrorHandling()
    merge: Merge = Merge()
    prompts: Prompts = Prompts()
    monitoring: Monitoring = Monitoring()
    table: Table = Table()
    budget: Budget = Budget()
    dedupe: bool = Field(True, description="rows that say the same are asked once, and share the answer")


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
    return read_job_text(text, path.name)


def read_job_text(text: str, where: str) -> tuple[Job, dict[str, Any]]:
    """Return the job in a job file's text, and its fields as written. where: its name. Raise JobRefused."""
    try:
        found = marked_yaml.load(text)
    except YamlRefused as error:
        raise JobRefused(f"{_place(where, error.line)}: {error}") from None
    if is_nothing(found.value):
        found.value = {}
    # First: of a misspelt key the model says only that the right one is missing.
    for keys, known in unknown_keys(found.value, Job):
        advice = nearest_key(keys, known, Job)
        raise JobRefused(f"{_place(where, found.line(keys))}: {_dotted(keys)}: {advice}")
    return _parsed(found, where), found.value


def _parsed(found: MarkedYaml, where: str) -> Job:
    if not isinstance(found.value, dict):
        raise JobRefused(f"{where}: a job file is a mapping of sections (project, model, …)")
    try:
        return Job.model_validate(found.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = _place(where, found.line(first["loc"]))
        raise JobRefused(f"{place}: {_dotted(first['loc'])}: {problem(first, Job)}") from None


def _place(where: str, line: int) -> str:
    return f"{where}, line {line}" if line else where


def _dotted(keys: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, keys))!s:.100}"


def _read_text(path: Path) -> str:
    with path.open("rb") as stream:
        text = stream.read(MAX_JOB_BYTES + 1)
    if len(text) > MAX_JOB_BYTES:
        raise JobRefused(f"{path.name}: more than {MAX_JOB_BYTES} bytes: no job file is so long")
    return text.decode("utf-8-sig")
