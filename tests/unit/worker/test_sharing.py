"""Rows that say the same: asked once, answered everywhere, and never waited for in vain."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prism.annotation import Answer, Problem
from prism.messages import BatchRow, RowReason
from prism.runs.job import parse_job
from prism_model_worker.sharing import SharedAnswers
from prism_model_worker.tasks import BatchTask, Group, RowOutcomes
from tests.unit.worker.world import batch, context

GOOD = Answer({"Mood": "good"}, ())
BAD = Problem(RowReason.NOT_JSON, "")
CONTEXT = context()


def task(*texts: str, sequence: int = 0) -> BatchTask:
    rows = [BatchRow(row_id=f"{sequence}-{n}", cells=[f"id{n}", text]) for n, text in enumerate(texts)]
    return BatchTask.of(batch(rows, sequence), CONTEXT, 0, sequence, 1)


def asked(work: BatchTask) -> list[int]:
    return [index for group in work.pending for index in group.indices]


def answer(work: BatchTask, outcome: Answer | Problem = GOOD) -> None:
    """Do what a caller does: an outcome for each row that is asked."""
    for index in asked(work):
        work.outcomes[index] = outcome
    work.pending.clear()


def test_rows_that_differ_are_all_asked() -> None:
    shared, work = SharedAnswers(), task("a", "b", "c")
    shared.admit(work)
    assert (asked(work), work.waiting, work.reused) == ([0, 1, 2], set(), 0)


def test_a_row_that_was_answered_needs_no_call() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", "b", sequence=1)
    shared.admit(first)
    answer(first)
    assert shared.settle(first) == []
    shared.admit(second)
    assert (asked(second), second.outcomes, second.reused) == ([1], {0: GOOD}, 1)


def test_twins_in_one_batch_are_asked_once() -> None:
    shared, work = SharedAnswers(), task("a", "a", "a")
    shared.admit(work)
    assert (asked(work), work.waiting) == ([0], {1, 2})
    answer(work)
    assert shared.settle(work) == []
    shared.admit(work)
    assert (work.pending, work.waiting, work.reused) == (deque(), set(), 2)
    assert set(work.outcomes) == {0, 1, 2}


def test_a_row_that_another_batch_asks_is_waited_for() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", sequence=1)
    shared.admit(first)
    shared.admit(second)
    assert (asked(second), second.waiting) == ([], {0})
    shared.park(second)
    answer(first)
    assert shared.settle(first) == [second]
    shared.admit(second)
    assert second.outcomes == {0: GOOD}


def test_a_failure_is_not_shared() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", sequence=1)
    shared.admit(first)
    shared.admit(second)
    shared.park(second)
    answer(first, BAD)
    assert shared.settle(first) == [second]
    shared.admit(second)
    assert (asked(second), second.waiting, second.outcomes) == ([0], set(), {})


def test_rows_that_fail_alike_are_asked_side_by_side() -> None:
    shared, first = SharedAnswers(), task("a", "a")
    others = [task("a", sequence=n) for n in (1, 2, 3)]
    for work in (first, *others):
        shared.admit(work)
    for work in others:
        shared.park(work)
    answer(first, BAD)
    assert shared.settle(first) == others
    for work in (first, *others, late := task("a", "a", sequence=4)):
        shared.admit(work)
        assert work.waiting == set()
    assert [asked(work) for work in (first, *others, late)] == [[1], [0], [0], [0], [0, 1]]
    assert not shared._claims


def test_what_failed_and_is_answered_after_all_is_shared_again() -> None:
    shared, first, second, third = SharedAnswers(), task("a"), task("a", sequence=1), task("a", sequence=2)
    for work, outcome in ((first, BAD), (second, GOOD)):
        shared.admit(work)
        answer(work, outcome)
        shared.settle(work)
    shared.admit(third)
    assert (asked(third), third.outcomes, third.reused) == ([], {0: GOOD}, 1)
    assert not shared._failed


def test_only_so_many_failures_are_remembered() -> None:
    shared = SharedAnswers(2)
    for sequence, text in enumerate(("a", "b", "a", "c")):  # "a" was met last
        work = task(text, sequence=sequence)
        shared.admit(work)
        answer(work, BAD)
        shared.settle(work)
    again = task("a", "b", "c", sequence=9)
    shared.admit(again)
    assert (asked(again), again.claimed) == ([0, 1, 2], {1})


def test_a_row_is_settled_while_its_batch_goes_on() -> None:
    shared, first = SharedAnswers(), task("a", "b", "c", "a")
    seconds = [task(text, sequence=n) for n, text in enumerate("abc", 1)]
    for work in (first, *seconds):
        shared.admit(work)
    for work in seconds:
        shared.park(work)
    settle_first(shared, first, {0: GOOD}, [seconds[0]])
    settle_first(shared, first, {1: BAD}, [seconds[1]])
    for work in seconds[:2]:
        shared.admit(work)
    assert (seconds[0].outcomes, seconds[0].reused) == ({0: GOOD}, 1)
    assert asked(seconds[1]) == [0]
    assert asked(first) == [2]
    answer(first)
    assert shared.settle(first) == [seconds[2]]
    shared.admit(first)  # its twin
    assert (asked(first), first.reused) == ([], 1)
    assert not shared._claims


def settle_first(
    shared: SharedAnswers, work: BatchTask, outcomes: dict[int, Answer | Problem], woken: list[BatchTask]
) -> None:
    """Do what a caller does that has outcomes for the first rows asked, and then the owner."""
    work.outcomes.update(outcomes)
    work.pending = deque([Group(tuple(index for index in asked(work) if index not in outcomes))])
    assert shared.settle_rows(RowOutcomes.of(work, outcomes)) == woken


def test_outcomes_that_come_after_their_batch_change_nothing() -> None:
    shared, first, second, third = SharedAnswers(), task("a"), task("a", sequence=1), task("a", sequence=2)
    shared.admit(first)
    answer(first)
    late = RowOutcomes.of(first, [0])
    shared.settle(first)
    shared._answers.clear()  # as if others had taken its room
    shared.admit(second)
    shared.admit(third)
    shared.park(third)
    assert shared.settle_rows(late) == [third]
    shared.admit(third)
    assert third.outcomes == {0: GOOD}
    answer(second)
    assert shared.settle(second) == []


def test_what_is_taken_away_unasked_has_not_failed() -> None:
    shared, first = SharedAnswers(), task("a")
    others = [task("a", sequence=n) for n in (1, 2)]
    for work in (first, *others):
        shared.admit(work)
    for work in others:
        shared.park(work)
    assert shared.abandon(first) == others
    for work in others:
        shared.admit(work)
    assert [asked(work) for work in others] == [[0], []]


def test_what_is_taken_away_gives_its_claims_up() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", sequence=1)
    shared.admit(first)
    shared.admit(second)
    shared.park(second)
    assert shared.abandon(first) == [second]
    shared.admit(second)
    assert asked(second) == [0]


def test_what_was_parked_and_taken_away_is_not_woken() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", sequence=1)
    shared.admit(first)
    shared.admit(second)
    shared.park(second)
    assert shared.abandon(second) == []
    answer(first)
    assert shared.settle(first) == []


def test_a_group_that_is_asked_again_keeps_its_tries() -> None:
    shared, work = SharedAnswers(), task("a", "b")
    shared.admit(work)
    work.pending[0].tries = 2
    group = work.pending[0]
    shared.admit(work)
    assert work.pending[0] is group


def test_a_row_asked_alone_is_asked_whoever_else_asks() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", sequence=1)
    shared.admit(first)
    shared.admit(second)
    second.only(0)
    answer(second)
    assert shared.settle(second) == []  # the claim is the other's
    answer(first)
    assert shared.settle(first) == []


def test_only_so_many_are_remembered() -> None:
    shared = SharedAnswers(2)
    for sequence, text in enumerate(("a", "b", "a", "c")):  # "a" was used last
        work = task(text, sequence=sequence)
        shared.admit(work)
        answer(work)
        shared.settle(work)
    known = task("a", "b", "c", sequence=9)
    shared.admit(known)
    assert asked(known) == [1]


def test_a_job_and_a_worker_can_do_without() -> None:
    off = task("a", "a")
    off.context = context()
    off.context.job = parse_job({"dedupe": "no"})
    SharedAnswers().admit(off)
    assert asked(off) == [0, 1]
    other = task("a", "a")
    SharedAnswers(0).admit(other)
    assert asked(other) == [0, 1]


def test_another_run_shares_nothing() -> None:
    shared, first, second = SharedAnswers(), task("a"), task("a", sequence=1)
    second.batch = second.batch.model_copy(update={"run_id": "other"})
    shared.admit(first)
    shared.admit(second)
    assert asked(second) == [0]


STEPS = ("finish", "go on", "recall", "take away")


def after(
    step: str, shared: SharedAnswers, work: BatchTask, choose: Callable[[Sequence[Any]], Any]
) -> list[BatchTask]:
    """Take a step with a task that was before the callers; return what is to be placed anew."""
    if step == "take away":
        return shared.abandon(work)
    if step == "recall":
        return [work]
    if step == "go on" and len(asked(work)) > 1:
        first, *others = asked(work)
        work.outcomes[first] = choose([GOOD, BAD])
        work.pending = deque([Group(tuple(others))])
        return [*shared.settle_rows(RowOutcomes.of(work, [first])), work]
    answer(work, choose([GOOD, BAD]))
    return [*shared.settle(work), work]


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_every_row_gets_its_outcome_in_whatever_order(batches: list[list[str]], random: object) -> None:
    """Answer, fail and take away in any order: what remains is answered, and nothing waits for ever."""
    choose = random.choice  # type: ignore[attr-defined]
    shared = SharedAnswers(2)
    tasks = [task(*texts, sequence=number) for number, texts in enumerate(batches)]
    ready: list[BatchTask] = []
    gone: list[BatchTask] = []

    def place(work: BatchTask) -> None:
        shared.admit(work)
        if work.pending:
            ready.append(work)
        elif work.waiting:
            shared.park(work)

    for work in tasks:
        place(work)
    steps = 0
    while ready:
        steps += 1
        assert steps < 1000
        work = choose(ready)
        ready.remove(work)
        step = choose(STEPS)
        if step == "take away":
            gone.append(work)
        woken = after(step, shared, work, choose)
        for one in woken:
            if one.open_rows():
                place(one)
    assert [work for work in tasks if work.open_rows() and work not in gone] == []
    assert not shared._claims
