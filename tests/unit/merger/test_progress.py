"""Progress: absolute counts, rates, what is told when."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import MergeState, Usage
from prism_merger.places import Places
from prism_merger.progress import Position, ProgressMaker, Rate
from tests.unit.merger.world import NOW, World, result, run_record


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate.note(0) == 0.0
    for second in range(1, 31):
        clock.now = float(second)
        found = rate.note(second * 100)
    assert found == pytest.approx(100)
    for second in range(31, 60):
        clock.now = float(second)
        found = rate.note(3000)
    assert found == 0.0


@given(st.lists(st.floats(0.001, 5), max_size=300))
def test_the_rate_keeps_few_samples(steps: list[float]) -> None:
    clock = Clock()
    rate = Rate(clock)
    for number, step in enumerate(steps):
        clock.now += step
        assert rate.note(number) >= 0
    assert len(rate._samples) <= 10 / 0.25 + 3


def test_counts_are_absolute_and_of_the_store(tmp_path: Path) -> None:
    record = run_record(rows=95)
    world = World(tmp_path, [record])
    world.merge([result(record, number) for number in (0, 1, 4, 5, 8)])
    clock = Clock()
    maker = ProgressMaker("m", Places(tmp_path), clock, lambda: NOW + 10)
    plan = world.ledger.plan("r1")
    found = maker.make(world.run(), plan, Position(0, "t", 5), "disk full: x")
    file = found.files["march"]
    assert (file.merged_through, file.merged_above) == (2, [(4, 5), (8, 8)])
    assert (found.rows_ok + found.rows_failed, found.calls, found.read_to) == (50, 5, 5)
    assert (found.state, found.detail) == (MergeState.MERGING, "disk full: x")
    assert found.mean_rows_per_s == 5.0
    world.merge([result(record, 2)], first_offset=5)
    clock.now = 2.0
    found = maker.make(world.run(), plan, Position(0, "t", 6), None)
    assert (found.rows_per_s, found.eta_s) == (5.0, 7.0)


def test_calls_about_rows_asked_before_are_told_and_stand_in_the_manifest(tmp_path: Path) -> None:
    record = run_record(rows=10)
    usage = Usage(calls=4, repeated_calls=3)
    world = World(tmp_path, [record])
    world.merge([result(record, 0).model_copy(update={"usage": usage})])
    world.finish()
    world.tell()
    assert (world.outlet.told[-1].calls, world.outlet.told[-1].repeated_calls) == (4, 3)
    assert json.loads(world.places.manifest("r1").read_text())["repeated_calls"] == 3
