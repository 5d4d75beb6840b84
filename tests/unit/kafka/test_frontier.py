"""The frontier: whatever the order of finishing, nothing unfinished is committed away."""

import random
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.kafka.commit_note import MAX_BYTES, CommitNote, Suspect
from prism.kafka.frontier import MAX_PIECES, MAX_SPAN, OffsetFrontier


def test_nothing_taken_commits_where_it_began() -> None:
    frontier = OffsetFrontier(5)
    assert (frontier.committable, frontier.in_flight, frontier.position) == (5, 0, 5)
    assert frontier.finished_above() == []


def test_the_unbroken_prefix_is_committed() -> None:
    frontier = OffsetFrontier(5)
    for offset in (5, 6, 7, 9):
        assert frontier.take(offset)
    frontier.finish(6)
    frontier.finish(9)
    assert frontier.committable == 5
    assert frontier.finished_above() == [(6, 6), (9, 9)]
    frontier.finish(5)
    assert frontier.committable == 7
    frontier.finish(7)
    assert frontier.committable == 10
    assert frontier.finished_above() == []


def test_finishing_twice_or_what_was_never_taken_changes_nothing() -> None:
    frontier = OffsetFrontier(0)
    frontier.take(0)
    frontier.take(1)
    frontier.finish(7)
    frontier.finish(0)
    frontier.finish(0)
    assert frontier.committable == 1


def test_an_offset_is_not_taken_twice() -> None:
    frontier = OffsetFrontier(0)
    frontier.take(3)
    with pytest.raises(ValueError, match="3"):
        frontier.take(3)


def test_there_is_room_for_a_span() -> None:
    frontier = OffsetFrontier(100)
    taken = 0
    while frontier.has_room() and taken <= MAX_SPAN:
        frontier.take(100 + taken)
        taken += 1
    assert taken == MAX_SPAN
    frontier.finish(100)
    assert frontier.has_room()


@pytest.mark.promise(9)
def test_one_that_waits_for_long_holds_up_none_behind_it() -> None:
    """A batch whose model server is away, and a whole run that goes by behind it in the same partition."""
    frontier = OffsetFrontier(0)
    frontier.take(0)
    stuck = {0, 5, 30_000}
    for offset in range(1, 60_000):
        assert frontier.has_room()
        frontier.take(offset)
        if offset - 5 not in stuck:
            frontier.finish(offset - 5)
    assert (frontier.committable, frontier.in_flight) == (0, 3 + 5)
    note = CommitNote("t", "o", finished=tuple(frontier.finished_above()))
    assert note.finished == ((1, 4), (6, 29_999), (30_001, 59_994))
    assert CommitNote.decode(note.encode(0), 0) == note
    assert len(frontier._order) < 2 * MAX_SPAN, "what is finished is forgotten"
    for offset in (5, 30_000, *range(59_995, 60_000), 0):
        frontier.finish(offset)
    assert (frontier.committable, frontier.finished_above()) == (60_000, [])


def test_beyond_a_span_there_is_room_for_so_many_pieces() -> None:
    """However it goes on from there, they fit into the metadata."""
    frontier = OffsetFrontier(0)
    offset = 0
    while frontier.has_room() and offset < 2 * 3_001 * MAX_PIECES:
        frontier.take(offset)
        if offset % 3_001:
            frontier.finish(offset)
        offset += 1
    assert MAX_PIECES / 2 <= frontier.in_flight <= MAX_PIECES
    poisoned = Suspect(0, 199, 99, tuple(range(200)))
    note = CommitNote("A" * 22, "b" * 12, 99, 2**62, poisoned, tuple(frontier.finished_above()))
    assert len(note.finished) <= MAX_PIECES
    assert CommitNote.decode(note.encode(0), 0) == note


def test_what_a_former_owner_finished_above_is_not_taken_again() -> None:
    frontier = OffsetFrontier(10, [(11, 12), (20, 20)])
    assert frontier.take(10)
    assert not frontier.take(11)
    assert frontier.finished_above() == [(11, 12), (20, 20)]  # 12 is still to come, 20 too
    frontier.finish(10)
    assert frontier.committable == 12
    assert not frontier.take(12)
    assert frontier.committable == 13


