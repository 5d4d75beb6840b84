"""Job files: what is to be done with the rows of a CSV.

Every scalar of the YAML is read as text and given its type by the model here, so that YAML's own
ideas (`NO` = false, `1.10` = 1.1, `010` = 8) cannot change a value, and no tag can build an object.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prism.runs.naming import PatternRefused, check_pattern

# As YAML 1.2 writes "no value".
_NOTHING = ("", "~", "null", "Null", "NULL")
MAX_JOB_BYTES = 100_000
MAX_NODES = 10_000
MAX_DEPTH = 20


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


class Model(_Section):
    """Which model answers, and how it is asked."""

    name: str | None = Field(None, description="none: the fleet's own model (OLLAMA_MODEL)")
    batch_size: int = Field(10, ge=1, le=200, description="rows per model call")
    retries: int = Field(3, ge=1, le=20, description="calls that a row may spoil before it fails")
    delay: float = Field(1.0, ge=0, le=600, description="seconds before the second try; doubles, with jitter")


class Checkpoints(_Section):
    """Part files while the run goes on."""

    interval: int = Field(1000, ge=1, description="rows per part file")
    cleanup_after_merge: bool = False


class Output(_Section):
    """The published file."""

    naming_pattern: str = "{run_id}_{label}"
    checkpoints: Checkpoints = Checkpoints()

    @field_validator("naming_pattern")
    @classmethod
    def _usable(cls, pattern: str) -> str:
        try:
            check_pattern(pattern)
        except PatternRefused as error:
            raise ValueError(str(error)) from None
        return pattern


class Merge(_Section):
    """When and in which order the output is published."""

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
    """How the CSV is written."""

    delimiter: str = Field(",", pattern='^[^"\\r\\n\\x00\ufeff]$', description="one character between cells")
    required_columns: list[str] = ["Message"]


class Budget(_Section):
    """What a run may cost; when it is reached nothing more is fed."""

    tokens: int | None = Field(None, ge=1, description="prompt and completion tokens together")
    money: Decimal | None = Field(None, gt=0, description="in the currency of the model's price")


class Job(_Section):
    """One job file."""

    project: Project = Project()
    model: Model = Model()
    output: Output = Output()
    merge: Merge = Merge()
    prompts: Prompts = Prompts()
    table: Table = Table()
    budget: Budget = Budget()
    dedupe: bool = Field(True, description="rows that say the same are asked once")


def parse_job(fields: Any, where: str = "job") -> Job:
    """Return the job in a mapping. Raise JobRefused with the first wrong key."""
    if not isinstance(fields, dict):
        raise JobRefused(f"{where}: a job file is a mapping of sections (project, model, …)")
    try:
        return Job.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        raise JobRefused(f"{where}: {key}: {first['msg']} (it is {first['input']!r:.80})") from None


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
        fields = yaml.load(text, Loader=yaml.BaseLoader)  # BaseLoader makes text only
        _count_nodes(fields, 0, 0)
    except (yaml.YAMLError, RecursionError, UnicodeEncodeError) as error:
        raise JobRefused(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    return parse_job(fields or {}, path.name), dict(fields or {})


def _read_text(path: Path) -> str:
    with path.open("rb") as stream:
        text = stream.read(MAX_JOB_BYTES + 1)
    if len(text) > MAX_JOB_BYTES:
        raise JobRefused(f"{path.name}: more than {MAX_JOB_BYTES} bytes: no job file is so long")
    return text.decode("utf-8-sig")


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value in _NOTHING)


def _count_nodes(value: Any, nodes: int, depth: int) -> int:
    """Count what a file unfolds to: an alias of an alias of an alias can make gigabytes of a kilobyte."""
    nodes += 1
    if nodes > MAX_NODES or depth > MAX_DEPTH:
        raise yaml.YAMLError(f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        nodes += len(value.encode()) // 100
    elif isinstance(value, dict):
        for key, item in value.items():
            nodes = _count_nodes(item, _count_nodes(key, nodes, depth + 1), depth + 1)
    elif isinstance(value, list):
        for item in value:
            nodes = _count_nodes(item, nodes, depth + 1)
    return nodes
