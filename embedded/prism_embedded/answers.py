"""The rules: what the embedded model server answers to a prompt. Pure and deterministic.

A JSON schema says which object is asked for, the prompt's frames say about which rows (see `mentions`).
An array of objects gets one item per row, each with the RowID of its row; everything else is filled
property by property: labels by `labels.choose`, free text with the first sentence.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prism_embedded.labels import choose, says_yes
from prism_embedded.mentions import Mention, find_mentions
from prism_embedded.photos import PhotoFacts
from prism_embedded.sentiment import sentiment

RULES_VERSION = "1"  # raise it when an answer to the same prompt changes
MAX_SUMMARY_CHARACTERS = 120
MAX_DEPTH = 20
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s|\n|(?<=[。！？])")

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a call asks.

    :param prompts: the user messages, oldest first; the last one with a frame is the one that counts, so
        that a repair ("your reply cannot be used …") is answered for the rows it is about.
    :param format: a JSON schema, "json", or None for text.
    """

    prompts: Sequence[str]
    format: Schema | str | None = None
    photo: PhotoFacts | None = None

    def mentions(self) -> list[Mention]:
        """The rows asked about; one without a RowID where there is no frame."""
        if self.photo is None:
            for prompt in reversed(self.prompts):
                found = find_mentions(prompt)
                if found:
                    return found
        return [Mention(None, "", self.photo.sentence if self.photo else self._last())]

    def _last(self) -> str:
        """The last prompt, without lines of nothing but `═`: those frame it."""
        lines = self.prompts[-1].splitlines() if self.prompts else []
        return "\n".join(line for line in lines if not line or line.strip("═")).strip()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer: `items` (one per row) inside `whole`, which is a JSON value, or a text without items."""

    whole: Any
    items: list[dict[str, Any]]

    @property
    def text(self) -> str:
        """What the model says."""
        return self.whole if isinstance(self.whole, str) else to_json(self.whole)


def to_json(value: Any) -> str:
    """Compact JSON with the text as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def answer(question: Question, mentions: Sequence[Mention]) -> Reply:
    """What the rules answer about these rows (those of `question.mentions()`)."""
    if question.format is None or question.format == "":
        return Reply(_sentence(mentions[0], question.photo), [])
    if isinstance(question.format, str):
        return _free_object(mentions)
    return _Filler(question.format, question.photo).fill(mentions)


def first_sentence(text: str, limit: int = MAX_SUMMARY_CHARACTERS) -> str:
    """The first sentence of a text, of at most `limit` characters."""
    sentence = " ".join(_SENTENCE_END.split(text[: 4 * limit].strip(), maxsplit=1)[0].split())
    return sentence if len(sentence) <= limit else sentence[: max(limit - 1, 0)].rstrip() + "…"[:limit]


def _sentence(mention: Mention, photo: PhotoFacts | None) -> str:
    if photo:
        return photo.sentence
    mood = sentiment(mention.head).name.lower()
    return f"The text is {mood}: {first_sentence(mention.head)}"


def _free_object(mentions: Sequence[Mention]) -> Reply:
    items = [_free_item(mention) for mention in mentions]
    return Reply(items[0] if len(items) == 1 else {"mentions": items}, items)


def _free_item(mention: Mention) -> dict[str, Any]:
    identity = {} if mention.row_id is None else {"RowID": mention.row_id}
    mood, summary = sentiment(mention.head).name, first_sentence(mention.content)
    return identity | {"Sentiment": mood, "Summary": summary}


