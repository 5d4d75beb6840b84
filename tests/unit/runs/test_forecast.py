"""Forecasts: the truth is in the interval as often as it says, and a sample of everything is exact."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.runs.forecast import (
    Forecast,
    Interval,
    Population,
    Reservoir,
    Taken,
    Total,
    forecast,
    ratio_total,
    share,
    t_quantile,
)

SEEDS = 600
UNITS = 300
# Nine in ten are meant. Of failures that come together in few batches, ten batches show the least.
KEPT, KEPT_OF_HEAPS = 0.85, 0.8

unit = st.builds(
    Taken,
    rows=st.integers(1, 200),
    characters=st.integers(1, 100_000),
    calls=st.integers(1, 50),
    prompt_tokens=st.integers(0, 100_000),
    completion_tokens=st.integers(0, 100_000),
    seconds=st.floats(0, 1000),
    failed=st.just(0),
)
Draw = Callable[[random.Random], Taken]


def whole(units: Sequence[Taken], **more: int) -> Population:
    return Population(
        len(units), sum(one.rows for one in units), sum(one.characters for one in units), **more
    )


def drawn(units: Sequence[Taken], size: int, rng: random.Random) -> Forecast:
    reservoir: Reservoir[Taken] = Reservoir(size, rng)
    for one in units:
        reservoir.offer(one)
    return forecast(reservoir.items, whole(units))


def intervals(found: Forecast) -> dict[str, Interval]:
    totals = ("calls", "prompt_tokens", "completion_tokens", "seconds")
    return {name: getattr(found, name).interval() for name in totals} | {"failed": found.failed_share}


def truth(units: Sequence[Taken]) -> dict[str, float]:
    rows = sum(one.rows for one in units)
    sums: dict[str, float] = {
        name: sum(getattr(one, name) for one in units)
        for name in ("calls", "prompt_tokens", "completion_tokens", "seconds")
    }
    return sums | {"failed": sum(one.failed for one in units) / rows}


# The sample


@given(st.integers(0, 40), st.integers(1, 20), st.integers())
def test_a_reservoir_holds_so_many_different_ones(items: int, size: int, seed: int) -> None:
    reservoir: Reservoir[int] = Reservoir(size, random.Random(seed))
    for item in range(items):
        reservoir.offer(item)
    assert len(set(reservoir.items)) == len(reservoir.items) == min(items, size)
    assert reservoir.offered == items


def test_every_item_has_the_same_chance_wherever_it_stands() -> None:
    met: Counter[int] = Counter()
    for seed in range(4000):
        reservoir: Reservoir[int] = Reservoir(3, random.Random(seed))
        for item in range(12):
            reservoir.offer(item)
        met.update(reservoir.items)
    # 1000 each; 4.5 standard deviations of a binomial with p = 1/4.
    assert all(abs(met[item] - 1000) < 4.5 * math.sqrt(4000 * 3 / 16) for item in range(12))


# One total


@given(st.lists(unit, min_size=1, max_size=30))
def test_a_sample_of_everything_is_exact(units: list[Taken]) -> None:
    found = intervals(forecast(units, whole(units)))
    for name, value in truth(units).items():
        assert found[name].low == found[name].point == found[name].high == value


@given(st.lists(unit, min_size=3, max_size=30), st.data())
def test_the_estimate_lies_in_its_interval_and_above_what_was_seen(
    units: list[Taken], data: st.DataObject
) -> None:
    sample = units[: data.draw(st.integers(2, len(units)))]
    found, seen = intervals(forecast(sample, whole(units))), truth(sample)
    for name, interval in found.items():
        assert interval.low <= interval.point <= interval.high
        if name != "failed":
            assert interval.low >= seen[name] * (1 - 1e-12)
    assert found["calls"].low >= seen["calls"] + len(units) - len(sample) - 1e-6


@pytest.mark.parametrize("taken", [[1, 1, 1, 1, 2, 9], [1, 2, 3, 3, 4, 40, 41], [0, 0, 0, 0, 0, 7]])
def test_the_interval_reaches_further_to_the_side_of_the_few(taken: list[int]) -> None:
    total = ratio_total(taken, [1.0] * len(taken), 100, 100)
    interval = total.interval()
    above, below = interval.high - interval.point, interval.point - interval.low
    assert above > total.quantile * total.error > below
    # Hall's transformation of both ends is t again.
    root = math.sqrt(len(taken))
    for end, t in ((interval.high, -total.quantile), (interval.low, total.quantile)):
        if end > total.least:
            standardised = (total.point - end) / total.error
            bent = (
                standardised
                + total.skewness / root * (standardised**2 / 3 + 1 / 6)
                + total.skewness**2 / (27 * root**2) * standardised**3
            )
            assert bent == pytest.approx(t)


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=50), st.floats(0, 100), st.integers(2, 50))
def test_what_is_proportional_is_known_from_any_sample(sizes: list[int], factor: float, n: int) -> None:
    sample = sizes[: min(n, len(sizes))]
    total = ratio_total([factor * one for one in sample], sample, len(sizes), sum(sizes))
    interval = total.interval()
    assert interval.point == pytest.approx(factor * sum(sizes))
    assert interval.high - interval.low <= 1e-9 * max(1.0, interval.point)


def test_the_standard_error_is_that_of_the_book() -> None:
    # Units of one size: the expansion estimator. s² = 10/3 of 1, 2, 4, 5 with mean 3.
    total = ratio_total([1, 2, 4, 5], [1, 1, 1, 1], 10, 10)
    assert total.point == 30
    assert total.error == pytest.approx(10 * math.sqrt((1 - 4 / 10) * (10 / 3) / 4))
    # Their residuals lie evenly, and nothing is bent: Student's t of 3 degrees.
    reach = 2.3534 * total.error
    assert total.skewness == 0
    assert total.interval().low == pytest.approx(30 - reach, rel=1e-3)
    assert total.interval().high == pytest.approx(30 + reach, rel=1e-3)
    # Of other sizes: residuals 0.5, -0.5 of r = 1.5; the sampled are twice as large as all are on average.
    total = ratio_total([3.5, 5.5], [2, 4], 5, 7.5)
    assert total.point == pytest.approx(11.25)
    assert list(total.residuals) == pytest.approx([0.25, -0.25])


@given(st.lists(unit, min_size=2, max_size=10), st.floats(0, 10))
def test_what_is_counted_together_is_estimated_together(sample: list[Taken], factor: float) -> None:
    def total(values: Sequence[float]) -> Total:
        return ratio_total(values, [one.rows for one in sample], 50, 5000)

    prompt = [float(one.prompt_tokens) for one in sample]
    completion = [float(one.completion_tokens) for one in sample]
    summed = total(prompt) + total(completion).times(factor)
    at_once = total([one + factor * other for one, other in zip(prompt, completion, strict=True)])
    assert summed.point == pytest.approx(at_once.point)
    assert summed.least == pytest.approx(at_once.least)
    assert summed.error == pytest.approx(at_once.error, rel=1e-6, abs=1e-3)


def test_one_of_several_is_no_sample() -> None:
    with pytest.raises(ValueError, match="1 of 2"):
        forecast([Taken(1, 1, 1, 1, 1, 1.0, 0)], Population(2, 2, 2)).calls.interval()


def test_no_units_take_nothing() -> None:
    assert set(intervals(forecast([], Population(0, 0, 0))).values()) == {Interval(0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 6.314), (2, 2.920), (3, 2.353), (4, 2.132), (9, 1.833), (29, 1.699)]
)
def test_students_t_is_that_of_the_tables(degrees: int, expected: float) -> None:
    assert t_quantile(0.95, degrees) == pytest.approx(expected, abs=0.0015)


# A share


def test_none_seen_is_not_none() -> None:
    def of(rows: int, batches: int) -> Interval:
        sample = [Taken(rows, 1, 1, 0, 0, 0.0, 0)] * batches
        return forecast(sample, Population(10**6, rows * 10**6, 10**6)).failed_share

    # Wilson's upper bound: t² ÷ (n + t²).
    square = t_quantile(0.95, 9) ** 2
    assert of(10, 10).high == pytest.approx(square / (100 + square), rel=1e-3)
    assert of(10, 10).point == of(10, 10).low == 0
    assert of(10, 50).high < of(10, 10).high < of(10, 3).high < 1


@given(st.data())
def test_a_share_is_one_and_what_was_seen_is_certain(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(1, 50), min_size=2, max_size=20))
    failed = [data.draw(st.integers(0, most)) for most in rows]
    others = data.draw(st.integers(1, 100))
    units, cases = len(rows) + others, sum(rows) + 20 * others
    found = share(ratio_total(failed, rows, units, cases), sum(rows), cases)
    assert 0 <= found.low <= found.point <= found.high <= 1
    assert found.low * cases >= sum(failed) - 1e-6
    assert (1 - found.high) * cases >= sum(rows) - sum(failed) - 1e-6


# How often the truth is in the interval


def even(rng: random.Random) -> Taken:
    """Ten rows; texts of all lengths; a reply by rows, and time by the reply."""
    characters = 1500 + sum(int(rng.lognormvariate(4.5, 1.0)) for _ in range(10))
    completion = sum(rng.randint(25, 60) for _ in range(10))
    failed = sum(rng.random() < 0.05 for _ in range(10))
    return Taken(
        10, characters, 1, characters // 4 + rng.randint(-9, 9), completion, 0.2 + completion / 80, failed
    )


def uneven(rng: random.Random) -> Taken:
    """Some rows need no call, a third of the calls are made again, and failures come together."""
    rows = rng.choice((1, 3, 5, 8, 10, 10))
    calls = 1
    while rng.random() < 0.35:
        calls += 1
    characters = 800 + sum(int(rng.lognormvariate(4.5, 0.8)) for _ in range(rows))
    completion = calls * sum(rng.randint(20, 80) for _ in range(rows))
    failed = sum(rng.random() < 0.5 for _ in range(rows)) if rng.random() < 0.25 else 0
    return Taken(rows, characters, calls, calls * (characters // 4), completion, calls * 0.3, failed)


@pytest.mark.parametrize("size", [10, 30])
@pytest.mark.parametrize("draw", [even, uneven])
def test_the_truth_is_in_nine_of_ten_intervals(draw: Draw, size: int) -> None:
    rng = random.Random(7)
    units = [draw(rng) for _ in range(UNITS)]
    expected = truth(units)
    kept: Counter[str] = Counter()
    for seed in range(SEEDS):
        for name, interval in intervals(drawn(units, size, random.Random(seed))).items():
            kept[name] += interval.low <= expected[name] <= interval.high
    for name in expected:
        heaps = name == "failed" and draw is uneven and size == 10
        assert kept[name] / SEEDS >= (KEPT_OF_HEAPS if heaps else KEPT), (name, kept)


def test_an_interval_is_no_wider_than_it_has_to_be() -> None:
    rng = random.Random(7)
    units = [even(rng) for _ in range(UNITS)]
    found = drawn(units, 10, rng)
    for total, most in ((found.prompt_tokens, 0.02), (found.completion_tokens, 0.15), (found.seconds, 0.15)):
        interval = total.interval()
        assert interval.high - interval.low < most * interval.point
