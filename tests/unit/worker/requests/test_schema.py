"""The schemas that a request may bring, and what meets them."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.annotation.strict_json import NotStrictJson, load_strictly
from prism_model_worker.requests.json_text import compact
from prism_model_worker.requests.schema import (
    _BOUNDS,
    _COUNTS,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_PARTS,
    Schema,
    SchemaRefused,
    read_schema,
)


def read(schema: Any) -> Schema:
    return read_schema(load_strictly(schema if isinstance(schema, str) else json.dumps(schema)))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "boolean"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


LOOP = {"$defs": {"a": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a"}}}}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (3, r"^\$: is no object$"),
        ([], r"^\$: is no object$"),
        ({}, 'type has to be "object" or "array"'),
        ({"type": "string"}, 'type has to be "object" or "array"'),
        ({"type": ["object", "null"]}, 'type has to be "object" or "array"'),
        ({"type": "thing"}, "type has to be of object, array"),
        ({"type": []}, "type has to be of"),
        ({"type": 1}, "type has to be of"),
        ({"type": "object", "properties": []}, "properties is no object"),
        (object_of(a=True), r"^\$\.a: is no object$"),
        ({"type": "array", "items": [{}]}, r"^\$\[\]: is no object$"),
        ({"type": "object", "required": "a"}, "required is no list of names"),
        ({"type": "object", "required": [1]}, "required is no list of names"),
        ({"type": "object", "required": ["a"]}, 'required names "a", which is no property'),
        ({"type": "object", "additionalProperties": 1}, r"^\$\.\*: is no object$"),
        (object_of(a={"enum": []}), "enum is no list of values"),
        (object_of(a={"enum": "x"}), "enum is no list of values"),
        (object_of(a={"anyOf": []}), "anyOf is no list of schemas"),
        (object_of(a={"anyOf": [3]}), r"^\$\.a\(0\): is no object$"),
        (object_of(a={"maxLength": -1}), "has to be a whole number"),
        (object_of(a={"maxLength": 1.5}), "has to be a whole number"),
        (object_of(a={"maxLength": "5"}), "has to be a whole number"),
        (object_of(a={"maxLength": 10**9}), "has to be a whole number"),
        (object_of(a={"minimum": "5"}), "a bound has to be a number"),
        ('{"type": "object", "properties": {"a": {"minimum": 1e999}}}', "a number is too large"),
        ('{"type": "object", "properties": {"a": {"const": [-1e999]}}}', "a number is too large"),
        (object_of(a={"minLength": 5, "maxLength": 4}), "minLength is more than maxLength"),
        ({"type": "array", "minItems": 5, "maxItems": 4}, "minItems is more than maxItems"),
        (object_of(a={"minimum": 5, "maximum": 4}), "minimum is more than maximum"),
        (object_of(a={"type": "string", "pattern": "(a+)+$"}), r'^\$\.a: "pattern" is not supported$'),
        (object_of(a={"oneOf": [{}]}), '"oneOf" is not supported'),
        ({"type": "object", "x\n" * 100: 1}, "x x x"),
        # References.
        (LOOP | object_of(x={"$ref": "#/$defs/a"}), r"^\$\.x\.next: .* refers to itself$"),
        ({"$ref": "#"}, "names no definition"),
        ({"type": "object", "$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "stand alone"),
        (object_of(a={"$ref": "#/$defs/a"}), "names no definition"),
        (object_of(a={"$ref": "#/properties/a"}), "names no definition"),
        (object_of(a={"$ref": "http://127.0.0.1/x.json"}), "names no definition"),
        (object_of(a={"$ref": 3}), "has to be a text"),
        (object_of(a={"$ref": "#/$defs/a", "type": "object"}), "stand alone"),
        ({"$defs": 3} | object_of(a={"$ref": "#/$defs/a"}), "names no definition"),
        # Size.
        (nested(MAX_DEPTH + 1), "nested deeper than 12"),
        (object_of(**{f"p{n}": {} for n in range(MAX_PARTS)}), "more than 500 parts"),
        (object_of(a={"description": "d" * 20_000}), "longer than 20000 characters"),
    ],
    ids=lambda value: json.dumps(value)[:70],
)
def test_what_is_no_schema_of_ours_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaRefused, match=message) as refused:
        read(schema)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_definitions_that_multiply_are_refused() -> None:
    layers = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 9} for n in range(9)}
    with pytest.raises(SchemaRefused, match="more than 500 parts"):
        read({"$defs": {**layers, "l9": {}}, **object_of(a={"$ref": "#/$defs/l0"})})


def references(definition: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a schema that refers so often to one definition."""
    return {"$defs": {"e": definition}, **object_of(**{str(n): {"$ref": "#/$defs/e"} for n in range(count)})}


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "definition",
    [
        {"enum": [f"{n:04x}" for n in range(1850)]},
        {"const": ["x" * 9000]},
        {"description": "d" * 9000},
        {"title": "t" * 9000},
        {"type": "object", "properties": {"n" * 9000: {}}},
        {"type": "object", "properties": {"n": {}}, "required": ["n"] * 2000},
        {"anyOf": [{"enum": ["x" * 9000]}]},
        {"type": ["object"] * 900},
    ],
    ids=lambda one: next(iter(one)),
)
def test_definitions_are_counted_each_time_they_are_put_in_place(definition: dict[str, Any]) -> None:
    """Measured before: 20 kB made 3 MB of prompt, 7 MB of request."""
    read(references(definition, 1))
    tracemalloc.start()
    with pytest.raises(SchemaRefused, match="longer than 20000 characters with its references in place"):
        read(references(definition, 249))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The work ends with the limit: what was read by then is a few of 249 definitions.
    assert most < 2_000_000


