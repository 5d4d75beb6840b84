"""How many requests a user may send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_model_worker.requests.rate import RateLimit


def test_a_burst_and_then_the_rate() -> None:
    limit = RateLimit(per_second=2, burst=3)
    assert [limit.take("a", 10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.take("a", 10.25) == 0.25
    assert limit.take("a", 10.5) == 0
    assert limit.take("a", 10.5) == 0.5
    assert [limit.take("a", 1000.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_users_do_not_share() -> None:
    limit = RateLimit(per_second=1, burst=1)
    assert [limit.take(user, 0.0) for user in ("a", "b", "a", "b")] == [0, 0, 1, 1]


@pytest.mark.promise(9)
def test_an_address_written_in_another_way_is_the_same_user() -> None:
    limit = RateLimit(per_second=1, burst=2)
    spellings = ["me@x.org", "  me@x.org", "Me@X.org\t", "ME@X.ORG", "\u2003me@x.org\n"]
    assert [limit.take(one, 0.0) for one in spellings] == [0, 0, 1, 1, 1]
    assert len(limit._buckets) == 1


def test_who_was_silent_longest_is_forgotten() -> None:
    limit = RateLimit(per_second=0.001, burst=1, users=2)
    assert [limit.take(user, 0.0) for user in ("a", "b")] == [0, 0]
    assert limit.take("a", 0.0) > 0
    assert limit.take("c", 0.0) == 0  # in the place of b
    assert limit.take("a", 0.0) > 0
    assert limit.take("b", 0.0) == 0
    assert len(limit._buckets) == 2


@pytest.mark.parametrize(("rate", "burst", "users"), [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_limit_that_lets_nobody_through_is_refused(rate: float, burst: int, users: int) -> None:
    with pytest.raises(ValueError, match="a rate limit needs"):
        RateLimit(rate, burst, users)


@given(st.lists(st.floats(0, 10), max_size=200), st.floats(0.1, 50), st.integers(1, 20))
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], rate: float, burst: int) -> None:
    limit, now, taken = RateLimit(rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        taken += limit.take("a", now) == 0
    assert taken <= burst + rate * now + 1e-6
