"""What merging and publishing must know of a run: taken from `prism.runs` once, kept in the store.

The run's record loses its prompt when the run ends; what is kept here lets a publication go on then.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from prism.annotation.prompt_file import PromptFile
from prism.messages import Cursor, RunFile, RunRecord, RunState
from prism.runs.columns import joined, output_columns
from prism.runs.job import Job, parse_job
from prism.runs.naming import output_name
from prism_merger.joining import Shape
from prism_merger.rendering import FileRenderer

# A file name may have 255 bytes; room is left for `-2`, the ending and a temporary name.
_MAX_NAME = 200
_STARTED = {RunState.RUNNING, RunState.PAUSED, RunState.MERGING}
_BROKEN_OFF = {RunState.CANCELLED, RunState.FAILED}


def is_started(record: RunRecord) -> bool:
    """Return whether the sources are checked: columns, rows and batches are final."""
    return record.state in _STARTED


def is_broken_off(record: RunRecord) -> bool:
    """Return whether the run ended before all its rows were fed."""
    return record.state in _BROKEN_OFF


@dataclass(frozen=True, slots=True)
class Unit:
    """What becomes one output: a file, or the variants of one that several models did.

    The marks of its outputs are in the first one's account.
    """

    label: str
    files: tuple[RunFile, ...]

    @property
    def lead(self) -> str:
        """The label of the file whose account has the marks."""
        return self.files[0].label

    @property
    def is_joined(self) -> bool:
        """Whether several models' answers stand side by side."""
        return bool(self.files[0].model)

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the columns' order; none for a file that is not parted."""
        return tuple(one.model for one in self.files if one.model)

    def alone(self) -> list["Unit"]:
        """Return each of its files as an output of its own."""
        return [Unit(one.label, (one.model_copy(update={"model": ""}),)) for one in self.files]


@dataclass(frozen=True)
class RunPlan:
    """One run as publication sees it. `record.prompt` holds what `of` keeps of it.

    `labels`: the lists of the columns that have one. `ruled`: what the prompt file itself puts into a column.
    """

    record: RunRecord

    @classmethod
    def of(cls, record: RunRecord) -> "RunPlan":
        """Return the plan of a run's record. Raise PromptRefused if its prompt cannot be used."""
        if not record.prompt:
            return cls(record)
        canonical = json.dumps(record.prompt, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        file = PromptFile.parse(record.prompt)
        prompt = {
            "columns_to_code": list(file.columns_to_code),
            "labels": {one.name: list(one.labels) for one in file.columns if one.labels is not None},
            "ruled": {one.name: sorted({file.defaults[one.name], *one.put}) for one in file.columns},
            "warnings": list(file.warnings),
            "sha256": hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest(),
        }
        return cls(record.model_copy(update={"prompt": prompt}))

    @classmethod
    def from_json(cls, text: str) -> "RunPlan":
        """Return the plan that `to_json` wrote."""
        return cls(RunRecord.parse(text.encode()))

    def to_json(self) -> str:
        """Return the plan as it is kept."""
        return self.record.to_bytes().decode()

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @cached_property
    def job(self) -> Job:
        """The job; one that is not valid any more counts as the default one."""
        return parse_job(self.record.job)

    @property
    def coded(self) -> list[str]:
        """The columns that the model fills."""
        found: list[str] = self.record.prompt.get("columns_to_code", [])
        return found

    @cached_property
    def renderers(self) -> dict[str, FileRenderer]:
        """What makes the lines of each file whose columns are known."""
        return {
            one.label: FileRenderer(
                self.run_id, one.columns, self.coded, one.delimiter, one.rows, one.batches, self._asked(one)
            )
            for one in self.record.files
            if one.columns
        }

    def _asked(self, file: RunFile) -> list[str]:
        """Return which of several models do a file's batches, in turn."""
        if file.model:
            return [file.model]
        return self.job.model.names if self.job.model.several else []

    @cached_property
    def units(self) -> list["Unit"]:
        """What is published, in the order of the files."""
        found: dict[str, list[RunFile]] = {}
        for one in self.record.files:
            found.setdefault(one.input_label, []).append(one)
        return [Unit(label, tuple(files)) for label, files in found.items()]

    def unit(self, label: str) -> "Unit":
        """Return the output that a file's rows go into; KeyError for no file of the run."""
        return next(one for one in self.units if one.label == self.file(label).input_label)

    def columns(self, unit: "Unit") -> list[str]:
        """Return the columns of an output: the input's, the coded ones, ours."""
        coded = joined(self.coded, unit.models) if unit.is_joined else self.coded
        return output_columns(unit.files[0].columns, coded)

    def shape(self, unit: "Unit", missing: str) -> Shape:
        """Return how an output's lines are joined."""
        file = unit.files[0]
        return Shape(len(file.columns), len(self.coded), unit.models, file.delimiter, missing)

    def file(self, label: str) -> RunFile:
        """Return the file of that label; KeyError for another."""
        found = self.record.file(label)
        if found is None:
            raise KeyError(label)
        return found

    def output_stem(self, label: str) -> str:
        """Return the output's name without its ending."""
        fields = {
            "project": self.job.project.name,
            "version": self.job.project.version,
            "label": label,
            "date": self.record.created_at[:10].replace("-", ""),
            "run_id": self.run_id,
        }
        stem = output_name(self.job.output.naming_pattern, fields)
        if len(stem) <= _MAX_NAME:
            return stem
        return f"{stem[: _MAX_NAME - 9]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"

    def same_as(self, other: "RunPlan") -> bool:
        """Return whether another plan publishes the same: states and times apart."""
        return _essence(self.record) == _essence(other.record)


def fed_batches(cursor: Cursor | None, label: str) -> int:
    """Return how many batches of a file were fed, as the last cursor knows."""
    found = cursor.files.get(label) if cursor is not None else None
    return 0 if found is None else found.next.sequence


def _essence(record: RunRecord) -> tuple[object, ...]:
    return (record.files, record.job, record.prompt, record.results_partition)