@given(
    steps=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 8)), max_size=80),
    inherited=st.lists(st.integers(0, 200), unique=True, max_size=40),
)
@example(steps=[(1, 9), (1, 9), (1, 2), (1, 1)], inherited=[])  # two runs that become one
def test_it_says_what_a_list_of_all_offsets_says(steps: list[tuple[int, int]], inherited: list[int]) -> None:
    """Take the next offset, a few further on, then finish one of those in hand, if there are so many."""
    frontier = OffsetFrontier(0, [(one, one) for one in sorted(inherited)])
    taken: dict[int, bool] = {}
    for gap, which in steps:
        offset = max(taken, default=-1) + gap
        taken[offset] = offset in inherited
        assert frontier.take(offset) is not taken[offset]
        in_hand = [one for one, done in taken.items() if not done]
        if which < len(in_hand):
            taken[in_hand[which]] = True
            frontier.finish(in_hand[which])
        position = offset + 1
        committable = next((one for one, done in taken.items() if not done), position)
        above = {one for one, done in taken.items() if done and one > committable}
        above |= {one for one in inherited if one >= position}
        assert (frontier.committable, frontier.position) == (committable, position)
        assert frontier.in_flight == sum(not done for done in taken.values())
        assert all(before[1] + 1 < after[0] for before, after in pairwise(frontier._above)), "few pieces"
        assert {one for first, last in frontier.finished_above() for one in range(first, last + 1)} == above


@st.composite
def offsets(draw: st.DrawFn) -> list[int]:
    """Offsets with gaps, as compaction and foreign transactions leave them."""
    gaps = draw(st.lists(st.integers(1, 4), min_size=1, max_size=60))
    return [sum(gaps[: index + 1]) for index in range(len(gaps))]


@pytest.mark.promise(4)
@given(all_offsets=offsets(), seed=st.integers(0, 2**32), owners=st.integers(1, 6))
def test_over_any_deaths_every_offset_is_done_and_none_twice(
    all_offsets: list[int], seed: int, owners: int
) -> None:
    """Owners that die after a commit: the next one goes on from its offset and metadata."""
    chance = random.Random(seed)
    done: list[int] = []
    committed, text = all_offsets[0], CommitNote("t", "o").encode(all_offsets[0])
    for owner in range(owners):
        note = CommitNote.decode(text, committed)
        frontier = OffsetFrontier(committed, note.finished)
        open_offsets: list[int] = []
        for offset in [one for one in all_offsets if one >= committed]:
            if frontier.take(offset):
                assert offset not in done  # never redone: no death lies between finishing and commit here
                open_offsets.append(offset)
        chance.shuffle(open_offsets)
        last = owner == owners - 1
        for offset in open_offsets if last else open_offsets[: chance.randint(0, len(open_offsets))]:
            frontier.finish(offset)
            done.append(offset)
            assert all(one in done for one in all_offsets if one < frontier.committable)
        committed = frontier.committable
        text = CommitNote("t", "o", finished=tuple(frontier.finished_above())).encode(committed)
    assert sorted(done) == all_offsets


@given(all_offsets=offsets(), seed=st.integers(0, 2**32))
def test_what_is_not_committed_is_done_again_and_nothing_is_lost(all_offsets: list[int], seed: int) -> None:
    """A death between finishing and commit costs work, never an offset."""
    chance = random.Random(seed)
    done: set[int] = set()
    committed, text = all_offsets[0], ""
    for _ in range(100):
        frontier = OffsetFrontier(committed, CommitNote.decode(text, committed).finished)
        taken = [one for one in all_offsets if one >= committed and frontier.take(one)]
        chance.shuffle(taken)
        for offset in taken:
            frontier.finish(offset)
            done.add(offset)
            if chance.random() < 0.5:
                committed = frontier.committable
                text = CommitNote("t", "o", finished=tuple(frontier.finished_above())).encode(committed)
            if chance.random() < 0.1:
                break  # dies here
        else:
            break
    assert done == set(all_offsets)


