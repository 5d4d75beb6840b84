"""Rows that kill whoever asks about them: found, failed, and nobody else with them."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.annotation import Answer, Problem
from prism.kafka.commit_note import CAREFUL_AFTER, CommitNote
from prism.messages import RowReason
from prism_model_worker.careful import DEATHS_OF_A_ROW, CarefulWork
from prism_model_worker.holdings import Holding, Holdings
from prism_model_worker.tasks import BatchTask
from tests.unit.worker.world import context, task

SPAN = 8
IN_HAND = 4
GOOD = Answer({"Mood": "good"}, ())


class Died(Exception):
    """This process is no more."""


@dataclass
class Partition:
    """One partition's batches, its committed offset and metadata, and the owners that die over it."""

    rows: list[int]
    poison: set[tuple[int, int]]
    chance: random.Random
    offset: int = 0
    metadata: str = ""
    deaths: int = 0
    lone_deaths: int = 0
    results: dict[int, BatchTask] = field(default_factory=dict)
    asked: int = 0

    def own(self, session: str) -> None:
        """One owner's life. Raises Died."""
        note = CommitNote.decode(self.metadata, self.offset).taken_over("t", session, self.offset, SPAN)
        holdings = Holdings()
        held = holdings.take(0, self.offset, note)
        self._commit(held)
        open_tasks: list[BatchTask] = []
        for offset in range(self.offset, len(self.rows)):
            if held.frontier.take(offset):
                open_tasks.append(task(self.rows[offset], _CONTEXT, offset))
        while open_tasks:
            if held.careful:
                self._work_alone(open_tasks.pop(0), held)
            else:
                self._work_together([open_tasks.pop(0) for _ in range(min(IN_HAND, len(open_tasks)))], held)

    def _commit(self, held: Holding) -> None:
        self.offset, self.metadata = held.wanted_commit()

    def _finish(self, work: BatchTask, held: Holding) -> None:
        assert work.open_rows() == []
        before = held.frontier.committable
        held.frontier.finish(work.offset)
        if held.frontier.committable > before:
            held.progressed()
        self.results.setdefault(work.offset, work)
        if self.chance.random() < 0.7:
            self._commit(held)

    def _work_together(self, works: list[BatchTask], held: Holding) -> None:
        self.chance.shuffle(works)
        dying = False
        for work in works:
            if any((work.offset, row) in self.poison for row in work.open_rows()):
                dying = True
                continue
            if dying and self.chance.random() < 0.5:
                continue
            self._answer(work)
            self._finish(work, held)
        if dying:
            raise Died

    def _work_alone(self, work: BatchTask, held: Holding) -> None:
        careful = CarefulWork.begin(work, held)
        while (suspect := careful.next_suspect()) is not None:
            held.suspect(suspect)
            self._commit(held)
            self._answer(work)
        self._finish(work, held)
        self._commit(held)

    def _answer(self, work: BatchTask) -> None:
        while work.pending:
            for index in work.pending.popleft().indices:
                self.asked += 1
                if (work.offset, index) in self.poison:
                    raise Died
                work.outcomes[index] = GOOD


_CONTEXT = context()


def live_and_die(partition: Partition, most: int = 200) -> None:
    for number in range(most):
        try:
            partition.own(f"session{number}")
        except Died:
            partition.deaths += 1
            continue
        return
    raise AssertionError(f"still dying after {most} deaths")


def poisoned_rows(partition: Partition) -> set[tuple[int, int]]:
    return {
        (offset, index)
        for offset, work in partition.results.items()
        for index, one in work.outcomes.items()
        if isinstance(one, Problem) and one.reason is RowReason.POISON
    }


@pytest.mark.promise(9)
def test_a_row_that_kills_is_failed_after_six_deaths() -> None:
    partition = Partition([4, 4, 4], {(1, 2)}, random.Random(0))
    live_and_die(partition)
    assert poisoned_rows(partition) == {(1, 2)}
    assert partition.deaths == CAREFUL_AFTER + 1 + DEATHS_OF_A_ROW
    assert [len(work.outcomes) for work in partition.results.values()] == [4, 4, 4]


@pytest.mark.promise(9)
@given(
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    seed=st.integers(0, 2**16),
    share=st.floats(0, 0.3),
)
def test_exactly_the_rows_that_kill_are_failed(rows: list[int], seed: int, share: float) -> None:
    chance = random.Random(seed)
    every = [(offset, index) for offset, count in enumerate(rows) for index in range(count)]
    poison = {place for place in every if chance.random() < share}
    partition = Partition(rows, poison, chance)
    live_and_die(partition)
    assert poisoned_rows(partition) == poison
    assert set(partition.results) == set(range(len(rows)))
    assert all(len(work.outcomes) == rows[offset] for offset, work in partition.results.items())
    assert partition.deaths <= (CAREFUL_AFTER + 1 + DEATHS_OF_A_ROW + IN_HAND) * len(poison)


def test_a_kill_from_outside_costs_calls_and_no_row() -> None:
    """A batch that was being worked on alone when somebody pulled the plug is asked again, row by row."""
    partition = Partition([3], set(), random.Random(0))
    for session in ("a", "b", "c"):
        note = CommitNote.decode(partition.metadata, 0).taken_over("t", session, 0, SPAN)
        held = Holdings().take(0, 0, note)
        if held.careful:
            suspect = CarefulWork.begin(task(3, _CONTEXT, 0), held).next_suspect()
            held.suspect(suspect)
        partition._commit(held)
    live_and_die(partition)
    assert partition.deaths == 0
    assert poisoned_rows(partition) == set()
    assert partition.results[0].outcomes == {0: GOOD, 1: GOOD, 2: GOOD}
