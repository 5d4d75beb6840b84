"""`config/settings.json`: what holds for all jobs of a place, where a job itself is silent.

Keys and defaults are those of PRISM v6 (seeds/prism-v6-local.md, "Global Settings"). A job takes from it
only what the file says: without a file, or for a key that it leaves out, a job's own default stays. A key
that is none is refused, but for those that begin with `_`, `$` or `/`: JSON has no other comments.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from prism.annotation.strict_json import NotStrictJson, load_strictly
from prism.runs.keys import is_nothing, nearest_key, problem, unknown_keys

FILE_NAME = "settings.json"
MAX_SETTINGS_BYTES = 100_000
_COMMENTS = ("_", "$", "/")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,99}")


class SettingsRefused(ValueError):
    """A `settings.json` that cannot be used: one line with file, key and what is allowed."""


def _plain_name(name: str) -> str:
    """Refuse what would lead out of the project's folder."""
    if _PLAIN_NAME.fullmatch(name) is None or ".." in name:
        raise ValueError("must be a plain name: letters, digits, spaces, `.`, `_` and `-`")
    return name


def _no_switch(value: Any) -> Any:
    """Refuse true and false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


PlainName = Annotated[str, AfterValidator(_plain_name)]
Whole = Annotated[int, BeforeValidator(_no_switch)]
Seconds = Annotated[float, BeforeValidator(_no_switch)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {key: value for key, value in fields.items() if value is not None}


class LogSettings(_Part):
    """What a run leaves beside its outputs."""

    save_terminal_logs: bool = Field(True, description="write `run_RUN.log`")
    create_summaries: bool = Field(True, description="write `summary_RUN.md`")
    create_analytics: bool = Field(True, description="write `analytics_RUN.csv`")


class ProjectSettings(_Part):
    """What `settings.json` says. `model_fields_set` tells which keys it does say."""

    checkpoint_interval: Whole = Field(
        50, ge=1, description="rows per part file, where a job has no `output.checkpoints.interval`"
    )
    retry_attempts: Whole = Field(
        3, ge=1, le=20, description="calls that a row may spoil, where a job has no `model.retries`"
    )
    retry_delay_seconds: Seconds = Field(
        5, ge=0, le=600, description="seconds before the second try, where a job has no `model.delay`"
    )
    required_input_columns: list[str] = Field(
        ["RowID", "Message"],
        description="an input without one is refused, where a job has no `table.required_columns`",
    )
    input_filename: PlainName = Field(
        "input.csv", description="the file that the interactive runner looks for in a project's inputs"
    )
    project_structure: dict[PlainName, list[PlainName]] = Field(
        {
            "data": ["inputs", "outputs"],
            "checkpoints": [],
            "logs": ["terminal_logs", "summaries"],
            "analytics": [],
        },
        description="the folders of a new project, each with the folders in it",
    )
    log_settings: LogSettings = Field(LogSettings(), description="what a run leaves beside its outputs")
    interactive_version: str = Field(
        "v_public",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$",
        description="version of the interactive runner's runs: letters, digits, `_`, `.` and `-`, at most 32",
    )


# Where a job is silent: key of the settings → section and key of the job.
_IN_JOBS = {
    "checkpoint_interval": ("output", "checkpoints", "interval"),
    "retry_attempts": ("model", "retries"),
    "retry_delay_seconds": ("model", "delay"),
    "required_input_columns": ("table", "required_columns"),
}


def with_settings(fields: Mapping[str, Any], settings: ProjectSettings) -> dict[str, Any]:
    """Return a job file's fields, and what the settings say where those say nothing.

    Values are put in as text, as a job file's own are. `fields` is left as it is; what stands in it and
    cannot be used is for `parse_job` to refuse.
    """
    filled = dict(fields)
    for name, path in _IN_JOBS.items():
        if name in settings.model_fields_set:
            _put(filled, path, _as_text(getattr(settings, name)))
    for name in sorted(settings.log_settings.model_fields_set):
        _put(filled, ("monitoring", name), str(getattr(settings.log_settings, name)).lower())
    return filled


def _put(fields: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *sections, key = path
    for section in sections:
        inner = {} if is_nothing(fields.get(section)) else fields[section]
        if not isinstance(inner, dict):
            return
        fields[section] = dict(inner)
        fields = fields[section]
    if is_nothing(fields.get(key)):
        fields[key] = value


def _as_text(value: Any) -> Any:
    return list(value) if isinstance(value, list) else str(value)


def read_settings(path: Path | None) -> ProjectSettings:
    """Return what a `settings.json` says; what PRISM v6 ships where there is none. Raise SettingsRefused."""
    if path is None:
        return ProjectSettings()
    try:
        with path.open("rb") as stream:
            source = stream.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise SettingsRefused(f"{path}: cannot be read: {error.strerror}") from None
    return parse_settings(source, str(path))


def parse_settings(source: bytes, where: str = FILE_NAME) -> ProjectSettings:
    """Return the settings in JSON; raise SettingsRefused with the first wrong key."""
    if len(source) > MAX_SETTINGS_BYTES:
        raise SettingsRefused(f"{where}: more than {MAX_SETTINGS_BYTES} bytes: no such file is so long")
    try:
        fields = load_strictly(source.decode("utf-8-sig"))
    except (UnicodeDecodeError, NotStrictJson) as error:
        raise SettingsRefused(_one_line(f"{where}: not JSON in UTF-8: {error}")) from None
    if not isinstance(fields, dict):
        raise SettingsRefused(f"{where}: must be an object with {', '.join(ProjectSettings.model_fields)}")
    for keys, known in unknown_keys(fields, ProjectSettings):
        if not str(keys[-1]).startswith(_COMMENTS):
            advice = nearest_key(keys, known, ProjectSettings)
            raise SettingsRefused(_one_line(f"{where}: {'.'.join(map(str, keys)):.100}: {advice}"))
    try:
        return ProjectSettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(step) for step in first["loc"] if step != "[key]")
        raise SettingsRefused(_one_line(f"{where}: {key:.100}: {problem(first, ProjectSettings)}")) from None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
