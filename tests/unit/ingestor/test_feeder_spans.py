"""In whose trace a batch is sent."""

from collections.abc import Iterator

import pytest

from prism.messages import Batch, BatchRow, MessageSource, RunFile, RunRecord, RunState, TraceContext
from prism.service import tracing
from prism_ingestor.feeder import span_of_batch
from tests.harness.traces import Memory, SeenSpan

TOPIC = "prism.batches"
RUN = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory() as made:
        yield made


def run_of(*batches: int) -> RunRecord:
    files = [
        RunFile(label=f"f{number}", source=MessageSource(partition=0, offsets=[number]), batches=count)
        for number, count in enumerate(batches)
    ]
    return RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, files=files).in_trace(RUN)


def batch(sequence: int, label: str = "f0", fed: int = 1) -> Batch:
    rows = [BatchRow(row_id="1", cells=["the text of a row"])]
    return Batch(run_id="r", label=label, sequence=sequence, first_row=sequence, rows=rows, fed=fed)


def sent(memory: Memory, run: RunRecord, *batches: Batch) -> list[SeenSpan]:
    before = len(memory.spans)
    for one in batches:
        span_of_batch(TOPIC, one, run, run.trace).end()
    return memory.spans[before:]


def test_a_small_run_is_one_trace(memory: Memory) -> None:
    run = run_of(60, 40)
    every = [batch(number, "f0") for number in range(60)] + [batch(number, "f1") for number in range(40)]
    assert {(one.trace_id, one.parent_id) for one in sent(memory, run, *every)} == {
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    }


def test_of_a_large_run_most_batches_have_a_trace_of_their_own_linked_with_the_runs(memory: Memory) -> None:
    run = run_of(10_000)
    found = sent(memory, run, *(batch(number) for number in range(1_000)))
    apart = [one for one in found if one.trace_id != "0af7651916cd43dd8448eb211c80319c"]
    assert len(found) - len(apart) == 10
    assert len({one.trace_id for one in apart}) == 990
    assert {(one.parent_id, one.links) for one in apart} == {
        ("", (("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),))
    }


def test_many_small_files_are_a_large_run_too(memory: Memory) -> None:
    run = run_of(*[1] * 1_000)
    found = sent(memory, run, *(batch(0, f"f{number}") for number in range(1_000)))
    assert sum(not one.links for one in found) == 100


def test_a_batch_that_is_fed_again_is_where_it_was(memory: Memory) -> None:
    run = run_of(10_000)
    first = sent(memory, run, batch(100), batch(101))
    again = sent(memory, run, batch(100, fed=2), batch(101, fed=2))
    assert [one.links == () for one in first] == [one.links == () for one in again] == [True, False]
    assert [one.attributes["prism.batch.fed"] for one in again] == [2, 2]


def test_a_run_that_nobody_looks_at_is_not_looked_at_in_other_traces_instead(memory: Memory) -> None:
    unseen = TraceContext(RUN.parent[:-2] + "00")
    assert sent(memory, run_of(10_000).in_trace(unseen), *(batch(number) for number in range(200))) == []


def test_a_run_of_an_older_version_has_a_trace_for_each_batch(memory: Memory) -> None:
    run = run_of(10).model_copy(update={"traceparent": None})
    found = sent(memory, run, batch(0), batch(1))
    assert len({one.trace_id for one in found}) == 2
    assert {(one.parent_id, one.links) for one in found} == {("", ())}


@pytest.mark.promise(8)
def test_a_batch_shows_its_name_and_no_row(memory: Memory) -> None:
    (span,) = sent(memory, run_of(1), batch(0))
    assert "text" not in repr(span)
    assert span.attributes["messaging.kafka.message.key"] == "r/f0/0"


def test_off_is_off() -> None:
    assert span_of_batch(TOPIC, batch(0), run_of(1), RUN) is tracing.OFF
