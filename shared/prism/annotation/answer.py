"""One object of a reply becomes one row's answer, or the reason why it cannot.

The order is: find the value of each column, gate on the first, match the rest to their labels, apply the
prompt file's conditions. What is wrong with a value counts only where no condition replaces it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism.annotation.column import MAX_VALUE_CHARACTERS, Column, clean_value, fold, is_blank, quote, shorten
from prism.annotation.condition import Condition
from prism.annotation.fields import Fields, is_missing
from prism.annotation.prompt_file import PromptFile
from prism.messages.reasons import RowReason


@dataclass(frozen=True, slots=True)
class Answer:
    """An accepted answer: a value for every column to code, and what was odd about it."""

    values: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row's answer is not accepted. `detail` is for logs and the repair, not for a cell."""

    reason: RowReason
    detail: str


@dataclass(slots=True)
class _Cell:
    """One column of one row: what the model said ("" for nothing), and what is made of it.

    `ruled`: a condition or a closed row put the value; only a condition's `set` replaces it.
    """

    value: str
    said: str = ""
    ruled: bool = False
    warning: str = ""
    problem: Problem | None = None


_Cells = dict[str, _Cell]


def read_answer(item: Mapping[str, Any], prompt_file: PromptFile) -> Answer | Problem:
    """Return what one object of a reply says about its row."""
    fields = Fields(item, prompt_file)
    first, *others = prompt_file.columns
    gate = _cell(first, fields.find(first.name))
    if first.is_not_applicable(gate.value):
        return Answer(dict(prompt_file.defaults), ())
    cells = {first.name: gate}
    if gate.problem is None and prompt_file.closes(gate.value):
        cells |= {column.name: _Cell("-", ruled=True) for column in others}
    else:
        cells |= {column.name: _cell(column, fields.find(column.name)) for column in others}
    for condition in prompt_file.conditions:
        reason = _reason(condition, cells, prompt_file)
        if reason is not None:
            _apply(condition, cells, prompt_file, reason)
    return _outcome(cells)


def _outcome(cells: _Cells) -> Answer | Problem:
    for cell in cells.values():
        if cell.problem is not None:
            return cell.problem
    values = {name: cell.value for name, cell in cells.items()}
    return Answer(values, tuple(cell.warning for cell in cells.values() if cell.warning))


def _cell(column: Column, found: Any) -> _Cell:
    if is_missing(found):
        return _violation(column, "is missing")
    if found is None:
        return _violation(column, "is null, not text")
    if isinstance(found, list | dict):
        kind = "a list" if isinstance(found, list) else "an object"
        return _violation(column, f"is {kind}, not text", str(found) if found else "")
    # Numbers are text already (strict_json).
    text = clean_value(str(found).lower() if isinstance(found, bool) else str(found))
    if len(text) > MAX_VALUE_CHARACTERS:
        return _violation(column, f"is longer than {MAX_VALUE_CHARACTERS} characters", text)
    return _labelled(column, text)


def _labelled(column: Column, text: str) -> _Cell:
    label = text if column.labels is None else column.find(text)
    if label is not None:
        return _Cell(label, text)
    if not text:
        return _violation(column, "is empty")
    detail = f"{quote(column.name)} is {quote(shorten(text))}, which is not in its list"
    if column.strict:
        return _Cell(text, text, problem=Problem(RowReason.LABEL_NOT_ALLOWED, detail))
    return _Cell(text, text, warning=detail)


def _violation(column: Column, what: str, said: str = "") -> _Cell:
    return _Cell("", said, problem=Problem(RowReason.SCHEMA_VIOLATION, f"{quote(column.name)} {what}"))


def _reason(condition: Condition, cells: _Cells, prompt_file: PromptFile) -> str | None:
    """Return why the condition holds, None if it does not."""
    for name, wanted in condition.when.items():
        cell, column = cells[name], prompt_file.column(name)
        if cell.problem is not None or not any(column.means(cell.value, answer) for answer in wanted):
            return None
    return " and ".join(f"{quote(name)} is {quote(shorten(cells[name].value))}" for name in condition.when)


def _apply(condition: Condition, cells: _Cells, prompt_file: PromptFile, reason: str) -> None:
    filled = {name: value for name, value in condition.default.items() if _is_open(cells[name])}
    for name, value in (condition.set | filled).items():
        said = cells[name].said
        value = prompt_file.column(name).find(value) or value
        warning = ""
        if said and fold(said) != fold(value):
            warning = (
                f"{quote(name)} was {quote(shorten(said))}, set to {quote(shorten(value))} because {reason}"
            )
        cells[name] = _Cell(value, said, ruled=True, warning=warning)


def _is_open(cell: _Cell) -> bool:
    return not cell.ruled and is_blank(cell.said)
