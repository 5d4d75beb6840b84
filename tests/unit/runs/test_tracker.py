"""What is fed and not merged: acknowledgements, credit, loss. `unit/ingestor/test_feeding_model` runs it."""

import pytest

from prism.messages import CutPosition, FileCursor, FileProgress
from prism.runs.tracker import BrokerView, FeedTracker, highest_merged, is_merged, resume_point


def position(sequence: int) -> CutPosition:
    return CutPosition(sequence=sequence, ordinal=10 * sequence, offset=100 * sequence + 8, line=sequence)


def view(committed: int, high: int = 10, low: int = 0, end: int = 0, at: float = 100.0) -> BrokerView:
    return BrokerView({0: committed}, {0: low}, {0: high}, {5: end}, at)


def fed(count: int, acknowledged_at: float | None = 0.0) -> FeedTracker:
    tracker = FeedTracker()
    for sequence in range(count):
        tracker.fed(position(sequence), position(sequence + 1), 0)
        if acknowledged_at is not None:
            tracker.acknowledged(sequence, (0, sequence), acknowledged_at)
    return tracker


def test_nothing_fed() -> None:
    assert FeedTracker().cursor() == FileCursor()
    assert FeedTracker().unmerged == 0


@pytest.mark.promise(4)
def test_the_cursor_counts_only_what_is_acknowledged() -> None:
    tracker = fed(3, acknowledged_at=None)
    tracker.acknowledged(0, (0, 0), 1.0)
    tracker.acknowledged(2, (0, 1), 1.0)
    assert tracker.cursor().next == position(1)
    tracker.acknowledged(1, (0, 2), 1.0)
    assert tracker.cursor().next == position(3)
    assert tracker.cursor().oldest == position(0)


def test_what_is_merged_gives_credit_back_once() -> None:
    tracker = fed(4)
    progress = FileProgress(merged_through=1, merged_above=[(2, 2)])
    assert [one.start.sequence for one in tracker.merged(progress)] == [0, 2]
    assert tracker.merged(progress) == []
    assert (tracker.unmerged, tracker.oldest()) == (2, position(1))


def test_passed_read_to_the_end_and_not_merged_is_lost() -> None:
    tracker = fed(2)
    tracker.note_view(view(committed=1, end=7), 5)
    assert tracker.lost_sequences(6) == []
    assert tracker.lost_sequences(7) == [0]
    assert tracker.fed_again(0, 0) == 2
    assert tracker.lost_sequences(99) == []  # on its way again
    assert tracker.cursor().refed == {0: 1}


def test_the_end_counts_as_it_was_when_the_workers_had_passed() -> None:
    tracker = fed(1)
    tracker.note_view(view(committed=1, end=7), 5)
    tracker.note_view(view(committed=1, end=900), 5)  # a busy topic must not put it off for ever
    assert tracker.lost_sequences(7) == [0]


def test_a_view_says_nothing_of_what_was_acknowledged_after_it_was_asked() -> None:
    tracker = fed(1, acknowledged_at=101.0)
    tracker.note_view(view(committed=0, high=0, at=100.0), 5)
    assert tracker.lost_sequences(99) == []
    tracker.note_view(view(committed=0, high=1, at=102.0), 5)
    assert tracker.lost_sequences(99) == []


@pytest.mark.parametrize(
    "gone", [view(committed=0, high=0), view(committed=0, low=1)], ids=["topic made again", "deleted below"]
)
def test_a_batch_that_is_gone_is_passed(gone: BrokerView) -> None:
    tracker = fed(1)
    tracker.note_view(gone, 5)
    assert tracker.lost_sequences(0) == [0]


def test_results_made_again_end_lower() -> None:
    tracker = fed(1)
    tracker.note_view(view(committed=1, end=500), 5)
    tracker.note_view(view(committed=1, end=3), 5)
    assert tracker.lost_sequences(3) == [0]


def test_where_a_merger_stands() -> None:
    progress = FileProgress(merged_through=3, merged_above=[(5, 6), (9, 9)])
    assert [seq for seq in range(11) if is_merged(progress, seq)] == [0, 1, 2, 5, 6, 9]
    assert highest_merged(progress) == 9
    assert highest_merged(FileProgress()) == -1


def test_feeding_goes_on_behind_all_that_was_ever_fed() -> None:
    cursor = FileCursor(next=position(4), oldest=position(1))
    assert resume_point(cursor, FileProgress(merged_through=3), []) == 4
    assert resume_point(cursor, FileProgress(merged_through=2, merged_above=[(6, 7)]), []) == 8
    assert resume_point(cursor, FileProgress(), [3, 11]) == 12
