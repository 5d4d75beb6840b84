"""What the runner asks, in which order, and what an answer may be. Pure."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

MOST_ROWS_PER_CALL = 200
PROPOSED = "proposed"
_PAIR = re.compile(r"([0-9]{1,12})\s*(?:-|–|\.\.|to|bis)\s*([0-9]{1,12})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Wrong(ValueError):
    """An answer that cannot be taken: one line that says why, and what would do."""


class Step(StrEnum):
    """The questions, in order."""

    PROJECT = "project"
    INPUT = "input"
    PROMPT = "prompt"
    MODEL = "model"
    BATCH_SIZE = "batch size"
    ROWS = "rows"
    CONFIRM = "start"

    @property
    def flag(self) -> str:
        """The flag that answers it."""
        return "--yes" if self is Step.CONFIRM else f"--{self.value.replace(' ', '-')}"


ORDER = tuple(Step)


@dataclass(frozen=True, slots=True)
class PromptPick:
    """A prompt file, or the content of one that was proposed and is not written yet."""

    path: Path | None
    proposed: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """How it is told."""
        return PROPOSED if self.path is None else str(self.path)


@dataclass(frozen=True, slots=True)
class ModelPick:
    """A model and who answers for it. name None: the fleet's own. server: as `--model-server` says it."""

    name: str | None
    server: str = "auto"


@dataclass(frozen=True, slots=True)
class RowPick:
    """Rows from `first` to `last`, both included; of `total`."""

    first: int
    last: int
    total: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last - self.first + 1

    @property
    def all(self) -> bool:
        """Whether they are all."""
        return self.count == self.total

    @property
    def label(self) -> str:
        """The rows in the name of the output, as PRISM v6 had it."""
        return f"r{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Choices:
    """What is decided so far; None is not decided."""

    project: str | None = None
    input: Path | None = None
    copy: bool = False
    prompt: PromptPick | None = None
    model: ModelPick | None = None
    batch_size: int | None = None
    rows: RowPick | None = None

    def has(self, step: Step) -> bool:
        """Return whether a step is answered."""
        return step is not Step.CONFIRM and getattr(self, _FIELDS[step]) is not None

    def missing(self) -> list[Step]:
        """Return the steps without an answer, the confirmation left out."""
        return [one for one in ORDER[:-1] if not self.has(one)]

    def with_project(self, name: str) -> "Choices":
        """Choose a project; another one than before has other files."""
        if name == self.project:
            return self
        kept = Choices(copy=self.copy, model=self.model, batch_size=self.batch_size)
        return replace(kept, project=name)

    def with_input(self, path: Path, total: int, copy: bool = False) -> "Choices":
        """Choose a file; rows that another one does not have are asked again, a proposal is made anew."""
        if path == self.input:
            return replace(
                self, copy=copy, rows=self.rows if self.rows and self.rows.total == total else None
            )
        prompt = self.prompt if self.prompt and self.prompt.path else None
        return replace(self, input=path, copy=copy, rows=None, prompt=prompt)

    @property
    def calls(self) -> int:
        """Calls to the model, if each batch takes one."""
        if self.rows is None or self.batch_size is None:
            return 0
        return -(-self.rows.count // self.batch_size)


_FIELDS = {
    Step.PROJECT: "project",
    Step.INPUT: "input",
    Step.PROMPT: "prompt",
    Step.MODEL: "model",
    Step.BATCH_SIZE: "batch_size",
    Step.ROWS: "rows",
}


def before(step: Step) -> Step | None:
    """Return the step that comes before one."""
    at = ORDER.index(step)
    return ORDER[at - 1] if at else None


def new_project(text: str) -> str:
    """Return a new project's name. Raises Wrong."""
    name = text.strip()
    if not name:
        raise Wrong("type a name")
    if _NAME.fullmatch(name) is None:
        raise Wrong("letters, digits, '_' and '-' only, at most 64, beginning with a letter or digit")
    return name


def batch_size(text: str) -> int:
    """Return rows per call. Raises Wrong."""
    clean = text.strip()
    if not clean.isascii() or not clean.isdecimal() or len(clean) > 9:
        raise Wrong(f"type a whole number from 1 to {MOST_ROWS_PER_CALL}")
    number = int(clean)
    if not 1 <= number <= MOST_ROWS_PER_CALL:
        raise Wrong(f"from 1 to {MOST_ROWS_PER_CALL} rows fit in a call; 1 to 15 are usual")
    return number


def rows(text: str, total: int) -> RowPick:
    """Return the rows that `all`, `N` (the first N) or `A-B` means in a table of `total`. Raises Wrong."""
    clean = text.strip().lower()
    if clean in ("", "all"):
        return _picked(1, total, total)
    if clean.isascii() and clean.isdecimal() and len(clean) <= 12:
        return _picked(1, int(clean), total)
    found = _PAIR.fullmatch(clean)
    if found is None:
        raise Wrong("type all, a number like 100 for the first 100, or a range like 101-200")
    return _picked(int(found[1]), int(found[2]), total)


def _picked(first: int, last: int, total: int) -> RowPick:
    if total == 0:
        raise Wrong("the file has no rows: there is nothing to do")
    if first < 1:
        raise Wrong("rows are numbered from 1")
    if last < first:
        raise Wrong(
            f"begins behind its end: the lower number comes first, {last}-{first}"
            if last
            else "at least one row"
        )
    if last > total:
        raise Wrong(f"the file has {total:,} rows: the last may be {total}")
    return RowPick(first, last, total)
