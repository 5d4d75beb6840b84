"""Versions side by side: what was released is read by today's code, and today's by what was released.

`tests/data/schema_versions/N/` holds the JSON Schemas of release N and messages that its services sent.
A change that is no addition goes red here. If it must be, it needs a topic of its own, not a new number.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from prism.messages import ALL_MESSAGES, SCHEMA_VERSION, BadMessage, Batch, Message

RELEASES = sorted((Path(__file__).parents[2] / "data" / "schema_versions").iterdir())
_PROSE = {"title", "description", "default"}
MODELS = {kind.__name__: kind for kind in ALL_MESSAGES}


def recorded() -> Iterator[Any]:
    for release in RELEASES:
        for number, line in enumerate((release / "messages.jsonl").read_text().splitlines()):
            name, value = json.loads(line)
            yield pytest.param(MODELS[name], value, id=f"{release.name}-{number}-{name}")


RECORDED = list(recorded())


def test_the_version_of_today_is_recorded() -> None:
    assert [one.name for one in RELEASES] == [str(one) for one in range(1, SCHEMA_VERSION + 1)]
    assert {one.values[0] for one in RECORDED} == set(ALL_MESSAGES)


@pytest.mark.parametrize(("kind", "value"), RECORDED)
def test_what_a_release_sent_is_read_whole(kind: type[Message], value: dict[str, Any]) -> None:
    read = kind.parse(json.dumps(value).encode())
    assert _within(value, json.loads(read.to_bytes())), "a field that was sent is lost"


def _within(sent: Any, read: Any) -> bool:
    if isinstance(sent, dict):
        return isinstance(read, dict) and all(
            name in read and _within(value, read[name]) for name, value in sent.items()
        )
    if isinstance(sent, list):
        return isinstance(read, list) and len(sent) == len(read) and all(map(_within, sent, read))
    return bool(sent == read)


def shapes(schema: Any) -> Any:
    """Return a schema without its prose; of its own properties' names nothing is taken away."""
    if isinstance(schema, dict):
        return {
            name: {key: shapes(one) for key, one in part.items()} if name == "properties" else shapes(part)
            for name, part in schema.items()
            if name not in _PROSE
        }
    return [shapes(one) for one in schema] if isinstance(schema, list) else schema


def parts(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"": schema, **schema.get("$defs", {})}


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what is no addition in a message or a part of it."""
    before, now = shapes(old), shapes(new)
    found = [
        f"{name} is {now.get('properties', {}).get(name, 'gone')}, was {shape}"
        for name, shape in before.get("properties", {}).items()
        if now.get("properties", {}).get(name) != shape
    ]
    found += [f"{name} is wanted, and was not sent" for name in _required(new) - _required(old)]
    for name in _required(old) - _required(new):
        if new["properties"].get(name, {}).get("default") is None:
            found.append(f"{name} was wanted, and may be left out now")
    # An older reader cannot read a value that it does not know.
    if before.get("enum") != now.get("enum"):
        found.append(f"one of {now.get('enum')}, was {before.get('enum')}")
    return found


def _required(schema: dict[str, Any]) -> set[str]:
    return set(schema.get("required", ()))


@pytest.mark.parametrize("release", RELEASES, ids=lambda one: one.name)
@pytest.mark.parametrize("kind", ALL_MESSAGES, ids=lambda one: one.__name__)
def test_messages_changed_by_additions_only(kind: type[Message], release: Path) -> None:
    path = release / f"{kind.__name__}.json"
    if not path.exists():
        return  # the message is newer than the release
    old, new = parts(json.loads(path.read_text())), parts(kind.model_json_schema())
    found = {name: breaks(part, new[name]) if name in new else ["gone"] for name, part in old.items()}
    assert {name: why for name, why in found.items() if why} == {}


def test_what_is_no_addition_is_seen() -> None:
    schema = Batch.model_json_schema()
    properties = schema["properties"]
    gone = {name: one for name, one in properties.items() if name != "rows"}
    assert breaks(schema, {**schema, "properties": gone})
    assert breaks(schema, {**schema, "properties": {**properties, "sequence": {"type": "string"}}})
    assert breaks(schema, {**schema, "required": [*schema["required"], "schema_version"]})
    assert breaks(schema, {**schema, "required": schema["required"][1:]})
    assert breaks({"enum": ["a"]}, {"enum": ["a", "b"]})
    assert not breaks(schema, {**schema, "properties": {**properties, "new": {"type": "string"}}})


JUNK = st.dictionaries(
    st.text(max_size=20).map(lambda text: f"x_{text}"),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


def with_more(value: Any, junk: dict[str, Any]) -> Any:
    """Return a message as a newer version may write it: with more in each of its parts."""
    if isinstance(value, BaseModel):
        fields = {name: with_more(getattr(value, name), junk) for name in type(value).model_fields}
        return {**junk, **fields}
    if isinstance(value, dict):
        return {name: with_more(one, junk) for name, one in value.items()}
    return [with_more(one, junk) for one in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("kind", "value"), RECORDED)
@given(junk=JUNK, version=st.integers(min_value=0, max_value=2**31))
def test_of_a_newer_version_what_is_known_is_read(
    kind: type[Message], value: dict[str, Any], junk: dict[str, Any], version: int
) -> None:
    message = kind.model_validate(value)
    newer = with_more(message, junk) | {"schema_version": version}
    read = kind.parse(json.dumps(newer, default=str).encode())
    assert read == message.model_copy(update={"schema_version": version})


@pytest.mark.parametrize("kind", ALL_MESSAGES, ids=lambda one: one.__name__)
def test_a_newer_one_that_cannot_be_read_says_that_it_is_newer(kind: type[Message]) -> None:
    with pytest.raises(BadMessage) as newer:
        kind.parse(b'{"schema_version": 7, "run_id": [], "uri": 1, "command": 2, "job": 3, "worker_id": 4}')
    assert str(newer.value).endswith(f"(schema_version 7, this service knows {SCHEMA_VERSION}: update it)")
    with pytest.raises(BadMessage) as older:
        kind.parse(b'{"schema_version": 0, "run_id": [], "uri": 1, "command": 2, "job": 3, "worker_id": 4}')
    assert "update" not in str(older.value)
