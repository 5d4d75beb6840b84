"""What is merged and published of each run: plain data, kept in the store as JSON beside the results."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from prism.messages import Result
from prism_merger.labels import LabelCounts, count_labels
from prism_merger.rendering import RenderedBatch
from prism_merger.sequences import MergedSequences, Stretch
from prism_merger.timeline import Moment, Timeline


class Stage(StrEnum):
    """How far a run is; each is durable before the next one is begun."""

    MERGING = "merging"
    PUBLISHING = "publishing"  # what is merged is all there will be; files get their names
    CLOSED = "closed"  # files and manifest stand; it remains to be told
    TOLD = "told"  # announced; its reports are written, then its rows are dropped from the store
    DONE = "done"
    LEFT_ALONE = "left_alone"  # it had ended before this store began


class ReportsState(StrEnum):
    """What became of a run's summary, analytics and report."""

    DUE = "due"
    WRITTEN = "written"
    GIVEN_UP = "given_up"  # what writes them has died or failed too often
    OFF = "off"


class Outcome(StrEnum):
    """What became of a run's output."""

    PUBLISHED = "published"
    WITHHELD = "withheld"


@dataclass(frozen=True, slots=True)
class Written:
    """A complete output under its temporary name. `failed`: see OutputMark."""

    sha256: str
    bytes: int
    rows: int
    failed: int | None = None


@dataclass(slots=True)
class OutputMark:
    """The `publishing` mark of one output: the name it gets, and how to know it again.

    `uri`: where it lies that does not lie in a folder of the merger's. `named`: whether it has its name.
    `replaces`: SHA-256 of this run's family's file of the same name that it takes the place of.
    """

    name: str
    sha256: str
    bytes: int
    rows: int
    renamed_because: str = ""
    uri: str = ""
    named: bool = False
    replaces: str = ""
    # Of the rows of several models: those that one of them at least has not answered.
    failed: int | None = None

    def replaced_by(self, done: Written) -> "OutputMark":
        """Return the mark of a file that takes this one's place."""
        because, replaced = self.renamed_because, self.sha256
        return OutputMark(
            self.name, done.sha256, done.bytes, done.rows, because, self.uri, replaces=replaced,
            failed=done.failed,
        )  # fmt: skip


@dataclass(slots=True)
class ModelAccount:
    """What one of several models has done of a run."""

    ok: int = 0
    failed: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    digests: list[str] = field(default_factory=list)
    labels: LabelCounts = field(default_factory=list)

    def add(self, result: Result, batch: RenderedBatch) -> None:
        """Count a batch in."""
        count_labels(self.labels, batch.values)
        self.ok += batch.ok
        self.failed += len(batch.failed)
        self.calls += result.usage.calls
        self.prompt_tokens += result.usage.prompt_tokens
        self.completion_tokens += result.usage.completion_tokens
        self.model_seconds += result.usage.model_seconds
        self.digests = _with(self.digests, result.model_digest)


@dataclass(slots=True)
class FileAccount:
    """What is merged of one file."""

    file_id: int
    label: str
    merged: MergedSequences = field(default_factory=MergedSequences)
    ok: int = 0
    failed: int = 0
    # Rows of a cancelled or failed run that never came back; they count as failed.
    missing: int = 0
    parts: int = 0
    # The sequence that holds the first row of the next part.
    part_sequence: int = 0
    # By format.
    outputs: dict[str, OutputMark] = field(default_factory=dict)

    @property
    def rows_failed(self) -> int:
        return self.failed + self.missing

    def published(self, form: str) -> OutputMark | None:
        """Return the mark of an output that has its name."""
        mark = self.outputs.get(form)
        return mark if mark is not None and mark.named else None


