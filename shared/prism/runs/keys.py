"""Keys and values that people write: what is wrong with them, and the nearest that is right."""

import difflib
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_MESSAGES = {
    "missing": "is missing",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
}


def is_nothing(value: Any) -> bool:
    """Return whether a value of a file is as if its key were not there."""
    return value is None or value == ""


def problem(error: ErrorDetails, whole: type[BaseModel]) -> str:
    """Return what is wrong with a value of `whole`, what is allowed, and the nearest that is, in one line."""
    field = _field_at(whole, error["loc"])
    message = _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch" and field is not None:
        message = f"not allowed; {field.description}"
    if error["type"] == "missing" or isinstance(error["input"], dict | list):
        return message
    allowed = re.findall("'([^']*)'", message) if error["type"] == "literal_error" else []
    near = difflib.get_close_matches(str(error["input"]).casefold(), allowed, n=1)
    value = repr(error["input"])
    shown = value if len(value) <= 80 else f"{value[:79]}…"
    return f"{message} (it is {shown}){f'; did you mean {near[0]}?' if near else ''}"


def _field_at(section: type[BaseModel] | None, path: tuple[str | int, ...]) -> FieldInfo | None:
    field = None
    for name in (step for step in path if isinstance(step, str)):
        field = section.model_fields.get(name) if section is not None else None
        section = section_of(field) if field is not None else None
    return field


def nearest_key(keys: tuple[str | int, ...], known: tuple[str, ...], whole: type[BaseModel]) -> str:
    """Return the advice for a key that is none: the nearest right name, or where it belongs in `whole`."""
    name = str(keys[-1])
    near = difflib.get_close_matches(name.casefold().strip(), known, n=1)
    elsewhere = [path for path in key_paths(whole) if path.rpartition(".")[2] == name]
    if near:
        return f"no such key; did you mean {near[0]}?"
    if len(elsewhere) == 1:
        return f"no such key here; it belongs to another section: {elsewhere[0]}"
    return f"no such key; there are: {', '.join(known)}"


def unknown_keys(
    fields: Any, section: type[BaseModel], above: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], tuple[str, ...]]]:
    """Yield the paths of keys that are none, each with those that its section has."""
    if not isinstance(fields, dict):
        return
    for key, value in fields.items():
        path = (*above, key)
        if key not in section.model_fields:
            yield path, tuple(section.model_fields)
            continue
        inner = section_of(section.model_fields[key])
        for number, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if inner is not None:
                yield from unknown_keys(item, inner, path if number is None else (*path, number))


def key_paths(section: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys below a section; an item of a list has its list's name."""
    for name, info in section.model_fields.items():
        yield above + name
        inner = section_of(info)
        if inner is not None:
            yield from key_paths(inner, f"{above}{name}.")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, one or a list of them; None for a value."""
    for one in (field.annotation, *get_args(field.annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None
