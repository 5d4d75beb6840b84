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


def progress(prompt: int, completion: int) -> Progress:
    return Progress(run_id="r", prompt_tokens=prompt, completion_tokens=completion)


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
