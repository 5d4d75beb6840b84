"""Partitions while they are held: epochs guard commits, notes say who holds."""

import pytest

from prism.kafka.commit_note import CommitNote, Suspect
from prism_model_worker.holdings import Holdings


def test_a_result_moves_the_frontier_of_its_own_epoch_only() -> None:
    holdings = Holdings()
    old = holdings.take(3, 0, CommitNote("t", "me"))
    old.frontier.take(0)
    holdings.drop(3)
    assert not holdings.finish(3, old.epoch, 0)
    new = holdings.take(3, 0, CommitNote("t", "me"))
    new.frontier.take(0)
    assert new.epoch > old.epoch
    assert not holdings.finish(3, old.epoch, 0)
    assert new.frontier.committable == 0
    assert holdings.finish(3, new.epoch, 0)
    assert new.frontier.committable == 1
    assert holdings.get(3, old.epoch) is None
    assert holdings.get(3) is new
    assert holdings.partitions() == [3]
    assert holdings.all() == [new]


def test_a_commit_says_what_is_finished_above_and_whose_it_is() -> None:
    holding = Holdings().take(0, 5, CommitNote("t", "me", losses=1, finished=((7, 8),)))
    holding.frontier.take(5)
    holding.suspect(Suspect(5))
    offset, text = holding.wanted_commit()
    assert offset == 5
    assert CommitNote.decode(text, 5) == CommitNote("t", "me", 1, 0, Suspect(5), ((7, 8),))
    offset, text = holding.wanted_commit(release=True)
    assert CommitNote.decode(text, 5) == CommitNote("t", "", 1, 0, None, ((7, 8),))


@pytest.mark.promise(9)
def test_losses_are_forgiven_once_what_could_be_to_blame_is_done() -> None:
    holdings = Holdings()
    holding = holdings.take(0, 0, CommitNote("t", "me", losses=2, careful_until=3, suspect=Suspect(0)))
    for offset in range(4):
        holding.frontier.take(offset)
    assert holding.careful
    for offset in range(2):
        holdings.finish(0, holding.epoch, offset)
        assert holding.careful
    holdings.finish(0, holding.epoch, 2)
    assert not holding.careful
    assert holding.note == CommitNote("t", "me")


def test_a_finish_above_the_frontier_is_no_progress() -> None:
    holdings = Holdings()
    holding = holdings.take(0, 0, CommitNote("t", "me", losses=1))
    holding.frontier.take(0)
    holding.frontier.take(1)
    holdings.finish(0, holding.epoch, 1)
    assert holding.note.losses == 1
    holdings.finish(0, holding.epoch, 0)
    assert holding.note.losses == 0