def test_small_definitions_may_be_used_often() -> None:
    part = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert len(read(references(part, 150)).text) < MAX_CHARACTERS


def test_what_was_counted_while_reading_is_not_all() -> None:
    """Names of keywords, brackets: small parts with many of them."""
    schema = references(dict.fromkeys((*_COUNTS, *_BOUNDS), 1), 240)
    with pytest.raises(SchemaRefused, match=r"^\$: longer than 20000"):
        read(schema)


def test_a_pydantic_schema_is_read() -> None:
    """What `Model.model_json_schema()` writes: definitions, titles, defaults, optional fields."""
    part = {"type": "object", "title": "Part", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema = read(
        {
            "$defs": {"Part": part},
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Dish",
            "type": "object",
            "properties": {
                "one": {"$ref": "#/$defs/Part"},
                "some": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/Part", "description": "d"},
                    "default": [],
                },
                "perhaps": {
                    "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
                    "default": None,
                },
            },
            "required": ["one"],
        }
    )
    assert schema.node == {
        "title": "Dish",
        "type": "object",
        "properties": {
            "one": part,
            "some": {"type": "array", "items": part},
            "perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["one"],
    }
    assert read(nested(MAX_DEPTH)).problem([]) is None


def test_a_server_is_not_asked_for_what_its_grammar_cannot_hold() -> None:
    """Measured: Ollama answers 500 to a bound of 2,001."""
    bounds = {"minLength": 2001, "maxLength": 5000}
    schema = read(
        {
            "type": "object",
            "properties": {
                "maxLength": {"type": "string", **bounds},
                "some": {"type": "array", "items": {"type": "string", **bounds}, "maxItems": 2000},
                "one": {"anyOf": [{"type": "string", **bounds}]},
                "text": {"enum": [{"maxLength": 9999}]},
            },
            "additionalProperties": {"type": "string", **bounds},
        }
    )
    assert schema.for_server == {
        "type": "object",
        "properties": {
            "maxLength": {"type": "string"},
            "some": {"type": "array", "items": {"type": "string"}, "maxItems": 2000},
            "one": {"anyOf": [{"type": "string"}]},
            "text": {"enum": [{"maxLength": 9999}]},
        },
        "additionalProperties": {"type": "string"},
    }
    assert (
        schema.problem(load_strictly('{"maxLength": "short"}'))
        == "$.maxLength has 5 characters, fewer than 2001"
    )


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        ({"type": "string"}, '"x"', None),
        ({"type": "string"}, "1", "$.a is a number, not a text"),
        ({"type": "number"}, '"285 kcal"', "$.a is a text, not a number"),
        ({"type": "number"}, '"285"', "$.a is a text, not a number"),
        ({"type": "number"}, "true", "$.a is a boolean, not a number"),
        ({"type": "number"}, "1e999", "$.a is a number that is too large"),
        ({"type": "number"}, "-1.10", None),
        ({"type": "integer"}, "5", None),
        ({"type": "integer"}, "5.0", None),
        ({"type": "integer"}, "5.5", "$.a is a number, not an integer"),
        ({"type": "integer"}, "false", "$.a is a boolean, not an integer"),
        ({"type": "boolean"}, "0", "$.a is a number, not a boolean"),
        ({"type": "null"}, "null", None),
        ({"type": "string"}, "null", "$.a is null, not a text"),
        ({"type": ["string", "null"]}, "[]", "$.a is an array, not a text or null"),
        ({"type": "object"}, "[]", "$.a is an array, not an object"),
        ({"type": "array"}, "{}", "$.a is an object, not an array"),
        ({}, "[1, {}, null]", None),
        ({}, '{"deep": [1e999]}', "$.a.deep[0] is a number that is too large"),
        ({"enum": ["x", 1, None]}, '"x"', None),
        ({"enum": ["x", 1, None]}, "1.0", None),
        ({"enum": ["x", 1, None]}, "null", None),
        ({"enum": ["x", 1, None]}, "true", '$.a is not one of ["x",1,null]'),
        ({"enum": ["x", 1, None]}, '"1"', '$.a is not one of ["x",1,null]'),
        ({"enum": ["x", 1, None]}, '"X"', '$.a is not one of ["x",1,null]'),
        ({"enum": [True]}, "1", "$.a is not one of [true]"),
        ({"enum": [[1, {"b": "c"}]]}, '[1.0, {"b": "c"}]', None),
        ({"enum": [[1, {"b": "c"}]]}, '[1, {"b": "d"}]', '$.a is not one of [[1,{"b":"c"}]]'),
        ({"enum": [[1, {"b": "c"}]]}, "[1]", '$.a is not one of [[1,{"b":"c"}]]'),
        ({"const": "é"}, '"é"', None),
        ({"const": "é"}, '"e"', '$.a is not "é"'),
        ({"minLength": 2, "maxLength": 3}, '"é"', "$.a has 1 characters, fewer than 2"),
        ({"minLength": 2, "maxLength": 3}, '"éé"', None),
        ({"minLength": 2, "maxLength": 3}, '"éééé"', "$.a has 4 characters, more than 3"),
        ({"minLength": 2}, "1", None),
        ({"minItems": 1, "maxItems": 2}, "[]", "$.a has 0 items, fewer than 1"),
        ({"minItems": 1, "maxItems": 2}, "[1, 2]", None),
        ({"minItems": 1, "maxItems": 2}, "[1, 2, 3]", "$.a has 3 items, more than 2"),
        ({"items": {"type": "number"}}, '[1, "2"]', "$.a[1] is a text, not a number"),
        ({"minProperties": 1, "maxProperties": 1}, "{}", "$.a has 0 keys, fewer than 1"),
        ({"minProperties": 1, "maxProperties": 1}, '{"x": 1, "y": 2}', "$.a has 2 keys, more than 1"),
        ({"minimum": 1, "maximum": 2}, "1", None),
        ({"minimum": 1, "maximum": 2}, "2.0", None),
        ({"minimum": 1, "maximum": 2}, "0.9", "$.a is too small"),
        ({"minimum": 1, "maximum": 2}, "2.1", "$.a is too large"),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, "1", "$.a is too small"),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, "2", "$.a is too large"),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, "1.5", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "3", "$.a is a number, not a text"),
        ({"required": ["b"], "properties": {"b": {}}}, "{}", '$.a lacks "b"'),
        ({"properties": {"b": {"type": "null"}}}, '{"b": 1}', "$.a.b is a number, not null"),
        ({"properties": {"b": {}}, "additionalProperties": False}, '{"c": 1}', "$.a.c was not asked for"),
        ({"properties": {"b": {}}, "additionalProperties": True}, '{"c": 1}', None),
        ({"additionalProperties": {"type": "null"}}, '{"c": 1}', "$.a.c is a number, not null"),
    ],
)
def test_what_meets_a_schema(part: dict[str, Any], value: str, problem: str | None) -> None:
    assert read(object_of(a=part)).problem(load_strictly(f'{{"a": {value}}}')) == problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
