"""A new store in an old world."""

from pathlib import Path

import pytest

from prism.messages import OutputPublished
from prism_merger.accounts import Outcome, Stage
from prism_merger.recovery import adopt_published
from tests.unit.merger.world import World, result, run_record

RECORD = run_record(labels=("march", "april"))


def published_then_lost(folder: Path) -> tuple[World, list[OutputPublished]]:
    first = World(folder, [RECORD])
    first.merge([result(RECORD, number, label=one.label) for one in RECORD.files for number in range(3)])
    first.finish()
    first.close()
    for one in (folder / "merger-0").iterdir():
        one.unlink()
    return World(folder, [RECORD]), first.outlet.announced


@pytest.mark.promise(5)
def test_the_manifest_gives_everything_back(tmp_path: Path) -> None:
    world, announced = published_then_lost(tmp_path)
    run = adopt_published(world.run(), world.ledger.plan("r1"), world.store, world.places, {})
    assert (run.stage, run.outcome, run.calls, run.ok, run.failed) == (
        Stage.CLOSED, Outcome.PUBLISHED, 6, 44, 6,
    )  # fmt: skip
    world.ledger.keep(run)
    before = world.files()
    world.finish()
    assert world.files() == before
    assert world.outlet.announced == announced


def test_without_a_manifest_the_announcements_do(tmp_path: Path) -> None:
    world, announced = published_then_lost(tmp_path)
    world.places.manifest("r1").unlink()
    events = {(one.run_id, one.label, one.format): one for one in announced}
    run = adopt_published(world.run(), world.ledger.plan("r1"), world.store, world.places, events)
    assert (run.stage, run.ok + run.failed, run.manifest_stale) == (Stage.CLOSED, 50, True)


def test_a_manifest_of_another_run_or_with_lost_files_is_none(tmp_path: Path) -> None:
    world, _ = published_then_lost(tmp_path)
    plan = world.ledger.plan("r1")
    world.places.output("r1_april.csv").write_text("cut")
    run = adopt_published(world.run(), plan, world.store, world.places, {})
    assert (run.stage, run.ok) == (Stage.MERGING, 0)
