"""A run and the retries that completed its output, as one: how its rows stand, and what all of it took."""

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy

from prism_merger.accounts import FileAccount, ModelAccount, RunAccount
from prism_merger.plans import RunPlan
from prism_merger.progress import seconds_of

_USAGE = ("calls", "prompt_tokens", "completion_tokens", "model_seconds")
_MORE_USAGE = ("repeated_calls", "extra_calls", "load_seconds", "reused_rows")


def whole(run: RunAccount, retries: Sequence[RunAccount]) -> RunAccount:
    """Return the account of a run as its retries have left it; its times stay its own.

    A retry asks every row that has failed until then, so what still fails is what fails in the newest.
    """
    found = deepcopy(run)
    for retry in retries:
        for label, file in retry.files.items():
            if label in found.files:
                _mend(found.files[label], file)
        for name, one in retry.by_model.items():
            if name in found.by_model:
                _mend(found.by_model[name], one)
                _add(found.by_model[name], one, _USAGE)
                found.by_model[name].digests = _united([found.by_model[name].digests, one.digests])
        _add(found, retry, (*_USAGE, *_MORE_USAGE))
        found.failed_by_reason = Counter(retry.failed_by_reason)
    found.models = _united(one.models for one in (run, *retries))
    found.digests = _united(one.digests for one in (run, *retries))
    return found


def _mend(counts: FileAccount | ModelAccount, retry: FileAccount | ModelAccount) -> None:
    counts.ok += retry.ok
    counts.failed -= retry.ok


def _add(counts: RunAccount | ModelAccount, more: RunAccount | ModelAccount, names: Sequence[str]) -> None:
    for name in names:
        setattr(counts, name, getattr(counts, name) + getattr(more, name))


def _united(names: Iterable[Sequence[str]]) -> list[str]:
    return sorted({one for several in names for one in several})


def can_be_read_again(plan: RunPlan) -> bool:
    """Return whether a run's published file has all that reports are made from, without its store."""
    output = plan.job.output
    return "csv" in output.formats and output.uri is None and output.columns is None


def working_s(run: RunAccount) -> float:
    """Return the seconds from a run's first result to its last; 0 where none came."""
    first, last = seconds_of(run.first_result_at), seconds_of(run.merged_at)
    return max(0.0, last - first) if first is not None and last is not None else 0.0
