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
_NOT_APPLICABLE_FORMS = frozenset({"not_applicable", "not-applicable", "notapplicable", "n/a", "na"})
_NOTHING_FORMS = frozenset({"-", "none"})


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


def is_nothing(value: str) -> bool:
    """Whether a value is `-` or `NONE`: they stand for "nothing" in every list of labels."""
    return fold(value) in _NOTHING_FORMS


def is_blank(value: str) -> bool:
    """Whether a model left this value empty: no text, `-`, `NONE` or a spelling of N/A."""
    return not value or is_nothing(value) or fold(value) in _NOT_APPLICABLE_FORMS


def shorten(text: str, limit: int = 60) -> str:
    """Return one printable line of at most `limit` characters, for warnings and messages."""
    line = " ".join(clean_value(text[: 4 * limit]).split())
    if not line.isprintable():  # direction marks, lone surrogates
        line = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


@dataclass(frozen=True)
class Column:
    """A column to code.

    `labels` is None for free text. `strict` refuses labels of the model's own; `gate` marks the
    first column where not_applicable_defaults are declared: it may be answered NOT_APPLICABLE.
    `put` are the values that conditions put there.
    """

    name: str
    labels: tuple[str, ...] | None
    strict: bool
    gate: bool
    put: tuple[str, ...] = ()

    def find(self, value: str) -> str | None:
        """Return the allowed label that `value` is, up to case and whitespace; None if it is none."""
        if value in self._exact:
            return value
        return self._folded.get(fold(value))

    def means(self, value: str, wanted: str) -> bool:
        """Whether an accepted answer is `wanted`: the same label, else the same text up to `fold`."""
        label = self.find(wanted)
        return value == label if label is not None else fold(value) == fold(wanted)

    def is_not_applicable(self, value: str) -> bool:
        """Whether this answer to the first column closes the row.

        A label of its list that looks like N/A is a label.
        """
        if self.gate and value == NOT_APPLICABLE:
            return True
        if fold(value) not in _NOT_APPLICABLE_FORMS:
            return False
        # A strict list without defaults leaves no room for it.
        return self.find(value) is None and (self.gate or not self.strict or self.labels is None)

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
        # A server that answers by rules falls back on the last, which must not be a condition's "-".
        allowed = {"type": "string", "enum": [*self._by_condition, *self._asked_labels]}
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
        put = " or ".join(map(quote, self._by_condition))
        ruled = f"; {put} only where a rule below says so" if put else ""
        return f"- {quote(self.name)}: one of {names}{organic}{ruled}"

    @cached_property
    def _asked_labels(self) -> tuple[str, ...]:
        labels = self.labels or ()
        return (*labels, NOT_APPLICABLE) if self.gate and NOT_APPLICABLE not in labels else labels

    @cached_property
    def _by_condition(self) -> tuple[str, ...]:
        """What conditions put there though the list does not name it: a model that obeys has to say it."""
        known = {"", *self._asked_labels}
        return tuple(x for x in dict.fromkeys(self.put) if x not in known and self.find(x) is None)


def quote(text: str) -> str:
    """Return `text` as a JSON string, readable in any script."""
    return json.dumps(text, ensure_ascii=False)


def unambiguous(names: Sequence[str], form: Any) -> dict[str, str]:
    """Return form(name) → name, without the forms that two names share."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(form(name), []).append(name)
    return {key: owners[0] for key, owners in found.items() if len(owners) == 1}
