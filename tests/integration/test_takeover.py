"""Losses and takeovers: batches that vanish, ingestors that die, are stopped, or end."""

import os
import signal
import time
from collections import Counter

import pytest

from prism.kafka.admin import delete_below, topic_ends
from prism.messages import MergeState, RunState
from prism.runs.credit import MIN_WINDOW
from tests.integration.desk import Desk, csv_of, expected_rows, parquet_of, rows_of
from tests.integration.stage import PARTITIONS, SHORT_SESSION, Stage, await_value


def unmerged(stage: Stage, count: int, **environ: str) -> Desk:
    desk = Desk(stage, **environ)
    desk.drop(csv_of(2 * count), run_id="r")
    desk.fed("r", min(count, MIN_WINDOW))
    return desk


def _await_feeding(stage: Stage, feeding: int) -> None:
    await_value(
        lambda: [one.fed for one in stage.batches("r")].count(feeding) == 2,
        f"two batches fed {feeding} times",
    )


@pytest.mark.promise(1)
def test_a_lost_batch_is_fed_again_and_then_given_up(stage: Stage) -> None:
    desk = unmerged(stage, 4)
    ends = topic_ends(stage.admin, stage.topics.batches, range(PARTITIONS)).high
    delete_below(stage.admin, stage.topics.batches, ends)
    stage.put_progress("r", 2, label="march")
    for feeding in (2, 3, 4):
        _await_feeding(stage, feeding)
        ends = topic_ends(stage.admin, stage.topics.batches, range(PARTITIONS)).high
        delete_below(stage.admin, stage.topics.batches, ends)
    again = [one for one in desk.fed("r", 10) if one.fed > 1]
    assert {one.sequence for one in again} == {2, 3}
    assert {row.rejected for one in again if one.fed < 4 for row in one.rows} == {None}
    assert {row.rejected for one in again if one.fed == 4 for row in one.rows} == {"lost"}
    first = {one.sequence: one.rows for one in desk.fed("r", 10) if one.fed == 1}
    assert all([row.cells for row in one.rows] == [row.cells for row in first[one.sequence]] for one in again)


def test_what_waits_for_a_worker_is_not_fed_again(stage: Stage) -> None:
    desk = unmerged(stage, 5)
    stage.put_progress("r", 0, label="march")
    marker = time.monotonic() + 5  # two looks at the broker
    while time.monotonic() < marker:
        assert len(stage.batches("r")) == 5
        time.sleep(0.1)
    assert desk.ingestor.process.poll() is None


@pytest.mark.promise(6)
def test_a_stand_by_takes_over_and_feeds_on_without_repeating(stage: Stage) -> None:
    """A converted source: the second one makes the same CSV of it, and goes on at the first one's offsets."""
    desk = Desk(stage, **SHORT_SESSION)
    desk.drop(parquet_of(800), run_id="r", filename="march.parquet")
    desk.fed("r", MIN_WINDOW)
    second = stage.ingestor(active=False)
    second.await_ready()
    stage.put_progress("r", 30, label="march")
    desk.fed("r", MIN_WINDOW + 30)
    assert second.lines("active") == []
    desk.ingestor.kill()
    await_value(lambda: second.lines("active"), "the stand-by to take over")
    stage.put_progress("r", 50, label="march")
    batches = desk.fed("r", MIN_WINDOW + 50)
    assert [batch.sequence for batch in batches] == list(range(MIN_WINDOW + 50))
    assert rows_of(batches) == expected_rows(2 * (MIN_WINDOW + 50))
    assert {record.epoch for record in stage.states("r")} == {1, 2}
    assert second.terminate() == 0


@pytest.mark.promise(6)
def test_an_ingestor_that_was_stopped_changes_nothing(stage: Stage) -> None:
    desk = unmerged(stage, 400, **SHORT_SESSION)
    second = stage.ingestor(active=False)
    second.await_ready()
    os.kill(desk.ingestor.process.pid, signal.SIGSTOP)
    await_value(lambda: second.lines("active"), "the stand-by to take over")
    stage.put_progress("r", 20, label="march")
    desk.fed("r", MIN_WINDOW + 20)
    os.kill(desk.ingestor.process.pid, signal.SIGCONT)
    await_value(lambda: desk.ingestor.lines("standing_by"), "the first to stand by")
    stage.put_progress("r", 40, label="march")
    batches = desk.fed("r", MIN_WINDOW + 40)
    assert Counter(batch.sequence for batch in batches).keys() == set(range(MIN_WINDOW + 40))
    stage.put_progress("r", 10**6, state=MergeState.PUBLISHED, label="march")
    stage.await_state("r", RunState.COMPLETED)
    assert desk.ingestor.process.poll() is None
    assert desk.ingestor.lines("crashed") == []


def test_a_stop_leaves_a_cursor_and_a_start_goes_on(stage: Stage) -> None:
    desk = unmerged(stage, 400)
    assert desk.ingestor.terminate(15) == 0
    assert list((stage.folder / "data" / "ingestor").iterdir()) == [
        stage.folder / "data" / "ingestor" / ".lock"
    ]
    stage.put(stage.topics.batches, b"x", "r/march/²", partition=0)
    stage.put(stage.topics.batches, b"x", b"\xff", partition=1)
    again = stage.ingestor()
    stage.put_progress("r", 5, label="march")
    await_value(lambda: len(stage.seen(stage.topics.batches)) >= MIN_WINDOW + 7, "it feeds on")
    keys = Counter(record.key for record in stage.seen(stage.topics.batches))
    assert max(keys.values()) == 1
    assert again.terminate(15) == 0
