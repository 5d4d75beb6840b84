"""`prism.progress`: what the store knows of a run, in absolute counts, and how fast it goes.

Rates are of this process; everything else is as committed, so that a lost or repeated message changes
nothing for whoever takes credit from it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prism.messages import FileProgress, MergeState, ModelProgress, OutputFile, Progress
from prism.runs.columns import of_model
from prism_merger.accounts import FileAccount, ModelAccount, Outcome, OutputMark, RunAccount, Stage
from prism_merger.labels import by_column
from prism_merger.manifest import reports_of
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.verdict import is_complete

WINDOW_S = 10.0
_SAMPLE_S = 0.25


def timestamp(clock: Callable[[], float]) -> str:
    """Return the wall clock's time as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(moment: str) -> float | None:
    """Return a timestamp as seconds since the epoch; None for an empty one."""
    return datetime.fromisoformat(moment).timestamp() if moment else None


@dataclass(slots=True)
class Rate:
    """Rows per second over the last ten seconds, from samples of an absolute count."""

    clock: Callable[[], float]
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, rows: int) -> float:
        """Take a sample of the rows so far; return the rate."""
        now = self.clock()
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, rows))
        while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        return max(0, rows - before) / (now - since) if now > since else 0.0


@dataclass(frozen=True, slots=True)
class Position:
    """How far the run's results partition is read, as committed."""

    partition: int
    topic_id: str
    read_to: int


class ProgressMaker:
    """Makes the messages; keeps the rates of the runs that are going on."""

    def __init__(
        self, merger: str, places: Places, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._merger = merger
        self._places = places
        self._clock = clock
        self._wall_clock = wall_clock
        self._rates: dict[str, Rate] = {}

    def make(self, run: RunAccount, plan: RunPlan, position: Position, blocked: str | None) -> Progress:
        """Return the run's progress. `blocked` says why nothing is committed now."""
        rows = run.ok + run.failed
        rate = self._rates.setdefault(run.run_id, Rate(self._clock)).note(rows)
        if run.announced:
            self._rates.pop(run.run_id)
        remaining = max(0, plan.record.rows - rows)
        return Progress(
            run_id=run.run_id,
            state=merge_state(run),
            detail=run.waits_for or run.detail or blocked or _awaited(run, plan),
            results_partition=position.partition,
            topic_id=position.topic_id,
            read_to=position.read_to,
            files={label: _file_progress(one) for label, one in run.files.items()},
            rows_ok=run.ok,
            rows_failed=run.failed,
            failed_by_reason=dict(sorted(run.failed_by_reason.items())),
            calls=run.calls,
            repeated_calls=run.repeated_calls,
            extra_calls=run.extra_calls,
            prompt_tokens=run.prompt_tokens,
            completion_tokens=run.completion_tokens,
            model_seconds=round(run.model_seconds, 3),
            reused_rows=run.reused_rows,
            model_digests=run.digests,
            rows_per_s=round(rate, 2),
            mean_rows_per_s=round(self._mean(run, rows), 2),
            eta_s=round(remaining / rate, 1) if rate > 0 else (None if remaining else 0.0),
            outputs=_outputs(run, plan, self._places.of(plan.job)) if run.announced else [],
            labels=labels_of(run, plan),
            models={name: _model_progress(one) for name, one in run.by_model.items()},
            reports=reports_of(run, plan, self._places.of(plan.job)) if run.announced else None,
            merger=self._merger,
            updated_at=timestamp(self._wall_clock),
        )

    def _mean(self, run: RunAccount, rows: int) -> float:
        since = seconds_of(run.first_result_at)
        until = seconds_of(run.merged_at) or self._wall_clock()
        return rows / (until - since) if since is not None and until > since else 0.0


def _awaited(run: RunAccount, plan: RunPlan) -> str | None:
    """Return what a run waits for whose rows are all merged, and whose output is not to be published yet."""
    if run.stage is not Stage.MERGING or plan.job.merge.auto_merge or not is_complete(run, plan):
        return None
    return f"every row is merged, and merge.auto_merge is false: prism merge {run.run_id}"


def merge_state(run: RunAccount) -> MergeState:
    """Return what a run's stage is called in messages."""
    if run.stage is Stage.MERGING:
        return MergeState.MERGING
    if not run.announced:
        return MergeState.PUBLISHING
    return MergeState.PUBLISHED if run.outcome is Outcome.PUBLISHED else MergeState.WITHHELD


def published_files(
    run: RunAccount, plan: RunPlan, places: Places
) -> list[tuple[FileAccount, OutputMark, OutputFile]]:
    """Return the files that stand, once the manifest says so too, each with its account and mark."""
    if run.outcome is not Outcome.PUBLISHED or run.stage in (Stage.MERGING, Stage.PUBLISHING):
        return []
    return [
        (
            one,
            mark,
            _output_file(
                one.label if mark.failed is None else plan.file(one.label).input_label, form, mark, places
            ),
        )
        for one in run.files.values()
        for form, mark in one.outputs.items()
        if mark.named
    ]


def _output_file(label: str, form: str, mark: OutputMark, places: Places) -> OutputFile:
    return OutputFile(
        label=label,
        format=form,
        path="" if mark.uri else places.relative(places.output(mark.name)),
        uri=mark.uri or places.output(mark.name).as_uri(),
        rows=mark.rows,
        bytes=mark.bytes,
        sha256=mark.sha256,
    )


def _outputs(run: RunAccount, plan: RunPlan, places: Places) -> list[OutputFile]:
    return [one for _, _, one in published_files(run, plan, places)]


def labels_of(run: RunAccount, plan: RunPlan) -> dict[str, Mapping[str, int]]:
    """Return how often each label was given, by the output's column."""
    if not plan.job.model.fans_out:
        return by_column(run.labels, plan.coded)
    return {
        of_model(column, name): counts
        for name, one in run.by_model.items()
        for column, counts in by_column(one.labels, plan.coded).items()
    }


def _model_progress(one: ModelAccount) -> ModelProgress:
    return ModelProgress(
        rows_ok=one.ok,
        rows_failed=one.failed,
        calls=one.calls,
        prompt_tokens=one.prompt_tokens,
        completion_tokens=one.completion_tokens,
        model_seconds=round(one.model_seconds, 3),
        digests=one.digests,
    )


def _file_progress(file: FileAccount) -> FileProgress:
    return FileProgress(
        merged_through=file.merged.through,
        merged_above=[(one.first, one.last) for one in file.merged.above],
        rows_ok=file.ok,
        rows_failed=file.rows_failed,
    )
