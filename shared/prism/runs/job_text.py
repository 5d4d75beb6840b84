"""A job file as text: every key with its meaning; what is not decided is commented out, as it would be.

A line that is commented out shows the key's default, or an example where there is none. Texts are always
quoted, so whatever stands in a value, `read_job_text` gives it back.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prism.runs.job import Job
from prism.runs.keys import section_of
from prism.runs.marked_yaml import quoted

_COMMENT_COLUMN = 36
_WIDTH = 104
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def render_job(values: Mapping[str, Any], heading: Sequence[str] = ()) -> str:
    """Return the text of a job file.

    values: what is decided, nested as in the file; heading: lines for people, put first as comments.
    Raises ValueError for a text that YAML cannot hold (half a surrogate pair).
    """
    lines = (f"# {line}".rstrip() for line in heading)
    return "\n".join(chain(lines, _section(Job, values, ""))).lstrip("\n") + "\n"


def example() -> dict[str, Any]:
    """Return a job that says every key: with its example, or its default where it has none."""
    return _example(Job)


def sentence(text: str) -> str:
    """Return a description as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _example(section: type[BaseModel]) -> dict[str, Any]:
    found = {}
    for name, field in section.model_fields.items():
        inner = section_of(field)
        found[name] = _shown(field) if inner is None or _is_list(field) else _example(inner)
    return found


def _shown(field: FieldInfo) -> Any:
    return field.examples[0] if field.examples else field.get_default(call_default_factory=True)


def _section(section: type[BaseModel], values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = section_of(field)
        if not indent:
            yield ""
        if inner is None:
            yield from _line(name, field, values, indent)
            continue
        if _is_list(field):
            yield f"{indent}# {sentence(_plain(field.description or ''))}"
            yield from _items(name, inner, field, values, indent)
        else:
            yield f"{indent}# {sentence(_plain(inner.__doc__ or ''))}"
            yield f"{indent}{name}:"
            yield from _section(inner, values.get(name) or {}, indent + "  ")


def _line(name: str, field: FieldInfo, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    decided = values.get(name) is not None
    default = field.get_default(call_default_factory=True)
    value = values[name] if decided else default if default not in (None, "", [], {}) else _shown(field)
    entry = f"{indent}{'' if decided else '# '}{name}: {_value(value)}"
    meaning = textwrap.wrap(_plain(field.description or ""), _WIDTH - _COMMENT_COLUMN - len(" # "))
    beside = [entry] if len(entry) < _COMMENT_COLUMN else [entry, ""]
    for left, right in zip_longest(beside, [""] * (len(beside) - 1) + meaning, fillvalue=""):
        yield f"{left:<{_COMMENT_COLUMN}} # {right}" if right else left


def _items(
    name: str, section: type[BaseModel], field: FieldInfo, values: Mapping[str, Any], indent: str
) -> Iterator[str]:
    decided = bool(values.get(name))
    # A key with nothing behind it is as if it were not there.
    yield f"{indent}{name}:" if decided or not indent else f"{indent}# {name}:"
    for item in values[name] if decided else _shown(field):
        bullet = "- "
        for key in section.model_fields:
            if item.get(key) is not None:
                yield f"{indent}{'' if decided else '# '}  {bullet}{key}: {_value(item[key])}"
                bullet = "  "


def _is_list(field: FieldInfo) -> bool:
    return isinstance(field.get_default(call_default_factory=True), list)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)}: {_value(one)}' for key, one in value.items())}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else quoted(name)


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())
