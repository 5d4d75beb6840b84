"""A model's reply becomes one answer or problem per row.

Packaging is forgiven (thoughts, code fences, prose around the JSON); the JSON itself is read strictly.
Objects are matched to rows by the RowID that they carry, never by position, so an object for another
row labels nothing. What was cut off is not searched for complete parts.
"""

import re
from typing import Any

from prism.annotation.answer import Answer, Problem, read_answer
from prism.annotation.column import fold_key, quote, shorten
from prism.annotation.fields import Fields, is_missing
from prism.annotation.prompt import MENTIONS, Prompt
from prism.annotation.prompt_file import ROW_ID, PromptFile
from prism.annotation.strict_json import NotStrictJson, NumberText, end_of_value, load_strictly
from prism.messages.reasons import RowReason

# A bracket that can open JSON of use here; "[1]" and "{topic}" in prose cannot.
_OPENING = re.compile(r'\{\s*"|\[\s*[\[{]')
_BRACKET = re.compile(r"[\[\]{}]")
_HTML = re.compile(r"<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
_INTEGRAL = re.compile(r"(-?\d+)\.0+")
_THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"))

Item = dict[str, Any]


class BadReply(Exception):
    """Nothing in the reply can be used, for any row. `detail` is for logs and the repair."""

    def __init__(self, reason: RowReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_reply(text: str, prompt: Prompt, prompt_file: PromptFile) -> list[Answer | Problem]:
    """Return an answer or a problem for each row of the prompt, in the rows' order.

    Raises BadReply when the reply as a whole is empty, not JSON or of another shape.
    """
    items = _items(values_of(text), prompt_file)
    found = _match(items, prompt, prompt_file)
    return [_outcome(identity, found.get(identity, []), prompt_file) for identity in prompt.identities]


def _outcome(identity: str, items: list[Item], prompt_file: PromptFile) -> Answer | Problem:
    if not items:
        return Problem(RowReason.MISSING_ROW, f"no object has RowID {quote(identity)}")
    if len(items) > 1:
        return Problem(RowReason.AMBIGUOUS_ROW, f"{len(items)} objects have RowID {quote(identity)}")
    return read_answer(items[0], prompt_file)


def _match(items: list[Item], prompt: Prompt, prompt_file: PromptFile) -> dict[str, list[Item]]:
    """Group the objects by the identity that they carry; those of no row of the prompt are left out."""
    alone = len(prompt.identities) == 1 and len(items) == 1
    found: dict[str, list[Item]] = {}
    for item in items:
        row_id = Fields(item, prompt_file).find(ROW_ID)
        identity = _identity(row_id, prompt.identities)
        if alone and is_missing(row_id):  # there is no other row that it could be about
            identity = prompt.identities[0]
        if identity is not None:
            found.setdefault(identity, []).append(item)
    return found


def _identity(row_id: Any, identities: tuple[str, ...]) -> str | None:
    if not isinstance(row_id, str):
        return None
    text = row_id.strip()
    if not isinstance(row_id, NumberText):
        return text if text in identities else None
    integral = _INTEGRAL.fullmatch(text)
    known = {text, integral[1] if integral else text}.intersection(identities)
    return known.pop() if len(known) == 1 else None


def _items(values: list[Any], prompt_file: PromptFile) -> list[Item]:
    lists = [_objects(value, prompt_file) for value in values]
    usable = [items for items in lists if items is not None]
    if not usable:
        detail = f"the reply holds neither {quote(MENTIONS)} nor an object with the keys asked for"
        raise BadReply(RowReason.SCHEMA_VIOLATION, detail)
    return [item for items in usable for item in items]


def _objects(value: Any, prompt_file: PromptFile) -> list[Item] | None:
    """Return the answer objects in one JSON value, None if it is no container of them."""
    if isinstance(value, dict):
        if isinstance(value.get(MENTIONS), list):
            value = value[MENTIONS]
        elif len(value) == 1 and isinstance(only := next(iter(value.values())), list):
            value = only
        else:
            return [value] if _is_answer(value, prompt_file) else None
    if not isinstance(value, list):
        return None
    return [item for item in value if isinstance(item, dict)]


def _is_answer(value: Item, prompt_file: PromptFile) -> bool:
    return not prompt_file.all_forms.isdisjoint(map(fold_key, value))


def values_of(text: str) -> list[Any]:
    """Return the JSON objects and arrays in the reply; all of them must be sound."""
    text = text.strip().removeprefix("\ufeff").lstrip()
    if not text:
        raise BadReply(RowReason.EMPTY_REPLY, "the reply is empty")
    if text[0] in "{[":
        try:
            return [load_strictly(text)]
        except NotStrictJson:
            pass  # perhaps prose behind it
    text = without_thoughts(text).strip()
    if not text:
        raise BadReply(RowReason.EMPTY_REPLY, "the reply holds thoughts only")
    if _HTML.match(text):
        raise BadReply(RowReason.NOT_JSON, "the reply is HTML")
    try:
        return _embedded(text)
    except NotStrictJson as error:
        raise BadReply(RowReason.NOT_JSON, shorten(str(error), 200)) from None


def _embedded(text: str) -> list[Any]:
    values, prose = [], []
    position = 0
    while opening := _OPENING.search(text, position):
        end = end_of_value(text, opening.start())
        if end is None:
            raise NotStrictJson("JSON that is not closed")
        prose.append(text[position : opening.start()])
        values.append(load_strictly(text[opening.start() : end]))
        position = end
    if not values:
        load_strictly(text)  # says why not, unless it is a lone number, string or empty list
    elif _leaves_open("".join((*prose, text[position:]))):
        raise NotStrictJson("a bracket that is not closed")
    return values


def _leaves_open(prose: str) -> bool:
    """Whether a bracket around or behind the JSON was never closed: something was cut off."""
    depth = 0
    for bracket in _BRACKET.findall(prose):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
    return depth > 0


def without_thoughts(text: str) -> str:
    """Take out what a reasoning model wrote to itself. Some templates swallow the opening tag."""
    for opening, closing in _THOUGHTS:
        first, orphan = text.find(opening), text.find(closing)
        if orphan != -1 and not -1 < first < orphan:
            text = text[orphan + len(closing) :]
        parts = text.split(opening)
        # What was never closed is thought to its end.
        text = parts[0] + "".join(part.partition(closing)[2] for part in parts[1:])
    return text
