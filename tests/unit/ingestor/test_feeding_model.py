"""Feeding as a state machine: whatever happens in whatever order, every batch is merged in the end."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from prism.runs.tracker import BrokerView
from tests.unit.ingestor.world import PARTITIONS, World

partitions = st.integers(0, PARTITIONS - 1)
ALWAYS = ("feed", "acknowledge", "work", "merge", "progress", "cursor", "look", "lost")
OFTEN_FEED = (*ALWAYS, "feed", "acknowledge", "work", "work")
OFTEN_WORK = (*ALWAYS, "work", "merge", "progress", "progress")


class Feeding(RuleBasedStateMachine):
    """Feeding, acknowledging, working, merging, and takeovers; losses only in the subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.old_view: BrokerView | None = None

    @initialize(rows=st.integers(0, 25), seed=st.integers(0, 1000))
    def begin(self, rows: int, seed: int) -> None:
        self.world = World(Path(self.folder.name), rows, seed)

    @rule(steps=st.integers(1, 40), busy=st.sampled_from([OFTEN_WORK, OFTEN_FEED]))
    def live(self, steps: int, busy: tuple[str, ...]) -> None:
        """Some of what goes on all the time, in any order."""
        for _ in range(steps):
            getattr(self, f"_{self.world.chance.choice(busy)}")()

    def _feed(self) -> None:
        self.world.feed_next()

    def _acknowledge(self) -> None:
        self.world.acknowledge()

    def _work(self) -> None:
        self.world.work(self.world.chance.randrange(PARTITIONS))

    def _merge(self) -> None:
        self.world.merge()

    def _progress(self) -> None:
        self.world.progress()

    def _cursor(self) -> None:
        self.world.write_cursor()

    def _look(self) -> None:
        self.old_view = self.world.view()

    def _lost(self) -> None:
        if self.old_view is not None:
            self.world.feed_lost(self.old_view)

    @rule()
    def take_over(self) -> None:
        self.world.take_over()
        self.old_view = self.world.view()  # the first thing that a new one asks for

    def teardown(self) -> None:
        if hasattr(self, "world"):
            world = self.world
            world.settle()
            assert set(world.merged) == set(range(world.batches_total))
            assert world.feed.all_fed
            assert world.feed.unmerged == 0
            if not world.any_loss:
                assert all(times == 1 for times in world.fed_times.values()), "fed again without need"
        self.folder.cleanup()


class FeedingWithLosses(Feeding):
    """The same while results and batches vanish."""

    @rule()
    def lose_a_result(self) -> None:
        self.world.lose_a_result()

    @rule(partition=partitions)
    def lose_batches(self, partition: int) -> None:
        self.world.lose_batches(partition)

    @rule()
    def make_batches_again(self) -> None:
        self.world.make_batches_again()

    @rule()
    def make_results_again(self) -> None:
        self.world.make_results_again()


TestFeeding = pytest.mark.promise(1)(Feeding.TestCase)
TestFeeding.settings = settings(max_examples=300, stateful_step_count=12, deadline=None)
TestFeedingWithLosses = pytest.mark.promise(1)(FeedingWithLosses.TestCase)
TestFeedingWithLosses.settings = settings(max_examples=300, stateful_step_count=12, deadline=None)
