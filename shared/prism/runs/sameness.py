"""Whether a request names the run that is there already: the same job, prompt and files, or what differs."""

from collections.abc import Mapping, Sequence
from typing import Any

from prism.messages import RunFile, RunRecord
from prism.runs.models import inputs

# What may change from one start to the next: it decides how a run is worked on, not what comes out.
_INDIFFERENT = {
    "project.description",
    "parallelization.enabled",
    "parallelization.workers",
    "error_handling.max_worker_retries",
    "error_handling.prompt_on_failure",
    "monitoring.dashboard_refresh",
}


def difference(
    known: RunRecord, job: Mapping[str, Any], prompt: Mapping[str, Any], files: Sequence[RunFile]
) -> str | None:
    """Return in a few words what differs between a known run and a request for it; None if nothing does.

    The table of an ended run has lost its prompt: it is compared where it is known.
    """
    key = _first_difference(known.job, job)
    if key is not None:
        return f"the job differs at {key}"
    if known.prompt and prompt and (key := _first_difference(known.prompt, prompt)) is not None:
        return f"the prompt file differs at {key}"
    given = inputs(known)
    if [one.label for one in given] != [one.label for one in files]:
        return f"its files are {', '.join(one.label for one in given)}"
    for mine, theirs in zip(given, files, strict=True):
        # A file given by name alone is known by its bytes only once pass 1 has read it.
        if None not in (mine.sha256, theirs.sha256) and mine.sha256 != theirs.sha256:
            return f"the file {theirs.filename or theirs.label} has other bytes"
        if mine.ranges != theirs.ranges:
            return f"other rows of {theirs.filename or theirs.label} are taken"
    return None


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
    return None if mine == theirs or path in _INDIFFERENT else path
