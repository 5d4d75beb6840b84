"""A condition of a prompt file: what the model said in some columns decides what stands in others.

Conditions are applied after the labels are matched, in the file's order and once each; a later one sees
what an earlier one put. So they need no search for cycles.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from prism.annotation.checks import cell_text, refusal
from prism.annotation.column import quote


class Condition(BaseModel):
    """One condition. It holds when every column of `when` has one of the answers named there.

    `set` then replaces whatever the model said; `default` fills what it left empty (see `is_blank`).
    """

    # A misspelt key would leave half of a condition, and nobody would see it.
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: dict[str, tuple[str, ...]]
    set: dict[str, str] = {}
    default: dict[str, str] = {}

    def named(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield key, column and values of everything that the condition names."""
        for name, labels in self.when.items():
            yield f"when.{name}", name, labels
        for name, value in self.set.items():
            yield f"set.{name}", name, (value,)
        for name, value in self.default.items():
            yield f"default.{name}", name, (value,)

    @property
    def instruction(self) -> str:
        """One line of the system message."""
        held = " and ".join(
            f"{quote(name)} is {' or '.join(map(quote, labels))}" for name, labels in self.when.items()
        )
        forced = (f"{quote(name)} is {quote(value)}" for name, value in self.set.items())
        filled = (
            f"{quote(name)} is never empty, and {quote(value)} if nothing else fits"
            for name, value in self.default.items()
        )
        return f"- If {held}: {'; '.join((*forced, *filled))}"


def conditions_as_text(value: Any) -> Any:
    """Return the conditions of a file with every value as text, a lone label as a list of one."""
    if not isinstance(value, list | tuple):
        return value
    return [_as_text(f"conditions.{number}", condition) for number, condition in enumerate(value)]


def labels_as_text(key: str, value: Any) -> list[str]:
    """Return a label or a list of labels as a list of texts; raise a refusal for an empty one."""
    labels = [cell_text(key, label) for label in (value if isinstance(value, list | tuple) else [value])]
    if "" in labels:
        raise refusal(key, "has an empty label", "name the label")
    return labels


def _as_text(key: str, condition: Any) -> Any:
    if not isinstance(condition, Mapping):
        raise refusal(key, "is no object", 'write {"when": {…}, "set": {…}}')
    texts = dict(condition)
    if isinstance(when := texts.get("when"), Mapping):
        texts["when"] = {name: labels_as_text(f"{key}.when.{name}", x) for name, x in when.items()}
    for part in ("set", "default"):
        if isinstance(values := texts.get(part), Mapping):
            texts[part] = {name: cell_text(f"{key}.{part}.{name}", x) for name, x in values.items()}
    return texts
