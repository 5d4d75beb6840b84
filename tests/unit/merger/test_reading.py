"""Where each partition is read from."""

import pytest

from prism.kafka.admin import Ends
from prism_merger.reading import own_partitions, start_offsets


@pytest.mark.parametrize(
    ("stored", "same", "low", "high", "start", "again"),
    [
        (None, True, 0, 9, 0, False),
        (None, False, 3, 9, 3, False),
        (5, True, 0, 9, 5, False),
        (9, True, 0, 9, 9, False),
        (5, True, 7, 9, 7, False),  # deleted above what is stored: go on behind it
        (5, False, 0, 9, 0, True),  # another topic: offsets mean nothing
        (12, True, 2, 9, 2, True),  # the end lies below what is stored
    ],
)
def test_start_offsets(stored: int | None, same: bool, low: int, high: int, start: int, again: bool) -> None:
    known = {} if stored is None else {4: stored}
    assert start_offsets(known, same, Ends({4: low}, {4: high})) == ({4: start}, [4] if again else [])


def test_mergers_share_the_partitions_without_overlap() -> None:
    owned = [own_partitions(16, ordinal, 3) for ordinal in range(3)]
    assert sorted(one for mine in owned for one in mine) == list(range(16))
    assert owned[1] == [1, 4, 7, 10, 13]
