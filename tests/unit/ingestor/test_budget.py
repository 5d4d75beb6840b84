"""A budget: feeding stops near it, and says so."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.messages import ModelProgress, Progress, RunRecord, RunState
from prism_ingestor.budget import FIRST_BATCHES, Fed, Meter

PRICED: dict[str, object] = {"name": "m", "price": {"prompt": "1000", "completion": "3000"}}


def meter(entry: dict[str, object] | None = None, **budget: str) -> Meter:
    job = {"model": {"name": "m"}, "budget": budget}
    return Meter.of(RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, job=job, model_entry=entry or {}))


def progress(prompt: int, completion: int, calls: int = 10_000) -> Progress:
    return Progress(
        run_id="r", calls=calls, rows_ok=calls, prompt_tokens=prompt, completion_tokens=completion
    )


def allows(one: Meter, told: Progress | None, merged: int, unmerged: int) -> bool:
    return one.allows(told, {"": Fed(merged, unmerged)})


def feed(one: Meter, batches: list[bool], cost: int, window: int) -> tuple[int, int]:
    """Feed a run whose batches take a call of one cost, or none; return how many, and what was spent."""
    fed = merged = 0
    while fed < len(batches):
        calls = sum(batches[:merged])
        if fed - merged < window and allows(one, progress(calls * cost, 0, calls), merged, fed - merged):
            fed += 1
        elif fed > merged:
            merged += 1
        else:
            break
    return fed, sum(batches[:fed]) * cost


def test_rows_that_fail_before_a_token_is_counted_stop_nothing() -> None:
    one = meter(tokens="1000")
    failed = Progress(run_id="r", calls=96, rows_failed=80)
    assert allows(one, failed, FIRST_BATCHES, 0)
    assert not allows(one, failed, FIRST_BATCHES, FIRST_BATCHES)


def test_without_a_budget_everything_is_fed() -> None:
    assert allows(meter(), progress(10**12, 10**12), 1, 10**6)


@pytest.mark.parametrize(("merged", "unmerged", "allowed"), [(10, 0, True), (10, 8, True), (10, 9, False)])
def test_what_is_under_way_counts_as_dear_as_what_is_merged(
    merged: int, unmerged: int, allowed: bool
) -> None:
    """100 tokens a batch, a budget of 1,999: 19 batches at most."""
    assert allows(meter(tokens="1999"), progress(900, 100), merged, unmerged) is allowed


def test_before_anything_is_merged_a_few_batches_are_risked() -> None:
    one = meter(tokens="1000000")
    assert allows(one, None, 0, FIRST_BATCHES - 1)
    assert not allows(one, None, 0, FIRST_BATCHES)
    assert not allows(one, progress(0, 0), 0, FIRST_BATCHES)


@pytest.mark.parametrize("limit", [{"tokens": "1000"}, {"money": "1"}])
def test_where_the_server_counts_no_tokens_a_few_batches_are_risked_and_no_more(
    limit: dict[str, str],
) -> None:
    one = meter(PRICED, **limit)
    assert feed(one, [True] * 50_000, 0, 64) == (FIRST_BATCHES, 0)
    assert feed(one, [False] * 100 + [True] * 100, 0, 64)[0] < 100 + 2 * FIRST_BATCHES
    assert not allows(one, progress(0, 0), 50_000, 64)
    assert one.reached(progress(0, 0, 24)) == (
        "the model server told no tokens for 24 calls, so the budget cannot be kept; cancel the run, or send "
        "the rest without a budget"
    )


def test_a_first_batch_whose_calls_all_failed_ends_nothing() -> None:
    one = meter(tokens="1000")
    assert allows(one, progress(0, 0, 3), 1, 1)
    assert allows(one, progress(100, 10, 4), 2, 0)


def test_batches_without_a_call_say_nothing_of_what_one_costs() -> None:
    one = meter(tokens="1000")
    assert allows(one, progress(0, 0, 0), 500, FIRST_BATCHES - 1)
    assert not allows(one, progress(0, 0, 0), 500, FIRST_BATCHES)
    # One of 500 took a call, and 100 tokens: eight more of its kind are within the budget.
    assert allows(one, progress(100, 0, 1), 500, 8)
    assert not allows(one, progress(100, 0, 1), 500, 9)


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
    assert allows(one, progress(200, 20), 10, 0)
    assert not allows(one, spent, 10, 0)
    assert one.reached(spent) == (
        "budget reached: 0.4800 of 0.5 USD; cancel the run, or send the rest under a larger budget"
    )


def test_money_without_a_price_is_no_bound() -> None:
    assert allows(meter(money="0.01"), progress(10**9, 10**9), 1, 0)


@given(cost=st.integers(1, 5000), budget=st.integers(1, 200_000), window=st.integers(1, 200))
def test_a_run_of_equal_batches_never_costs_more_than_its_budget_once_one_is_merged(
    cost: int, budget: int, window: int
) -> None:
    one = meter(tokens=str(budget))
    merged, unmerged = 1, 0
    for _ in range(3000):
        if unmerged < window and allows(one, progress(merged * cost, 0), merged, unmerged):
            unmerged += 1
        elif unmerged:
            merged, unmerged = merged + unmerged, 0
        else:
            break
    assert Decimal(merged * cost) <= max(budget, cost)
    if unmerged == 0 and merged * cost < budget - 2 * cost:
        assert merged >= 3000 // (window + 1)


PRICES = {"cheap": 1, "dear": 500, "third": 40}


def shared(names: list[str], mode: str = "fanout", **budget: str) -> Meter:
    job = {"model": {"names": names, "mode": mode}, "budget": budget}
    entries = {
        name: {"name": name, "price": {"prompt": str(PRICES[name]), "completion": "0"}} for name in names
    }
    return Meter.of(RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, job=job, model_entries=entries))


def told(merged: dict[str, int], tokens: int) -> Progress:
    """Each merged batch took one call of so many tokens."""
    models = {
        name: ModelProgress(calls=calls, rows_ok=calls, prompt_tokens=calls * tokens)
        for name, calls in merged.items()
    }
    calls = sum(merged.values())
    return Progress(run_id="r", calls=calls, rows_ok=calls, prompt_tokens=calls * tokens, models=models)


@given(
    st.lists(st.tuples(st.sampled_from(list(PRICES)), st.integers(1, 64), st.integers(0, 64)), max_size=20),
    st.integers(1, 60),
)
@example([("cheap", 64, 64), ("dear", 8, 1), ("dear", 64, 0)], 1)
def test_a_dear_model_behind_a_cheap_one_does_not_cost_a_window_more(
    steps: list[tuple[str, int, int]], budget: int
) -> None:
    """1,000 tokens a batch: 0.001, 0.5 and 0.04 of money."""
    one = shared(list(PRICES), money=str(budget))
    merged, unmerged = dict.fromkeys(PRICES, 0), dict.fromkeys(PRICES, 0)
    for model, wanted, answered in steps:
        for _ in range(wanted):
            fed = {name: Fed(merged[name], unmerged[name]) for name in PRICES}
            if not one.allows(told(merged, 1000), fed, model):
                break
            unmerged[model] += 1
        done = min(answered, unmerged[model])
        merged[model], unmerged[model] = merged[model] + done, unmerged[model] - done
    spent = sum(PRICES[name] * (merged[name] + unmerged[name]) for name in PRICES) / 1000
    first = sum(PRICES[name] * FIRST_BATCHES for name in PRICES) / 1000
    assert spent <= budget + first


def test_what_is_ahead_costs_what_its_own_model_costs() -> None:
    one = shared(["cheap", "dear"], money="10")
    merged = {"cheap": 2000, "dear": 4}  # 2 + 2 of money, 6 are left: 12 of the dear one
    assert one.allows(told(merged, 1000), {"cheap": Fed(2000), "dear": Fed(4, 11)}, "dear")
    assert not one.allows(told(merged, 1000), {"cheap": Fed(2000), "dear": Fed(4, 12)}, "dear")
    assert not one.allows(told(merged, 1000), {"cheap": Fed(2000), "dear": Fed(4, 12)}, "cheap")
    assert one.allows(told(merged, 1000), {"cheap": Fed(2000, 499), "dear": Fed(4, 11)}, "cheap")


def test_of_a_model_that_answered_nothing_yet_a_few_batches_are_risked() -> None:
    one = shared(["cheap", "dear"], tokens="1000000")
    merged = {"cheap": 100}
    for unmerged in (0, FIRST_BATCHES - 1, FIRST_BATCHES):
        fed = {"cheap": Fed(100), "dear": Fed(0, unmerged)}
        assert one.allows(told(merged, 10), fed, "dear") is (unmerged < FIRST_BATCHES)
        assert one.allows(told(merged, 10), fed, "cheap")


def test_one_model_that_tells_no_tokens_is_fed_no_more_and_the_run_says_so() -> None:
    one = shared(["cheap", "dear"], tokens="1000000")
    known = told({"cheap": 100}, 10)
    known.models["dear"] = ModelProgress(calls=8, rows_ok=8)
    assert not one.allows(known, {"cheap": Fed(100), "dear": Fed(8)}, "dear")
    assert "told no tokens for 8 calls" in one.reached(known)
