"""The spans of results, and of the commit that makes them durable together."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from prism.kafka.records import Record, event_headers
from prism.messages import TraceContext
from prism_merger.result_spans import ResultSpans
from tests.harness.traces import Memory

TRACES = [TraceContext(f"00-{number:032x}-b7ad6b7169203331-01") for number in (1, 2, 3)]


def record(offset: int, trace: TraceContext | None) -> Record:
    headers = event_headers("result", f"r/l/{offset}/result", "/w", "r", trace)
    return Record("prism.results", 0, offset, "r", b"", 0, cast(Any, None), headers)


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory() as made:
        yield made


def test_each_result_is_in_its_batchs_trace_and_linked_with_the_commit(memory: Memory) -> None:
    spans = ResultSpans([record(number, one) for number, one in enumerate(TRACES)])
    spans.refused(record(1, None), "not_parsed")
    assert memory.spans == []
    with spans.committing():
        pass
    commit = memory["commit prism.results"]
    results = [one for one in memory.spans if one.name == "process prism.results"]
    assert [int(one.trace_id, 16) for one in results] == [1, 2, 3]
    assert {one.parent_id for one in results} == {"b7ad6b7169203331"}
    assert (commit.parent_id, commit.attributes["messaging.batch.message_count"]) == (results[0].span_id, 3)
    assert commit.links == tuple((one.trace_id, one.span_id) for one in results[1:])
    assert [one.links for one in results] == [(), *[((commit.trace_id, commit.span_id),)] * 2]
    assert [one.attributes.get("error.type") for one in results] == [None, "not_parsed", None]


def test_a_commit_that_fails_is_told_of_in_each_and_fails_on(memory: Memory) -> None:
    spans = ResultSpans([record(number, one) for number, one in enumerate(TRACES)])
    with pytest.raises(OSError, match="full"), spans.committing():
        raise OSError("the disk is full")
    assert {one.attributes["error.type"] for one in memory.spans} == {"OSError"}
    assert len(memory.spans) == 4


def test_what_nobody_looks_at_has_no_spans(memory: Memory) -> None:
    unseen = TraceContext(TRACES[0].parent[:-2] + "00")
    spans = ResultSpans([record(0, unseen)])
    with spans.committing():
        pass
    assert memory.spans == []