@dataclass(slots=True)
class RunAccount:
    """What is merged of one run. Times are ISO 8601 texts, empty until then."""

    run_id: str
    files: dict[str, FileAccount]
    stage: Stage = Stage.MERGING
    outcome: Outcome | None = None
    detail: str | None = None
    partial: bool = False
    # Why rows never came back, if some did not.
    missing_reason: str = ""
    # Where the run was opened: another cluster can have another run of the same name.
    cluster_id: str = ""
    failed_by_reason: Counter[str] = field(default_factory=Counter)
    # In the order of the prompt's columns_to_code.
    labels: LabelCounts = field(default_factory=list)
    calls: int = 0
    repeated_calls: int = 0
    extra_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    load_seconds: float = 0.0
    reused_rows: int = 0
    models: list[str] = field(default_factory=list)
    # Of a run with several models, by name; none of a run with one.
    by_model: dict[str, ModelAccount] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    # The lowest offset of a result of this run in the results topic as it is now.
    first_offset: int | None = None
    first_result_at: str = ""
    merged_at: str = ""
    published_at: str = ""
    manifest_stale: bool = False
    # Whether the broker has the announcements: before that nobody is told that it is published.
    announced: bool = False
    # Why the files do not stand yet although they could: a full disk, a store that is away.
    waits_for: str = ""
    reports: ReportsState = ReportsState.DUE
    # How often writing them was begun, and how often it was seen to fail.
    report_starts: int = 0
    report_failures: int = 0
    # Retries whose rows the output has taken in, in their order.
    completed_by: list[str] = field(default_factory=list)
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def ok(self) -> int:
        return sum(one.ok for one in self.files.values())

    @property
    def failed(self) -> int:
        return sum(one.rows_failed for one in self.files.values())

    @property
    def takes_results(self) -> bool:
        """Whether a result may still change the rows."""
        return self.stage is Stage.MERGING

    def add(self, file: FileAccount, result: Result, batch: RenderedBatch) -> None:
        """Count a batch in."""
        # An account of a version that counted no labels cannot catch up.
        if self.labels or not self.ok:
            count_labels(self.labels, batch.values)
        file.merged.add(result.sequence, batch.first_row, batch.end_row)
        file.ok += batch.ok
        file.failed += len(batch.failed)
        if batch.failed:
            self.failed_by_reason.update(batch.reasons())
        usage = result.usage
        self.calls += usage.calls
        self.repeated_calls += usage.repeated_calls
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.model_seconds += usage.model_seconds
        self.load_seconds += usage.load_seconds
        self.reused_rows += usage.reused_rows
        self.models = _with(self.models, result.model)
        if result.model in self.by_model:
            self.by_model[result.model].add(result, batch)
        self.digests = _with(self.digests, result.model_digest)

    def note_moment(self, seconds: float) -> None:
        """Keep the counts as they are, `seconds` after the first result, for the picture of the run."""
        tokens = self.prompt_tokens + self.completion_tokens
        rows_failed = sum(one.failed for one in self.files.values())
        self.timeline.note(Moment(round(seconds, 3), self.ok + rows_failed, rows_failed, tokens))

    def count_missing(self, file: FileAccount, rows: int, reason: str, model: str = "") -> None:
        """Count the rows as failed that will never come back. `model`: which of several was to do them."""
        file.missing = rows - file.ok - file.failed
        if file.missing:
            self.failed_by_reason[reason] += file.missing
            if model in self.by_model:
                self.by_model[model].failed += file.missing


def _with(names: list[str], name: str) -> list[str]:
    return names if not name or name in names else sorted([*names, name])


def run_to_json(run: RunAccount) -> str:
    """Return a run's own part, its files left out."""
    fields = {name: getattr(run, name) for name in _RUN_FIELDS}
    fields["timeline"] = [run.timeline.every_s, run.timeline.moments]
    fields["by_model"] = {name: asdict(one) for name, one in run.by_model.items()}
    return json.dumps(fields, ensure_ascii=False)


def file_to_json(file: FileAccount) -> str:
    """Return a file's account."""
    fields: dict[str, Any] = {name: getattr(file, name) for name in _FILE_FIELDS}
    fields["merged"] = [file.merged.through, file.merged.rows, file.merged.as_lists()]
    fields["outputs"] = {form: asdict(mark) for form, mark in file.outputs.items()}
    return json.dumps(fields, ensure_ascii=False)


def _known(kind: type[Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows: a store may have been written by a newer one."""
    return {name: value for name, value in fields.items() if name in kind.__dataclass_fields__}


def run_from_json(text: str, files: dict[str, FileAccount]) -> RunAccount:
    """Return the run that `run_to_json` wrote."""
    fields = json.loads(text)
    fields["stage"] = Stage(fields["stage"])
    fields["outcome"] = Outcome(fields["outcome"]) if fields["outcome"] else None
    fields["failed_by_reason"] = Counter(fields["failed_by_reason"])
    every_s, moments = fields.get("timeline", (1.0, []))
    fields["timeline"] = Timeline(every_s, [Moment(*one) for one in moments])
    fields["reports"] = ReportsState(fields.get("reports", ReportsState.DUE))
    fields["by_model"] = {
        name: ModelAccount(**_known(ModelAccount, one)) for name, one in fields.get("by_model", {}).items()
    }
    return RunAccount(files=files, **_known(RunAccount, fields))


def file_from_json(file_id: int, text: str) -> FileAccount:
    """Return the file that `file_to_json` wrote."""
    fields = json.loads(text)
    through, rows, above = fields.pop("merged")
    outputs = _outputs(fields)
    return FileAccount(
        file_id=file_id,
        merged=MergedSequences(through, rows, [Stretch(*one) for one in above]),
        outputs=outputs,
        **_known(FileAccount, fields),
    )


def _outputs(fields: dict[str, Any]) -> dict[str, OutputMark]:
    """Take the marks out of a file's fields; an account of before there were formats has one CSV."""
    if "outputs" in fields:
        return {form: OutputMark(**_known(OutputMark, mark)) for form, mark in fields.pop("outputs").items()}
    mark, named = fields.pop("output"), fields.pop("has_name")
    return {"csv": OutputMark(**mark, named=named)} if mark else {}


_RUN_FIELDS = tuple(name for name in RunAccount.__dataclass_fields__ if name != "files")
_FILE_FIELDS = tuple(
    name for name in FileAccount.__dataclass_fields__ if name not in ("file_id", "merged", "outputs")
)
