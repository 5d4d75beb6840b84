"""One column to code: its allowed labels, how an answer is matched to them, how a model is asked."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

NOT_APPLICABLE = "NOT_APPLICABLE"
MAX_VALUE_CHARACTERS = 10_000
# What the grammar of a schema-enforcing server allows; a server that does not enforce meets the cap above.
MAX_FREE_TEXT_CHARACTERS = 2_000
MAX_ORGANIC_LABEL_CHARACTERS = 100

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_KEY_FILLER = re.compile(r"[\s_-]+")
_YES_OR_NO = frozenset({"y", "n", "yes", "no"})


def clean_value(text: str) -> str:
    """Trim, and take out control characters other than newline and tab."""
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    return text.strip()


def fold(text: str) -> str:
    """Return the form in which labels are compared: no case, no whitespace, composed."""
    folded = "".join(text.casefold().split())
    return folded if folded.isascii() else unicodedata.normalize("NFC", folded)


def fold_key(key: str) -> str:
    """Return the form in which keys are compared when they differ: no case, no `_`, `-` or space."""
    return _KEY_FILLER.sub("", key.casefold())


def shorten(text: str, limit: int = 60) -> str:
    """Return one line of at most `limit` characters, for warnings and messages."""
    line = " ".join(clean_value(text[: 4 * limit]).split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


@dataclass(frozen=True)
class Column:
    """A column to code.

    `labels` is None for free text. `strict` refuses labels of the model's own; `gate` marks the
    first column where not_applicable_defaults are declared: it may be answered NOT_APPLICABLE.
    """

    name: str
    labels: tuple[str, ...] | None
    strict: bool
    gate: bool

    def find(self, value: str) -> str | None:
        """Return the allowed label that `value` is, up to case and whitespace; None if it is none."""
        if value in self._exact:
            return value
        return self._folded.get(fold(value))

    @cached_property
    def _exact(self) -> frozenset[str]:
        return frozenset(self.labels or ())

    @cached_property
    def _folded(self) -> Mapping[str, str]:
        return unambiguous(self.labels or (), fold)

    @cached_property
    def is_closed_by_n(self) -> bool:
        """Whether the exact answer `N` means "no": always, unless a list of labels speaks against it."""
        return self.labels is None or "N" in self._exact or any(fold(x) in _YES_OR_NO for x in self.labels)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the column's value."""
        if self.labels is None:
            return {"type": "string", "maxLength": MAX_FREE_TEXT_CHARACTERS}
        allowed = {"type": "string", "enum": list(self._asked_labels)}
        if self.strict:
            return allowed
        # Organic labels stay possible; never an empty one.
        organic = {"type": "string", "minLength": 1, "maxLength": MAX_ORGANIC_LABEL_CHARACTERS}
        return {"anyOf": [allowed, organic]}

    @cached_property
    def instruction(self) -> str:
        """One line of the system message: the key and what may stand there."""
        if self.labels is None:
            gate = f', or "{NOT_APPLICABLE}" if the mention is not relevant' if self.gate else ""
            return f"- {quote(self.name)}: text{gate}"
        names = ", ".join(map(quote, self._asked_labels))
        organic = "" if self.strict else "; only if none fits, a short label of your own"
        return f"- {quote(self.name)}: one of {names}{organic}"

    @cached_property
    def _asked_labels(self) -> tuple[str, ...]:
        labels = self.labels or ()
        return (*labels, NOT_APPLICABLE) if self.gate and NOT_APPLICABLE not in labels else labels


def quote(text: str) -> str:
    """Return `text` as a JSON string, readable in any script."""
    return json.dumps(text, ensure_ascii=False)


def unambiguous(names: Sequence[str], form: Any) -> dict[str, str]:
    """Return form(name) → name, without the forms that two names share."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(form(name), []).append(name)
    return {key: owners[0] for key, owners in found.items() if len(owners) == 1}
