"""The part of JSON Schema (draft 2020-12) that a request may ask for.

It is the part that a schema-enforcing server understands and that can be checked in bounded time: no
`pattern` (a regular expression may run for ever), no reference to itself (nor would a model's answer end).
Local references are put in place; annotations other than `title` and `description` are left out. The
limits hold for what comes out, too, and are checked while it grows: 20 kB of references make megabytes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prism.annotation.column import quote, shorten
from prism.annotation.strict_json import NumberText
from prism_model_worker.requests import conformance
from prism_model_worker.requests.json_text import compact, is_text

MAX_CHARACTERS = 20_000
MAX_DEPTH = 12
MAX_PARTS = 500
# A server's grammar repeats a part at most so often; longer bounds are checked here alone.
MAX_REPETITIONS = 2_000

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_SHOWN = ("title", "description")
_LEFT_OUT = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "default", "examples", "example", "format"}
    | {"deprecated", "readOnly", "writeOnly"}
)
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_PARTS = ("properties", "items", "additionalProperties", "anyOf")
_PAIRS = (*zip(_COUNTS[::2], _COUNTS[1::2], strict=True), _BOUNDS[:2])
_DEFINITIONS = {"#/$defs": "$defs", "#/definitions": "definitions"}

Node = dict[str, Any]


class SchemaRefused(ValueError):
    """A schema that is none, or asks for too much. The message says where and what."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that was read: `node` is plain JSON without references."""

    node: Mapping[str, Any]

    @property
    def for_server(self) -> Node:
        """The schema that a server is asked to enforce: without bounds that its grammar cannot hold."""
        return _without_long_bounds(self.node)

    @property
    def text(self) -> str:
        """The schema as a model is shown it."""
        return compact(self.node)

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a strictly parsed value, in one line; None if nothing is."""
        return conformance.problem(value, self.node, "$")


def read_schema(value: Any) -> Schema:
    """Return the schema in a strictly parsed value. Raises SchemaRefused."""
    if not isinstance(value, dict):
        raise SchemaRefused("$: is no object")
    if len(compact(value)) > MAX_CHARACTERS:
        raise SchemaRefused(f"$: is longer than {MAX_CHARACTERS} characters")
    node = _Reader(value).read(value, _Place("$"))
    if node.get("type") not in ("object", "array"):
        raise SchemaRefused('$: its type has to be "object" or "array"')
    schema = Schema(node)
    if len(schema.text) > MAX_CHARACTERS:
        raise _Place("$").too_long()
    return schema


class _Place(NamedTuple):
    """Where in the schema a part stands, and the references that led there."""

    path: str
    depth: int = 0
    within: tuple[str, ...] = ()

    def below(self, step: str) -> "_Place":
        return _Place(self.path + step, self.depth + 1, self.within)

    def refusal(self, what: str) -> SchemaRefused:
        return SchemaRefused(f"{shorten(self.path, 100)}: {what}")

    def too_long(self) -> SchemaRefused:
        return self.refusal(f"longer than {MAX_CHARACTERS} characters with its references in place")


class _Reader:
    """One reading of a schema: puts definitions in the place of references, and counts what that makes.

    Counted are parts, and the characters of all that is no part: the schema read so far is longer.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._parts = 0
        self._characters = 0
        self._keywords: dict[str, Callable[[Any, _Place], Any]] = {
            "type": _type,
            "properties": self._properties,
            "required": _required,
            "items": lambda value, place: self.read(value, place.below("[]")),
            "additionalProperties": self._additional,
            "enum": _enum,
            "const": _plain,
            "anyOf": self._any_of,
            **dict.fromkeys(_COUNTS, _count),
            **dict.fromkeys(_BOUNDS, _bound),
        }

    def read(self, value: Any, place: _Place) -> Node:
        """Return a part of the schema in plain JSON."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise place.refusal(f"the schema has more than {MAX_PARTS} parts")
        if place.depth > MAX_DEPTH:
            raise place.refusal(f"is nested deeper than {MAX_DEPTH}")
        if not isinstance(value, dict):
            raise place.refusal("is no object")
        if "$ref" in value:
            return self._definition(value, place)
        node: Node = {key: value[key] for key in _SHOWN if is_text(value.get(key))}
        self._grow(node, place)
        for key, given in value.items():
            if key in _SHOWN or key in _LEFT_OUT:
                continue
            if key not in self._keywords:
                raise place.refusal(f"{_named(key)} is not supported")
            node[key] = self._keywords[key](given, place)
            if key not in _OF_PARTS:
                self._grow(node[key], place)
        _check_sense(node, place)
        return node

    def _grow(self, read: Any, place: _Place) -> None:
        self._characters += len(compact(read))
        if self._characters > MAX_CHARACTERS:
            raise place.too_long()

    def _definition(self, value: Node, place: _Place) -> Node:
        name = value["$ref"]
        if not is_text(name) or not set(value) <= {"$ref", *_SHOWN, *_LEFT_OUT}:
            raise place.refusal("$ref has to be a text, and to stand alone")
        if name in place.within:
            raise place.refusal(f"{_named(name)} refers to itself")
        head, _, key = name.rpartition("/")
        definitions = self._root.get(_DEFINITIONS.get(head, ""))
        if not isinstance(definitions, dict) or key not in definitions:
            raise place.refusal(f"{_named(name)} names no definition; use #/$defs/NAME")
        return self.read(definitions[key], place._replace(within=(*place.within, name)))

    def _properties(self, value: Any, place: _Place) -> Node:
        if not isinstance(value, dict):
            raise place.refusal("properties is no object")
        self._grow(list(value), place)
        return {name: self.read(part, place.below(f".{shorten(name, 40)}")) for name, part in value.items()}

    def _additional(self, value: Any, place: _Place) -> Any:
        return value if isinstance(value, bool) else self.read(value, place.below(".*"))

    def _any_of(self, value: Any, place: _Place) -> list[Node]:
        if not isinstance(value, list) or not value:
            raise place.refusal("anyOf is no list of schemas")
        return [self.read(part, place.below(f"({number})")) for number, part in enumerate(value)]


def _type(value: Any, place: _Place) -> Any:
    names = value if isinstance(value, list) else [value]
    if not names or not all(is_text(name) and name in TYPES for name in names):
        raise place.refusal(f"type has to be of {', '.join(TYPES)}")
    return value


def _required(value: Any, place: _Place) -> list[str]:
    if not isinstance(value, list) or not all(map(is_text, value)):
        raise place.refusal("required is no list of names")
    return value


def _enum(value: Any, place: _Place) -> Any:
    if not isinstance(value, list) or not value:
        raise place.refusal("enum is no list of values")
    return _plain(value, place)


def _count(value: Any, place: _Place) -> int:
    if not isinstance(value, NumberText) or not value.isdecimal() or len(value) > 9:
        raise place.refusal("a length or count has to be a whole number")
    return int(value)


def _bound(value: Any, place: _Place) -> Any:
    if not isinstance(value, NumberText):
        raise place.refusal("a bound has to be a number")
    return _plain(value, place)


def _plain(value: Any, place: _Place) -> Any:
    """Return a value with numbers as numbers."""
    if isinstance(value, NumberText):
        if not math.isfinite(float(value)):
            raise place.refusal("a number is too large")
        return int(value) if value.lstrip("-").isdecimal() else float(value)
    if isinstance(value, dict):
        return {name: _plain(item, place) for name, item in value.items()}
    return [_plain(item, place) for item in value] if isinstance(value, list) else value


def _check_sense(node: Node, place: _Place) -> None:
    """Refuse what no answer can meet: a server would fail at it, as if it were down."""
    for least, most in _PAIRS:
        if least in node and most in node and node[least] > node[most]:
            raise place.refusal(f"{least} is more than {most}")
    unknown = sorted(set(node.get("required", ())) - set(node.get("properties", ())))
    if unknown:
        raise place.refusal(f"required names {_named(unknown[0])}, which is no property")


def _named(name: Any) -> str:
    return quote(shorten(str(name), 40))


def _without_long_bounds(node: Mapping[str, Any]) -> Node:
    found = {key: item for key, item in node.items() if key not in _COUNTS or item <= MAX_REPETITIONS}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _without_long_bounds(found[key])
    if "properties" in found:
        found["properties"] = {name: _without_long_bounds(item) for name, item in found["properties"].items()}
    if "anyOf" in found:
        found["anyOf"] = [_without_long_bounds(item) for item in found["anyOf"]]
    return found
