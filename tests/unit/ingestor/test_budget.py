"""A budget: feeding stops near it, and says so."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import Progress, RunRecord, RunState
from prism_ingestor.budget import FIRST_BATCHES, Meter

PRICED: dict[str, object] = {"name": "m", "price": {"prompt": "1000", "completion": "3000"}}


def meter(entry: dict[str, object] | None = None, **budget: str) -> Meter:
    job = {"model": {"name": "m"}, "budget": budget}
    return Meter.of(RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, job=job, model_entry=entry or {}))


def progress(prompt: int, completion: int, calls: int = 10_000) -> Progress:
    return Progress(
        run_id="r", calls=calls, rows_ok=calls, prompt_tokens=prompt, completion_tokens=completion
    )


def feed(one: Meter, batches: list[bool], cost: int, window: int) -> tuple[int, int]:
    """Feed a run whose batches take a call of one cost, or none; return how many, and what was spent."""
    fed = merged = 0
    while fed < len(batches):
        calls = sum(batches[:merged])
        if fed - merged < window and one.allows(progress(calls * cost, 0, calls), merged, fed - merged):
            fed += 1
        elif fed > merged:
            merged += 1
        else:
            break
    return fed, sum(batches[:fed]) * cost


def test_rows_that_fail_before_a_token_is_counted_stop_nothing() -> None:
    one = meter(tokens="1000")
    failed = Progress(run_id="r", calls=96, rows_failed=80)
    assert one.allows(failed, FIRST_BATCHES, 0)
    assert not one.allows(failed, FIRST_BATCHES, FIRST_BATCHES)


def test_without_a_budget_everything_is_fed() -> None:
    assert meter().allows(progress(10**12, 10**12), 1, 10**6)


@pytest.mark.parametrize(("merged", "unmerged", "allowed"), [(10, 0, True), (10, 8, True), (10, 9, False)])
def test_what_is_under_way_counts_as_dear_as_what_is_merged(
    merged: int, unmerged: int, allowed: bool
) -> None:
    """100 tokens a batch, a budget of 1,999: 19 batches at most."""
    assert meter(tokens="1999").allows(progress(900, 100), merged, unmerged) is allowed


def test_before_anything_is_merged_a_few_batches_are_risked() -> None:
    one = meter(tokens="1000000")
    assert one.allows(None, 0, FIRST_BATCHES - 1)
    assert not one.allows(None, 0, FIRST_BATCHES)
    assert not one.allows(progress(0, 0), 0, FIRST_BATCHES)


@pytest.mark.parametrize("limit", [{"tokens": "1000"}, {"money": "1"}])
def test_where_the_server_counts_no_tokens_a_few_batches_are_risked_and_no_more(
    limit: dict[str, str],
) -> None:
    one = meter(PRICED, **limit)
    assert feed(one, [True] * 50_000, 0, 64) == (FIRST_BATCHES, 0)
    assert feed(one, [False] * 100 + [True] * 100, 0, 64)[0] < 100 + 2 * FIRST_BATCHES
    assert not one.allows(progress(0, 0), 50_000, 64)
    assert one.reached(progress(0, 0, 24)) == (
        "the model server told no tokens for 24 calls, so the budget cannot be kept; cancel the run, or send "
        "the rest without a budget"
    )


def test_a_first_batch_whose_calls_all_failed_ends_nothing() -> None:
    one = meter(tokens="1000")
    assert one.allows(progress(0, 0, 3), 1, 1)
    assert one.allows(progress(100, 10, 4), 2, 0)


def test_batches_without_a_call_say_nothing_of_what_one_costs() -> None:
    one = meter(tokens="1000")
    assert one.allows(progress(0, 0, 0), 500, FIRST_BATCHES - 1)
    assert not one.allows(progress(0, 0, 0), 500, FIRST_BATCHES)
    # One of 500 took a call, and 100 tokens: eight more of its kind are within the budget.
    assert one.allows(progress(100, 0, 1), 500, 8)
    assert not one.allows(progress(100, 0, 1), 500, 9)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=12),
    st.integers(1, 5000),
    st.integers(1, 200_000),
    st.integers(1, 100),
)
def test_whatever_is_rejected_or_reused_the_budget_holds(
    parts: list[tuple[bool, int]], cost: int, budget: int, window: int
) -> None:
    batches = [called for called, count in parts for _ in range(count)]
    fed, spent = feed(meter(tokens=str(budget)), batches, cost, window)
    assert spent <= max(budget, FIRST_BATCHES * cost)
    if (sum(batches) + 1) * cost <= budget:
        assert fed == len(batches)


def test_money_is_counted_by_the_price_at_acceptance() -> None:
    one = meter(PRICED, money="0.5")
    spent = progress(300, 60)  # 0.30 + 0.18
    assert one.allows(progress(200, 20), 10, 0)
    assert not one.allows(spent, 10, 0)
    assert one.reached(spent) == (
        "budget reached: 0.4800 of 0.5 USD; cancel the run, or send the rest under a larger budget"
    )


def test_money_without_a_price_is_no_bound() -> None:
    assert meter(money="0.01").allows(progress(10**9, 10**9), 1, 0)


@given(cost=st.integers(1, 5000), budget=st.integers(1, 200_000), window=st.integers(1, 200))
def test_a_run_of_equal_batches_never_costs_more_than_its_budget_once_one_is_merged(
    cost: int, budget: int, window: int
) -> None:
    one = meter(tokens=str(budget))
    merged, unmerged = 1, 0
    for _ in range(3000):
        if unmerged < window and one.allows(progress(merged * cost, 0), merged, unmerged):
            unmerged += 1
        elif unmerged:
            merged, unmerged = merged + unmerged, 0
        else:
            break
    assert Decimal(merged * cost) <= max(budget, cost)
    if unmerged == 0 and merged * cost < budget - 2 * cost:
        assert merged >= 3000 // (window + 1)
