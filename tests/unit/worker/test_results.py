"""Results, heartbeats, and what of a row a model is shown."""

import json

import pytest

from prism.annotation import Answer, Problem
from prism.messages import BatchRow, RowReason, WorkerState
from prism_model_worker import results
from prism_model_worker.results import encode, result_of
from prism_model_worker.status import RATE_WINDOW_S, Status
from prism_model_worker.tasks import BatchTask
from tests.unit.worker.world import Clock, batch, context, task


def answered(rows: int = 2) -> BatchTask:
    work = task(rows)
    work.pending.clear()
    for index in range(rows):
        work.outcomes[index] = Answer({"Mood": "good"}, tuple(f"w{n}" for n in range(20)))
    work.outcomes[rows - 1] = Problem(RowReason.NOT_JSON, "d" * 1000)
    return work


@pytest.mark.promise(1)
def test_every_row_is_there_as_it_came() -> None:
    work = answered(3)
    work.calls, work.prompt_tokens, work.model_seconds = 4, 100, 0.12345678
    result = result_of(work, "w1")
    assert [row.row_id for row in result.rows] == ["id0", "id1", "id2"]
    assert [row.cells for row in result.rows] == [row.cells for row in work.batch.rows]
    assert [row.values for row in result.rows] == [["good"], ["good"], None]
    assert [row.reason for row in result.rows] == [None, None, "not_json"]
    assert len(result.rows[0].warnings) == 8
    assert len(result.rows[2].detail or "") == 300
    assert (result.usage.calls, result.usage.model_seconds, result.worker_id) == (4, 0.123457, "w1")
    assert result.id == work.batch.id


@pytest.mark.promise(1)
def test_a_result_too_large_for_a_message_becomes_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    work = answered(2)
    whole, value = encode(work, "w")
    assert len(value) == len(whole.to_bytes())
    monkeypatch.setattr(results, "RESULT_MAX_BYTES", len(value) - 1)
    result, value = encode(work, "w")
    assert [row.reason for row in result.rows] == ["result_too_large"] * 2
    assert [row.cells for row in result.rows] == [row.cells for row in work.batch.rows]
    assert json.loads(value)["rows"][0].get("values") is None


def test_what_a_model_is_shown_of_a_row() -> None:
    record = context().record
    file = record.files[0].model_copy(update={"columns": ["Sentiment", "RowID", "Title", "Message"]})
    of = context()
    of.record = record.model_copy(update={"files": [file]})
    rows = [
        BatchRow(row_id="1", cells=["pos", "1", "", "text"]),
        BatchRow(row_id="2", cells=["pos"]),
    ]
    first, second = of.prompt_rows(batch(rows), [0, 1])
    assert (first.sentiment, first.title, first.message) == ("pos", None, "text")
    assert (second.title, second.message) == (None, "")


def test_the_context_is_one_for_the_run() -> None:
    assert context(batch_size="1").num_ctx == 4096
    assert context(batch_size="200").num_ctx == 32_768
    of = context(batch_size="10")
    assert of.num_ctx in (8192, 16_384)
    assert of.num_predict < of.num_ctx


def test_a_heartbeat_counts_and_forgets_what_is_old() -> None:
    clock = Clock()
    status = Status("w", "s", "m", "http://x", clock)
    empty = status.heartbeat(WorkerState.STARTING, None, 4, [], {}, [])
    assert (empty.rows_processed, empty.rows_per_sec, empty.avg_tokens_per_row, empty.last_error) == (
        0,
        0,
        0,
        None,
    )
    work = answered(2)
    work.calls, work.prompt_tokens, work.completion_tokens = 3, 90, 10
    status.count(result_of(work, "w"))
    beat = status.heartbeat(WorkerState.RUNNING, None, 16, ["r/l/0"], {"r": "gone"}, [1, 2])
    assert (beat.rows_processed, beat.api_calls, beat.tokens_total) == (2, 3, 100)
    assert (beat.rows_per_sec, beat.tokens_per_sec, beat.avg_tokens_per_row) == (0.2, 10.0, 50.0)
    assert (beat.errors, beat.last_error, beat.limit, beat.partitions) == (1, "not_json", 16, [1, 2])
    clock.now += RATE_WINDOW_S + 1
    later = status.heartbeat(WorkerState.RUNNING, None, 4, [], {}, [])
    assert (later.rows_processed, later.rows_per_sec) == (2, 0.0)
    assert not status._recent
