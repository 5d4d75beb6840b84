"""Every message: JSON there and back, unknown fields ignored, garbage refused in one line."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import (
    ALL_MESSAGES,
    BadMessage,
    Batch,
    BatchRow,
    Command,
    CommandName,
    CutPosition,
    Heartbeat,
    Message,
    MessageSource,
    Reference,
    Result,
    RunFile,
    RunRecord,
    RunState,
    Topics,
    WorkerState,
    batch_id,
    cursor_key,
)

RUN = RunRecord(
    run_id="r",
    epoch=3,
    state=RunState.RUNNING,
    files=[RunFile(label="l", source=MessageSource(partition=1, offsets=[4, 5]))],
)
SAMPLES: list[Message] = [
    RUN,
    Batch(
        run_id="r", label="l", sequence=7, first_row=70, rows=[BatchRow(row_id="1", cells=["a", "\u2028"])]
    ),
    Heartbeat(worker_id="w", state=WorkerState.RUNNING),
    Command(command=CommandName.PAUSE),
    Reference(uri="file:///x.csv"),
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda one: type(one).__name__)
def test_there_and_back(message: Message) -> None:
    assert type(message).parse(message.to_bytes()) == message


@pytest.mark.parametrize("message", SAMPLES, ids=lambda one: type(one).__name__)
def test_a_newer_version_may_say_more(message: Message) -> None:
    fields = json.loads(message.to_bytes()) | {"schema_version": 2, "invented_later": {"x": [1]}}
    assert type(message).parse(json.dumps(fields).encode()).model_dump(exclude={"schema_version"}) == (
        message.model_dump(exclude={"schema_version"})
    )


@pytest.mark.promise(9)
@pytest.mark.parametrize("kind", ALL_MESSAGES, ids=lambda kind: kind.__name__)
@given(value=st.one_of(st.none(), st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_garbage_is_a_bad_message_and_nothing_else(kind: type[Message], value: bytes | None) -> None:
    with contextlib.suppress(BadMessage):
        assert isinstance(kind.parse(value), kind)


@pytest.mark.parametrize(
    "value",
    [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"null", b"[]", b"1e999", b'{"run_id": "\\ud800"}'],
    ids=["brackets", "objects", "not utf-8", "null", "list", "number", "surrogate"],
)
@pytest.mark.parametrize("kind", ALL_MESSAGES, ids=lambda kind: kind.__name__)
def test_hostile_json_is_a_bad_message(kind: type[Message], value: bytes) -> None:
    with pytest.raises(BadMessage):
        kind.parse(value)


def test_a_batch_is_named_by_its_row_range() -> None:
    assert batch_id("r", "l", 7) == "r/l/7"
    assert SAMPLES[1].id == "r/l/7"  # type: ignore[attr-defined]
    assert Result(run_id="r", label="l", sequence=7, first_row=0, rows=[]).id == "r/l/7"
    assert cursor_key("r") == "r/cursor"


def test_which_states_are_ends() -> None:
    unended = {RunState.ACCEPTED, RunState.RUNNING, RunState.PAUSED, RunState.MERGING}
    assert {state for state in RunState if not state.ended} == unended


def test_a_run_knows_its_files() -> None:
    assert RUN.file("l") is RUN.files[0]
    assert RUN.file("other") is None
    assert RUN.rows == 0
    assert CutPosition() == CutPosition(sequence=0, ordinal=0, offset=0, line=0)


def test_topics_bear_the_prefix_and_what_is_kept_is_as_designed() -> None:
    specs = {spec.name: spec for spec in Topics("x.").specs()}
    assert len(specs) == 9
    assert all(name.startswith("x.") for name in specs)
    assert specs["x.control"].partitions == 1
    assert specs["x.batches"].partitions is None
    for name in ("x.intake", "x.batches", "x.results"):
        assert specs[name].config["retention.ms"] == "-1"
        assert specs[name].config["retention.bytes"] == "-1"
    for name in ("x.runs", "x.progress", "x.outputs"):
        assert specs[name].config["cleanup.policy"] == "compact"
    assert specs["x.workers"].config["cleanup.policy"] == "compact,delete"


def test_a_reference_is_no_novel() -> None:
    with pytest.raises(BadMessage, match="uri"):
        Reference.parse(json.dumps({"uri": "file:///" + "x" * 5000}).encode())
    with pytest.raises(BadMessage, match="sha256"):
        Reference.parse(b'{"uri": "file:///x", "sha256": "ABC"}')