@given(
    start=st.integers(0, 2**62),
    bits=st.lists(st.booleans(), min_size=1, max_size=MAX_SPAN),
    poisoned=st.lists(st.integers(0, 199), unique=True, max_size=20),
)
def test_a_note_comes_back_as_it_was(start: int, bits: list[bool], poisoned: list[int]) -> None:
    frontier = OffsetFrontier(start)
    for place, _ in enumerate(bits):
        frontier.take(start + place)
    for place, finished in enumerate(bits):
        if finished:
            frontier.finish(start + place)
    suspect = Suspect(start, 3, 2, tuple(poisoned))
    above = tuple(frontier.finished_above())
    note = CommitNote("A" * 22, "b" * 12, 7, start + 40, suspect, above)
    text = note.encode(frontier.committable)
    assert len(text.encode()) <= MAX_BYTES
    assert CommitNote.decode(text, frontier.committable) == note


@pytest.mark.parametrize("period", [1, 2, 3, 17, 18, 33])
def test_the_worst_alternation_of_a_whole_span_fits(period: int) -> None:
    frontier = OffsetFrontier(2**62)
    for place in range(MAX_SPAN):
        frontier.take(2**62 + place)
    for place in range(1, MAX_SPAN):
        if place % (period + 1):
            frontier.finish(2**62 + place)
    assert frontier.committable == 2**62
    note = CommitNote(
        "A" * 22,
        "b" * 12,
        99,
        2**62,
        Suspect(2**62, 199, 99, tuple(range(200))),
        tuple(frontier.finished_above()),
    )
    text = note.encode(2**62)
    assert len(text) <= MAX_BYTES
    assert CommitNote.decode(text, 2**62) == note


def test_what_does_not_fit_is_left_out_from_the_far_end() -> None:
    runs = tuple((1000 * place, 1000 * place) for place in range(1, 3000))
    kept = CommitNote.decode(CommitNote("t", "o", finished=runs).encode(0), 0).finished
    assert 100 < len(kept) < len(runs)
    assert kept == runs[: len(kept)]


def test_a_note_that_cannot_fit_says_whose_it_is() -> None:
    note = CommitNote("t", "o", losses=2, suspect=Suspect(1, poisoned=tuple(range(2000))))
    assert CommitNote.decode(note.encode(0), 0) == CommitNote("t", "o")


@given(st.one_of(st.none(), st.text(max_size=60), st.binary(max_size=60).map(lambda b: b.decode("latin-1"))))
def test_foreign_metadata_is_an_empty_note(text: str | None) -> None:
    assert CommitNote.decode(text, 5) == CommitNote()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4000,
        '{"t": "t"}',
        '{"t": "t", "o": "o", "s": [1]}',
        '{"t": "t", "o": "o", "s": ["a", 1, 2, []]}',
        '{"t": "t", "o": "o", "s": [1, 1, "x", []]}',
        '{"t": "t", "o": "o", "f": "zz.1"}',
        '{"t": "t", "o": "o", "l": "many"}',
        "[1, 2]",
        "7",
    ],
)
def test_a_damaged_note_is_an_empty_one(text: str) -> None:
    assert CommitNote.decode(text, 5) == CommitNote()


def test_a_dead_owner_with_nothing_in_hand_is_no_loss() -> None:
    note = CommitNote("t", owner="dead", losses=1).taken_over("t", "me", 10, 0)
    assert note == CommitNote("t", owner="me", losses=1)


def test_an_owner_that_left_properly_is_no_loss() -> None:
    note = CommitNote("t", owner="", losses=1).taken_over("t", "me", 10, 40)
    assert (note.owner, note.losses, note.careful_until) == ("me", 1, 0)


def test_the_second_unclean_loss_makes_careful() -> None:
    first = CommitNote("t", owner="dead", suspect=Suspect(10, 4, 1)).taken_over("t", "me", 10, 40)
    assert (first.losses, first.careful_until) == (1, 0)
    assert first.suspect == Suspect(10, 4, 2)
    second = first.taken_over("t", "other", 12, 40)
    assert (second.losses, second.careful_until) == (2, 52)


def test_a_note_about_another_topic_of_the_name_says_nothing() -> None:
    note = CommitNote("old", owner="dead", losses=5, careful_until=99, suspect=Suspect(1))
    assert note.taken_over("new", "me", 0, 40) == CommitNote("new", "me")
