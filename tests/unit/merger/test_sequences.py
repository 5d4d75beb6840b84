"""The frontier and the stretches above it, against a plain set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_merger.sequences import MergedSequences, Stretch

SIZE = 10


@pytest.mark.promise(2)
@given(st.permutations(range(12)), st.integers(0, 12))
def test_any_order_gives_what_a_set_gives(order: list[int], taken: int) -> None:
    merged, model = MergedSequences(), set[int]()
    for sequence in order[:taken]:
        assert sequence not in merged
        assert merged.fits(sequence, sequence * SIZE, (sequence + 1) * SIZE)
        merged.add(sequence, sequence * SIZE, (sequence + 1) * SIZE)
        model.add(sequence)
        assert [one for one in range(13) if one in merged] == sorted(model)
    frontier = next(one for one in range(13) if one not in model)
    assert (merged.through, merged.rows) == (frontier, frontier * SIZE)
    assert merged.waiting == len([one for one in model if one > frontier])
    missing = {row // SIZE for first, end in merged.gaps(120) for row in range(first, end)}
    assert missing == set(range(12)) - model
    again = MergedSequences(merged.through, merged.rows, [Stretch(*one) for one in merged.as_lists()])
    assert again == merged
    for before, after in zip(merged.above, merged.above[1:], strict=False):
        assert before.last + 1 < after.first


@pytest.mark.parametrize(
    ("sequence", "first_row", "end_row", "fits"),
    [
        (1, 10, 20, True),
        (1, 11, 20, False),  # a hole behind the frontier
        (1, 9, 20, False),  # overlaps what is merged
        (3, 30, 39, False),  # a hole before the next stretch
        (3, 25, 40, True),  # rows of sequence 2 may end anywhere
        (2, 20, 45, False),  # reaches into the next stretch
        (6, 60, 70, True),
        (5, 49, 55, False),
        (5, 51, 55, False),
    ],
)
def test_rows_that_contradict_the_neighbours_do_not_fit(
    sequence: int, first_row: int, end_row: int, fits: bool
) -> None:
    merged = MergedSequences()
    merged.add(0, 0, 10)
    merged.add(4, 40, 50)
    assert merged.fits(sequence, first_row, end_row) is fits