KEYWORDS = (
    "type", "properties", "required", "items", "additionalProperties", "enum", "const", "anyOf", "$ref",
    "$defs", "minLength", "maxItems", "minimum", "exclusiveMaximum", "title", "pattern",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYWORDS), JSON), JSON)
def test_any_schema_has_a_typed_outcome(schema: dict[str, Any], value: Any) -> None:
    try:
        found = read_schema(load_strictly(json.dumps({"type": "object", **schema})))
    except (SchemaRefused, NotStrictJson):
        return
    try:
        loaded = load_strictly(json.dumps(value))
    except NotStrictJson:
        return
    assert found.problem(loaded) is None or isinstance(found.problem(loaded), str)


@given(JSON)
@example(9007199254740993)
def test_a_value_meets_the_enumeration_that_it_stands_in(value: Any) -> None:
    try:
        loaded = load_strictly(json.dumps(value))
    except NotStrictJson:
        return
    schema = read(object_of(a={"enum": ["other", value]}))
    assert schema.problem({"a": loaded}) is None


@given(JSON)
def test_json_is_written_as_it_was_read(value: Any) -> None:
    try:
        loaded = load_strictly(json.dumps(value))
    except NotStrictJson:
        return
    assert json.loads(compact(loaded)) == value
    assert load_strictly(compact(loaded)) == loaded


def test_numbers_keep_their_digits() -> None:
    text = '{"a":[1.10,1e3,-0,12345678901234567890],"b":"é\\n1.10"}'
    assert compact(load_strictly(text)) == text
