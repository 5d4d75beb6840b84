"""Whether a request names the run that is there already: the same job, prompt and files, or what differs.

Compared is what a job means, with every default filled in. A run's record keeps the job as it was written,
and both are read by today's code: a default that is written down later, or a number in quotes, is no other
job, and a run that an earlier version began is known again.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from prism.conversion import kind_of, stem_of
from prism.messages import RunFile, RunRecord
from prism.runs.job import InputFile, Job, JobRefused, parse_job
from prism.runs.keys import is_nothing, unknown_keys
from prism.runs.models import inputs
from prism.runs.naming import clean_label

# What may change from one start to the next: it decides how a run is worked on, not what comes out.
INDIFFERENT = frozenset(
    {
        "project.description",
        "parallelization.enabled",
        "parallelization.workers",
        "error_handling.max_worker_retries",
        "error_handling.prompt_on_failure",
        "monitoring.dashboard_refresh",
    }
)


def difference(
    known: RunRecord, job: Mapping[str, Any], prompt: Mapping[str, Any], files: Sequence[RunFile]
) -> str | None:
    """Return in a few words what differs between a known run and a request for it; None if nothing does.

    The table of an ended run has lost its prompt: it is compared where it is known.
    """
    given = inputs(known)
    key = _job_difference((known.job, given), (job, files))
    if key is not None:
        return f"the job differs at {key}"
    if known.prompt and prompt and (key := _first_difference(known.prompt, prompt)) is not None:
        return f"the prompt file differs at {key}"
    if [one.label for one in given] != [one.label for one in files]:
        return f"its files are {', '.join(one.label for one in given)}"
    for mine, theirs in zip(given, files, strict=True):
        # A file given by name alone is known by its bytes only once pass 1 has read it.
        if None not in (mine.sha256, theirs.sha256) and mine.sha256 != theirs.sha256:
            return f"the file {theirs.filename or theirs.label} has other bytes"
        if mine.ranges != theirs.ranges:
            return f"other rows of {theirs.filename or theirs.label} are taken"
    return None


_Asked = tuple[Mapping[str, Any], Sequence[RunFile]]


def _job_difference(mine: _Asked, theirs: _Asked) -> str | None:
    """Return the key at which two jobs with their files mean something else."""
    try:
        return _first_difference(_meaning(*mine), _meaning(*theirs))
    except JobRefused:
        # A record of another version may have a value that is none here: it is compared as it is written.
        return _first_difference(mine[0], theirs[0])


def _meaning(fields: Mapping[str, Any], files: Sequence[RunFile]) -> dict[str, Any]:
    """Return a job with all defaults, and as written the keys that only a newer version knows.

    Raises JobRefused.
    """
    job = parse_job(fields)
    meant = job.model_dump()
    meant["input_queue"] = [(one.path, _label(one)) for one in job.input_queue]
    # Unset, what is between two cells is as the file's kind has it.
    meant["table"]["delimiter"] = sorted({_delimiter(job, one) for one in files})
    unknown = {".".join(map(str, keys)): _at(fields, keys) for keys, _ in unknown_keys(fields, Job)}
    return meant | {key: value for key, value in unknown.items() if not is_nothing(value)}


def _label(one: InputFile) -> str:
    return clean_label(one.label or stem_of(PurePath(one.path).name))


def _delimiter(job: Job, file: RunFile) -> str:
    return job.table.delimiter_of(job.table.format if job.table.format != "auto" else _kind(file))


def _kind(file: RunFile) -> str:
    return kind_of(file.filename) or "csv"


def _at(fields: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        fields = fields[key]
    return fields


def _first_difference(mine: Any, theirs: Any, path: str = "") -> str | None:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            place = f"{path}.{key}" if path else str(key)
            found = _first_difference(mine.get(key), theirs.get(key), place)
            if found is not None:
                return found
        return None
    if isinstance(mine, Mapping) or isinstance(theirs, Mapping):
        # A section that is not there is like an empty one.
        return _first_difference(mine or {}, theirs or {}, path) if not (mine and theirs) else path
    return None if mine == theirs or path in INDIFFERENT else path
