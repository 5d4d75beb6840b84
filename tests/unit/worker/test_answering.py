"""One batch against a scripted model server: what is asked again, what fails, and what waits."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.annotation import Answer, Problem
from prism.messages import BatchRow, RowReason
from prism.modelserver.errors import (
    AccessRefused,
    AwayReason,
    CallFailed,
    CallTimeout,
    ModelMissing,
    ModelServerError,
    PromptTruncated,
    QuotaExhausted,
    ReplyTruncated,
    ReplyUnusable,
    RequestRefused,
    ServerAway,
    UnusableReason,
)
from prism.modelserver.server import ChatRequest
from prism_model_worker.answering import Deadlines
from prism_model_worker.blame import is_refusal
from prism_model_worker.results import result_of
from prism_model_worker.status import MANY_REFUSALS
from prism_model_worker.tasks import BatchTask
from tests.unit.worker.world import MODEL, Bench, context, reply, task

AWAY: list[ModelServerError] = [
    ServerAway("refused", reason=AwayReason.UNREACHABLE),
    ServerAway("busy", reason=AwayReason.BUSY, retry_after_s=2),
    ServerAway("broke off", reason=AwayReason.BROKEN_OFF),
    QuotaExhausted("usage limit", retry_after_s=30),
    ModelMissing("no such model"),
    AccessRefused("who are you"),
    CallFailed("HTTP 500"),
    CallTimeout("no answer"),
    ReplyUnusable("html", reason=UnusableReason.NOT_JSON),
]


def reasons(work: BatchTask) -> dict[str, str]:
    """Return row id → `ok` or the reason, for every row of a finished task."""
    assert work.done
    assert work.open_rows() == []
    return {
        row.row_id: one.reason if isinstance(one := work.outcomes[index], Problem) else "ok"
        for index, row in enumerate(work.batch.rows)
    }


def all_ok(work: BatchTask) -> bool:
    return set(reasons(work).values()) == {"ok"}


def test_a_good_reply_answers_every_row() -> None:
    bench, work = Bench(), task(4)
    assert bench.answer(work) == 1
    assert all_ok(work)
    assert (work.calls, work.prompt_tokens, work.completion_tokens) == (1, 100, 10)
    assert work.repeated_calls == 0
    assert work.model_digest == "sha256:abc"
    assert isinstance(work.outcomes[0], Answer)
    assert work.outcomes[0].values == {"Mood": "good"}


def test_a_call_has_time_for_its_rows_and_one_context_for_the_run() -> None:
    bench, work = Bench(), task(4)
    bench.answer(work)
    (request,) = bench.server.requests
    assert request.deadline_s == Deadlines(60.0).for_rows(4) == 78.0
    assert request.num_ctx == work.context.num_ctx
    assert request.schema is not None


def test_rejected_rows_are_not_asked() -> None:
    rows = [
        BatchRow(row_id="a", cells=["a"], rejected="wrong_cell_count"),
        BatchRow(row_id="b", cells=["b", "text"]),
        BatchRow(row_id="c", cells=["c"], rejected="a_reason_of_tomorrow"),
    ]
    bench, work = Bench(), task(rows)
    bench.answer(work)
    assert bench.server.asked == [("b",)]
    assert reasons(work) == {"a": "wrong_cell_count", "b": "ok", "c": "a_reason_of_tomorrow"}
    assert result_of(work, "w").rows[2].reason == "a_reason_of_tomorrow"


def test_a_bad_reply_is_repaired_once() -> None:
    said = iter(["no json at all", ""])
    bench = Bench(lambda ids, _: next(said) or reply(ids))
    work = task(4)
    bench.answer(work)
    assert all_ok(work)
    assert len(bench.server.asked) == 2
    assert bench.server.asked[0] == bench.server.asked[1]
    repair = bench.server.requests[1].messages
    assert [message.role for message in repair] == ["system", "user", "assistant", "user"]
    assert bench.server.requests[0].seed != bench.server.requests[1].seed
    assert bench.pauses == []


@pytest.mark.promise(9)
def test_a_batch_is_halved_down_to_the_bad_row() -> None:
    bench = Bench(lambda ids, _: "nonsense" if "id5" in ids else reply(ids))
    work = task(8)
    bench.answer(work)
    assert reasons(work) == {f"id{n}": "ok" for n in range(8)} | {"id5": "not_json"}
    alone = [ids for ids in bench.server.asked if ids == ("id5",)]
    assert len(alone) == 3  # the job's retries
    assert len(bench.server.asked) <= 2 + 6 + 2


def test_what_is_good_in_a_reply_is_kept() -> None:
    bench = Bench(lambda ids, _: reply(ids, **({"id1": "ugly", "id2": None} if len(ids) == 4 else {})))
    work = task(4)
    bench.answer(work)
    assert all_ok(work)
    assert bench.server.asked == [("id0", "id1", "id2", "id3"), ("id1", "id2")]


@pytest.mark.promise(7)
def test_an_answer_to_another_row_is_not_accepted() -> None:
    def swapped(ids: Sequence[str], _: ChatRequest) -> str:
        return json.dumps([{"RowID": "other", "Mood": "good"} for _ in ids])

    bench, work = Bench(swapped), task(1)
    bench.answer(work)
    assert reasons(work) == {"id0": "missing_row"}


def test_the_pauses_of_a_row_double_with_jitter() -> None:
    bench = Bench(lambda ids, _: reply(ids, id0="ugly"), jitter=1.0)
    bench.answer(task(1, context(retries="5", delay="2")))
    assert bench.pauses == [4.0, 8.0, 16.0]  # the repair, its second try, needs no pause
    bench = Bench(lambda ids, _: reply(ids, id0="ugly"), jitter=0.0)
    bench.answer(task(1, context(retries="4", delay="100")))
    assert bench.pauses == [30.0, 30.0]


@pytest.mark.parametrize("retries", [1, 2, 3, 7])
def test_a_row_has_its_jobs_tries(retries: int) -> None:
    bench = Bench(lambda ids, _: reply(ids, id0="ugly"))
    work = task(1, context(retries=str(retries)))
    bench.answer(work)
    assert reasons(work) == {"id0": "label_not_allowed"}
    assert work.calls == max(2, retries)  # the one repair is a try, and always there
    assert work.repeated_calls == work.calls - 1
    assert result_of(work, "w").usage.repeated_calls == work.repeated_calls


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PromptTruncated("too long"), RowReason.ROW_TOO_LONG),
        (ReplyTruncated("cut"), RowReason.TRUNCATED_REPLY),
        (RequestRefused("HTTP 400"), RowReason.MODEL_REFUSED),
    ],
)
def test_what_a_prompt_is_to_blame_for_fails_its_row_alone(
    error: ModelServerError, reason: RowReason
) -> None:
    bench = Bench(lambda ids, _: error if "id2" in ids else reply(ids))
    work = task(4)
    bench.answer(work)
    assert reasons(work) == {f"id{n}": "ok" for n in range(4)} | {"id2": reason}
    assert bench.server.canaries == 0


@pytest.mark.promise(9)
@pytest.mark.parametrize("error", AWAY, ids=lambda one: type(one).__name__ + str(getattr(one, "reason", "")))
@pytest.mark.parametrize("retries", ["1", "3"])
def test_an_outage_never_fails_a_row(error: ModelServerError, retries: str) -> None:
    bench, work = Bench(), task(1, context(retries=retries))
    bench.answer(task(4))  # others were answered a moment ago
    bench.server.down = error
    for _ in range(50):
        if bench.watch.may_call(MODEL):
            bench.step(work)
        bench.probe(20.0)
        assert not work.done
    # A server that is there and has no room is the limit's to deal with.
    assert is_refusal(error) or bench.watch.closed_reason() is not None
    bench.server.down = None
    bench.probe(400.0)
    bench.answer(work)
    assert all_ok(work)


@pytest.mark.promise(9)
@given(
    outages=st.dictionaries(st.integers(0, 8), st.sampled_from(AWAY), max_size=4),
    rows=st.integers(1, 6),
    retries=st.integers(1, 3),
)
def test_outages_at_any_call_fail_no_row(
    outages: dict[int, ModelServerError], rows: int, retries: int
) -> None:
    """Each begins at an even call; what comes back from it is well until the call after the next."""
    calls = iter(range(10_000))

    def answered(ids: Sequence[str], _: ChatRequest) -> str | ModelServerError:
        number = next(calls)
        if number % 2 or number // 2 not in outages:
            return reply(ids)
        bench.server.down = outages[number // 2]
        return bench.server.down

    bench = Bench(answered)
    for _ in range(6):
        work = task(rows, context(retries=str(retries)))
        while not work.done:
            if bench.watch.may_call(MODEL):
                bench.step(work)
            if not bench.watch.may_call(MODEL):
                bench.probe(400.0)
            bench.server.down = None
        assert all_ok(work)


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "error",
    [
        CallFailed("HTTP 500"),
        CallTimeout("no answer"),
        ReplyUnusable("html", reason=UnusableReason.NOT_JSON),
        ServerAway("broke off", reason=AwayReason.BROKEN_OFF),
        ServerAway("HTTP 502", reason=AwayReason.GATEWAY),
        AccessRefused("HTTP 403"),
        ModelMissing("HTTP 404"),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("rows", [1, 6])
def test_a_row_that_breaks_a_healthy_server_fails_alone(error: ModelServerError, rows: int) -> None:
    bench = Bench(lambda ids, _: error if "id0" in ids else reply(ids))
    work = task(rows)
    assert bench.answer(work) < 200
    refused = isinstance(error, AccessRefused | ModelMissing)
    expected = RowReason.MODEL_TIMEOUT if isinstance(error, CallTimeout) else RowReason.MODEL_ERROR
    expected = RowReason.MODEL_REFUSED if refused else expected
    assert reasons(work) == {f"id{n}": "ok" for n in range(rows)} | {"id0": expected}
    assert bench.server.canaries > 0


@pytest.mark.promise(9)
def test_a_row_that_is_refused_for_ever_waits_and_can_be_told() -> None:
    # As a service mesh says it where the prompt ends the server's process; or a server that is just busy.
    error = ServerAway("HTTP 503", reason=AwayReason.BUSY)
    bench = Bench(lambda ids, _: error if "id2" in ids else reply(ids))
    work = task(4)
    for _ in range(MANY_REFUSALS):
        bench.step(work)
        bench.watch.answered(MODEL)
    assert not work.outcomes
    assert work.refusals == MANY_REFUSALS
    bench.server.script = lambda ids, _: reply(ids)
    bench.answer(work)
    assert all_ok(work)
    assert work.refusals == 0


def test_a_call_that_reached_nobody_is_not_counted() -> None:
    bench, work = Bench(), task(2)
    bench.server.down = ServerAway("refused", reason=AwayReason.UNREACHABLE)
    bench.step(work)
    assert work.calls == 0
    bench.server.down = None
    bench.answer(work)
    assert (work.calls, work.repeated_calls) == (1, 0)


texts = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "",
            "null",
            "[]",
            "{}",
            "NaN",
            "[" * 10_000,
            '{"Mood": "\\ud800", "RowID": "id0"}',
            "<html>",
            "```json\n{}\n```",
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["RowID", "Mood", "x"]), inner)
        ),
        max_leaves=8,
    ).map(json.dumps),
)


@pytest.mark.promise(7)
@given(said=texts, rows=st.integers(1, 4))
def test_whatever_a_model_says_every_row_gets_an_outcome_that_travels(said: str, rows: int) -> None:
    bench = Bench(lambda *_: said)
    work = task(rows)
    bench.answer(work)
    assert len(reasons(work)) == rows
    assert len(result_of(work, "w").to_bytes()) > 0
    assert work.calls <= 2 + 2 * rows + 3 * rows
