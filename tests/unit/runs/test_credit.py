"""Credit: the fleet's window and a run's share of it."""

from hypothesis import given
from hypothesis import strategies as st

from prism.runs.credit import MIN_WINDOW, share, window


def test_the_window_is_twice_what_the_workers_can_hold() -> None:
    assert window(0) == MIN_WINDOW
    assert window(100) == 200
    assert window(100, floor=500) == 500


@given(st.integers(1, 10_000), st.integers(0, 9), st.integers(0, 9))
def test_a_share_is_never_nothing_and_grows_with_priority(whole: int, low: int, high: int) -> None:
    low, high = sorted((low, high))
    assert 1 <= share(whole, low, high) <= share(whole, high, high) == whole
