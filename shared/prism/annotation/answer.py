"""One object of a reply becomes one row's answer, or the reason why it cannot.

The order is: find the value of each column, gate on the first, match the rest to their labels.
Rules between columns come after the labels (`_code`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prism.annotation.column import (
    MAX_VALUE_CHARACTERS,
    NOT_APPLICABLE,
    Column,
    clean_value,
    fold,
    fold_key,
    quote,
    shorten,
    unambiguous,
)
from prism.annotation.prompt_file import PromptFile
from prism.messages.reasons import RowReason

_NOT_APPLICABLE_FORMS = frozenset({"not_applicable", "not-applicable", "notapplicable", "n/a", "na"})
_MISSING = object()


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


class _Refused(Exception):
    def __init__(self, reason: RowReason, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(reason, detail)


def read_answer(item: Mapping[str, Any], prompt_file: PromptFile) -> Answer | Problem:
    """Return what one object of a reply says about its row."""
    try:
        return _code(item, prompt_file)
    except _Refused as refused:
        return refused.problem


def find_value(item: Mapping[str, Any], name: str, taken: frozenset[str]) -> Any:
    """Return the value under `name`, else under the one key that differs only in case and underscores.

    `taken` are the names that have an exact claim to a key. `is_missing` tells whether there is none.
    """
    value = item.get(name, _MISSING)
    if value is not _MISSING:
        return value
    form = fold_key(name)
    if sum(fold_key(other) == form for other in taken) > 1:
        return _MISSING
    key = unambiguous([key for key in item if key not in taken], fold_key).get(form)
    return _MISSING if key is None else item[key]


def is_missing(value: Any) -> bool:
    """Whether find_value found nothing."""
    return value is _MISSING


def _code(item: Mapping[str, Any], prompt_file: PromptFile) -> Answer:
    first, *others = prompt_file.columns
    value = _value(item, first, prompt_file)
    if _is_not_applicable(value, first):
        return Answer(dict(prompt_file.defaults), ())
    warnings: list[str] = []
    values = {first.name: _label(first, value, warnings)}
    if values[first.name] == "N" and first.is_closed_by_n:
        return Answer(values | {column.name: "-" for column in others}, tuple(warnings))
    for column in others:
        values[column.name] = _label(column, _value(item, column, prompt_file), warnings)
    return Answer(values, tuple(warnings))


def _is_not_applicable(value: str, first: Column) -> bool:
    """Whether the first column closes the row. A label of its list that looks like N/A is a label."""
    if first.gate and value == NOT_APPLICABLE:
        return True
    if fold(value) not in _NOT_APPLICABLE_FORMS:
        return False
    # A strict list without defaults leaves no room for it.
    return first.find(value) is None and (first.gate or not first.strict or first.labels is None)


def _value(item: Mapping[str, Any], column: Column, prompt_file: PromptFile) -> str:
    found = find_value(item, column.name, prompt_file.keys)
    if is_missing(found):
        raise _Refused(RowReason.SCHEMA_VIOLATION, f"key {quote(column.name)} is missing")
    if isinstance(found, bool):
        return "true" if found else "false"
    if not isinstance(found, str):  # numbers are text already (strict_json)
        kind = "null" if found is None else "a list" if isinstance(found, list) else "an object"
        raise _Refused(RowReason.SCHEMA_VIOLATION, f"{quote(column.name)} is {kind}, not text")
    text = clean_value(str(found))
    if len(text) > MAX_VALUE_CHARACTERS:
        detail = f"{quote(column.name)} is longer than {MAX_VALUE_CHARACTERS} characters"
        raise _Refused(RowReason.SCHEMA_VIOLATION, detail)
    return text


def _label(column: Column, value: str, warnings: list[str]) -> str:
    if column.labels is None:
        return value
    label = column.find(value)
    if label is not None:
        return label
    if not value:
        raise _Refused(RowReason.SCHEMA_VIOLATION, f"{quote(column.name)} is empty")
    detail = f"{quote(column.name)} is {quote(shorten(value))}, which is not in its list"
    if column.strict:
        raise _Refused(RowReason.LABEL_NOT_ALLOWED, detail)
    warnings.append(detail)
    return value
