"""Names made of what people send: labels, run ids, output names. Row text never gets here."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

NAMING_FIELDS = ("project", "version", "label", "date", "run_id")
MAX_LABEL = 80
# Leaves room in the 255 bytes of a file name for endings and temporary names.
MAX_OUTPUT_NAME = 215
_LATEST_S = 253_402_300_799  # the end of the year 9999
MAX_RUN_ID = 120
# Of all of a run's models together.
MAX_TAG = 20
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class PatternRefused(Exception):
    """A naming pattern that names an unknown field or a folder."""


def is_run_id(text: str) -> bool:
    """Return whether a run id is fit for keys and file names."""
    return _RUN_ID.fullmatch(text) is not None and ".." not in text


def is_job_name(text: str) -> bool:
    """Return whether a `job` header names a job file, and nothing but one."""
    return _JOB_NAME.fullmatch(text) is not None


def clean_label(text: str) -> str:
    """Return a label fit for a file name: the text itself, or what is left of it and a hash."""
    if _LABEL.fullmatch(text) and ".." not in text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")[: MAX_LABEL - 9]
    return f"{kept}-{digest}" if kept else digest


def generated_run_id(
    project: str, version: str, model_tag: str, timestamp_ms: int, partition: int, offset: int
) -> str:
    """Return the run id of a record without one: the same record gives the same id, always.

    One that would be too long, or have two dots in a row, is cut to what a run id is, and has a hash.
    """
    # Whoever sends a record sets its timestamp: any number may stand there.
    seconds = min(max(timestamp_ms, 0) // 1000, _LATEST_S)
    when = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d_%H%M%S")
    run_id = f"{project}_{version}_m{model_tag}_{when}_{partition}-{offset}"
    return run_id if is_run_id(run_id) else _cut(run_id.replace("..", "__"), MAX_RUN_ID)


def models_tag(tags: Sequence[str], names: Sequence[str | None]) -> str:
    """Return what stands for several models in a run id: their tags, of many the first ones and a hash."""
    whole = "-".join(tags)
    if len(whole) <= MAX_TAG:
        return whole
    digest = hashlib.sha256(repr([*tags, *names]).encode()).hexdigest()[:6]
    kept = [tag for number, tag in enumerate(tags, 1) if len("-".join([*tags[:number], digest])) <= MAX_TAG]
    return "-".join([*kept, digest])


def full_model_name(name: str) -> str:
    """Return a model's name with its tag: none means `latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def model_tag(name: str | None, model_id: str | None) -> str:
    """Return a model's id in `models.json`, else ten alphanumerics of its name; 0 is the fleet's own."""
    if not name:
        return "0"
    return model_id or _alphanumerics(name) or "0"


def _alphanumerics(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)[:10]


def results_partition(run_id: str, partitions: int) -> int:
    """Return the partition of `prism.results` that a new run gets."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4]) % partitions


def check_pattern(pattern: str) -> None:
    """Raise PatternRefused unless the pattern makes a plain file name of known fields."""
    for name in _PLACEHOLDER.findall(pattern):
        if name not in NAMING_FIELDS:
            raise PatternRefused(f"unknown placeholder {{{name}}}; there are {', '.join(NAMING_FIELDS)}")
    rest = _PLACEHOLDER.sub("x", pattern)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,120}", rest) or ".." in rest:
        raise PatternRefused("use letters, digits, '.', '_', '-' and placeholders; folders are not allowed")


def output_name(pattern: str, fields: Mapping[str, str]) -> str:
    """Return the file name, without its ending, that a pattern gives; one that is too long gets a hash."""
    check_pattern(pattern)
    name = _PLACEHOLDER.sub(lambda found: fields[found.group(1)], pattern)
    if len(name) <= MAX_OUTPUT_NAME:
        return name
    return _cut(name, MAX_OUTPUT_NAME)


def _cut(text: str, length: int) -> str:
    return f"{text[: length - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def part_name(run_id: str, label: str, number: int) -> str:
    """Return the name of a part file, counted from 1."""
    return f"checkpoint_{run_id}_{label}_part{number:04d}.csv"
