"""The values of one object of a reply, found by key."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from prism.annotation.column import fold_key, unambiguous
from prism.annotation.prompt_file import PromptFile

_MISSING = object()


class Fields:
    """One object. A value may stand under a key that differs from its own in case, spaces and underscores.

    Where two keys of the object, or of the prompt file, differ in nothing else, it is not guessed.
    """

    def __init__(self, item: Mapping[str, Any], prompt_file: PromptFile) -> None:
        self._item = item
        self._prompt_file = prompt_file

    def find(self, name: str) -> Any:
        """Return the value of a key of the prompt file; `is_missing` tells whether there is none."""
        if name in self._item:
            return self._item[name]
        form = self._prompt_file.key_forms.get(name)
        key = None if form is None else self._similar.get(form)
        return _MISSING if key is None else self._item[key]

    @cached_property
    def _similar(self) -> Mapping[str, str]:
        return unambiguous(list(self._item), fold_key)


def is_missing(value: Any) -> bool:
    """Whether `Fields.find` found nothing."""
    return value is _MISSING
