"""Results, heartbeats, and what of a row a model is shown."""

import json

import pytest

from prism.annotation import Answer, Problem
from prism.messages import BatchRow, RowReason, WorkerState
from prism_model_worker import metrics, results
from prism_model_worker.results import encode, measure, result_of
from prism_model_worker.status import KEPT_RUNS, RATE_WINDOW_S, TOLD_RUNS, Status
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


def test_a_heartbeat_tells_what_was_done_of_each_run() -> None:
    status = Status("w", "s", "m", "http://x", Clock())
    status.begin("r")
    begun = status.heartbeat(WorkerState.RUNNING, None, 4, [], {}, []).runs["r"]
    assert (begun.rows, begun.tokens_per_sec, begun.last_error) == (0, 0.0, None)
    assert begun.started_at
    work = answered(2)
    work.calls, work.prompt_tokens, work.completion_tokens, work.model_seconds = 3, 90, 10, 0.5
    result = result_of(work, "w")
    other = result.model_copy(update={"run_id": "other", "rows": result.rows[:1]})
    for one in (result, other, result):
        status.count(one)
    beat = status.heartbeat(WorkerState.RUNNING, None, 4, [], {}, [])
    share = beat.runs["r"]
    assert (share.rows, share.failed, share.calls, share.tokens) == (4, 2, 6, 200)
    assert (share.tokens_per_sec, share.last_error) == (200.0, "not_json")
    assert share.started_at == begun.started_at
    # What failed of one run is no error of another.
    assert (beat.runs["other"].failed, beat.runs["other"].last_error) == (0, None)
    assert (beat.errors, beat.last_error, beat.rows_processed) == (2, "not_json", 5)


def test_the_runs_worked_on_last_are_told_and_none_forgets_its_counts() -> None:
    status = Status("w", "s", "m", "http://x", Clock())
    result = result_of(answered(2), "w")
    for _ in range(2):
        for number in range(100):
            status.count(result.model_copy(update={"run_id": f"r{number}"}))
    status.count(result.model_copy(update={"run_id": "r0"}))
    told = status.heartbeat(WorkerState.RUNNING, None, 4, [], {}, []).runs
    assert list(told) == [*(f"r{number}" for number in range(100 - TOLD_RUNS + 1, 100)), "r0"]
    assert (told["r0"].rows, told["r99"].rows) == (6, 4)
    for number in range(2 * KEPT_RUNS):
        status.begin(f"q{number}")
    assert len(status._shares) == KEPT_RUNS


def test_rows_and_batches_are_counted_by_what_the_result_says() -> None:
    def counts() -> list[float]:
        asked: tuple[tuple[str, dict[str, str]], ...] = (
            ("rows", {"outcome": "ok", "reason": ""}),
            ("rows", {"outcome": "failed", "reason": "not_json"}),
            ("batches", {"outcome": "partial"}),
            ("batches", {"outcome": "failed"}),
            ("reused_rows", {}),
        )
        read = metrics.REGISTRY.get_sample_value
        return [read(f"prism_worker_{name}_total", labels) or 0.0 for name, labels in asked]

    before = counts()
    work = answered(3)
    work.reused = 2
    partial = result_of(work, "w")
    measure(partial)
    measure(partial.model_copy(update={"rows": partial.rows[-1:]}))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [2, 2, 1, 1, 4]