class _Filler:
    """Fills one schema."""

    def __init__(self, schema: Schema, photo: PhotoFacts | None) -> None:
        self._root = schema
        self._photo = photo

    def fill(self, mentions: Sequence[Mention]) -> Reply:
        root = self._resolved(self._root)
        if _is_array(root):
            items = self._items(root, mentions)
            return Reply(items, items)
        for name, schema in _properties(root).items():
            if _is_array(inner := self._resolved(schema)) and self._holds_objects(inner):
                items = self._items(inner, mentions)
                return Reply(self._object(root, mentions[0], 0, {name: items}), items)
        item = self._object(root, mentions[0], 0, {})
        return Reply(item, [item])

    def _holds_objects(self, array: Schema) -> bool:
        inner = array.get("items") or next(iter(array.get("prefixItems") or ()), None)
        return isinstance(inner, Mapping) and bool(_properties(self._resolved(inner)))

    def _items(self, array: Schema, mentions: Sequence[Mention]) -> list[dict[str, Any]]:
        first = array.get("prefixItems") or ()
        rest = array.get("items")
        rest = rest if isinstance(rest, Mapping) else (first[-1] if first else {})
        schemas = [*first, *[rest] * (len(mentions) - len(first))]
        return [
            self._object(self._resolved(schema), mention, 0, {})
            for schema, mention in zip(schemas, mentions, strict=False)
        ]

    def _object(self, schema: Schema, mention: Mention, depth: int, given: dict[str, Any]) -> dict[str, Any]:
        return {
            name: given[name] if name in given else self._value(name, inner, mention, depth)
            for name, inner in _properties(schema).items()
        }

    def _value(self, name: str, schema: Schema, mention: Mention, depth: int) -> Any:
        if mention.row_id is not None and name.lower() == "rowid":
            return mention.row_id
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if labels := schema.get("enum"):
            return _label(labels, name, mention)
        kind = _kind(schema)
        if depth >= MAX_DEPTH:
            return None
        if kind == "object":
            return self._object(schema, mention, depth + 1, {})
        if kind == "array":
            return self._list(name, schema, mention, depth)
        return self._scalar(name, kind, schema, mention)

    def _list(self, name: str, schema: Schema, mention: Mention, depth: int) -> list[Any]:
        inner = schema.get("items")
        count = max(1, int(schema.get("minItems") or 0))
        return [self._value(name, inner if isinstance(inner, Mapping) else {}, mention, depth + 1)] * count

    def _scalar(self, name: str, kind: str, schema: Schema, mention: Mention) -> Any:
        if kind == "null":
            return None
        if kind == "boolean":
            return says_yes(name, mention.head)
        if kind in ("integer", "number"):
            return self._number(name, kind, schema, mention)
        fact = self._photo.word(name) if self._photo else None
        if fact is None and "sentiment" in name.lower():
            fact = sentiment(mention.head).name
        limit = min(MAX_SUMMARY_CHARACTERS, int(schema.get("maxLength") or MAX_SUMMARY_CHARACTERS))
        return fact or first_sentence(mention.content or mention.title, limit)

    def _number(self, name: str, kind: str, schema: Schema, mention: Mention) -> float | int:
        if self._photo and (fact := self._photo.number(name)) is not None:
            return fact
        low, high = float(schema.get("minimum", 0)), float(schema.get("maximum", 1))
        value = low + (sentiment(mention.head).compound + 1) / 2 * (high - low)
        return round(value) if kind == "integer" else round(value, 3)

    def _resolved(self, schema: Schema) -> Schema:
        """The schema itself, behind references and the first of its alternatives that is not null."""
        for _ in range(MAX_DEPTH):
            if isinstance(reference := schema.get("$ref"), str):
                schema = self._referred(reference)
                continue
            choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if not choices:
                break
            schema = next((c for c in choices if c.get("type") != "null"), choices[0])
        return schema

    def _referred(self, reference: str) -> Schema:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return found if isinstance(found, Mapping) else {}


def _properties(schema: Schema) -> dict[str, Schema]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _is_array(schema: Schema) -> bool:
    return _kind(schema) == "array"


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _label(labels: Sequence[Any], name: str, mention: Mention) -> Any:
    names = tuple(label for label in labels if isinstance(label, str))
    return choose(names, name, mention.head) if names else labels[0]
