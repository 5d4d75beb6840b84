"""The smaller parts: load, stalls, feeds, the place on disk, and what a takeover reads of foreign keys."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.kafka.records import Record
from prism.messages import (
    CutPosition,
    FileCursor,
    FileProgress,
    FileReason,
    Heartbeat,
    MergeState,
    Progress,
    RunFile,
    RunRecord,
    RunState,
    UriSource,
    WorkerState,
)
from prism.runs.job import parse_job
from prism.service.errors import FatalError
from prism.tables import TableFormat
from prism_ingestor.budget import FIRST_BATCHES, Meter
from prism_ingestor.feeding import FileFeed, RunFeed
from prism_ingestor.load import PartitionLoad
from prism_ingestor.sources import PlainFile, SourceChanged, _stamp
from prism_ingestor.stalls import QUIET_S, StallCause, stall_of
from prism_ingestor.takeover import Found, _note
from prism_ingestor.workplace import Workplace
from tests.unit.kafka.test_records import FakeMessage

# Load


@given(st.lists(st.integers(-1, 5), max_size=60))
def test_the_next_batch_goes_where_there_are_least(freed: list[int]) -> None:
    load = PartitionLoad(4)
    counts = [0] * 4
    for partition in freed:
        best = load.lightest()
        assert counts[best] == min(counts)
        load.put(best)
        counts[best] += 1
        load.freed(partition)  # -1: its place was never known; 5: there is no such partition
        if 0 <= partition < 4 and counts[partition]:
            counts[partition] -= 1


def test_equals_take_turns() -> None:
    load = PartitionLoad(3)
    assert [load.lightest() for _ in range(6)] == [0, 1, 2, 0, 1, 2]
    assert load.partitions == 3


# Stalls


def beat(
    state: WorkerState = WorkerState.RUNNING,
    in_flight: list[str] | None = None,
    waiting: dict[str, str] | None = None,
) -> Heartbeat:
    return Heartbeat(
        worker_id="w",
        state=state,
        reason="model server: refused",
        in_flight=in_flight or [],
        waiting=waiting or {},
    )


@pytest.mark.promise(10)
@pytest.mark.parametrize(
    ("quiet_s", "workers", "progress", "said"),
    [
        (QUIET_S - 1, [], None, None),
        (QUIET_S, [beat()], None, "no merger"),
        (QUIET_S, [], Progress(run_id="r"), "no worker"),
        (
            QUIET_S,
            [beat(WorkerState.WAITING)],
            Progress(run_id="r"),
            "every worker waits: model server: refused",
        ),
        (QUIET_S, [beat(WorkerState.WAITING), beat()], Progress(run_id="r"), "nothing is merged any more"),
        (QUIET_S, [beat(in_flight=["r/l/7"])], Progress(run_id="r"), None),
        (
            QUIET_S,
            [beat(WorkerState.WAITING, ["r/l/7"]), beat()],
            Progress(run_id="r"),
            "the worker that has its batches waits: model server: refused",
        ),
        (
            QUIET_S,
            [beat(in_flight=["r/l/7", "r2/l/7"], waiting={"r": "no key for it"})],
            Progress(run_id="r"),
            "the worker that has its batches waits: no key for it",
        ),
        (QUIET_S, [beat(in_flight=["r/l/7"], waiting={"r2": "no key"})], Progress(run_id="r"), None),
        (QUIET_S, [beat(in_flight=["r2/l/7"])], Progress(run_id="r"), "nothing is merged any more"),
        (QUIET_S, [], Progress(run_id="r", state=MergeState.PUBLISHING, detail="disk full"), "disk full"),
    ],
)
def test_why_a_run_does_not_move(
    quiet_s: float, workers: list[Heartbeat], progress: Progress | None, said: str | None
) -> None:
    found = stall_of("r", quiet_s, workers, progress)
    assert (found.reason[: len(said or "")] if found else None) == said
    assert found == stall_of("r", quiet_s * 1.07, workers, progress) or quiet_s < QUIET_S


ELSEWHERE = beat(in_flight=["r2/l/7"])
HOLDER = beat(in_flight=["r/l/7"], waiting={"r": "no"})


@pytest.mark.parametrize(
    ("workers", "spent", "cause"),
    [
        ([beat(WorkerState.WAITING)] * 2, [True, True], StallCause.QUOTA),
        ([beat(WorkerState.WAITING)] * 2, [True, False], StallCause.MODEL_SERVER),
        ([HOLDER, ELSEWHERE], [True, False], StallCause.QUOTA),
        ([HOLDER, ELSEWHERE], [False, True], StallCause.MODEL_SERVER),
        ([ELSEWHERE, ELSEWHERE], [True, True], StallCause.QUOTA),
        ([ELSEWHERE, ELSEWHERE], [True, False], StallCause.UNKNOWN),
    ],
)
def test_a_run_waits_for_a_quota_where_nothing_else_holds_it_up(
    workers: list[Heartbeat], spent: list[bool], cause: StallCause
) -> None:
    told = [
        one.model_copy(update={"out_of_quota": ["r"] * lacks})
        for one, lacks in zip(workers, spent, strict=True)
    ]
    found = stall_of("r", QUIET_S, told, Progress(run_id="r"))
    assert found is not None
    assert found.cause is cause


# Feeds


def file_feed(path: Path, rows: int = 6, watched: bool = True, batches: int = 3) -> FileFeed:
    path.write_text("Message\n" + "".join(f"text {number}\n" for number in range(rows)))
    file = RunFile(
        label="l", source=UriSource(uri="file:///x"), columns=["Message"], rows=rows, batches=batches
    )
    plain = PlainFile(path, "", 0, _stamp(path) if watched else None)
    return FileFeed("r", file, plain, parse_job({"model": {"batch_size": "2"}}), TableFormat())


def feed_all(one: FileFeed) -> list[list[str]]:
    found = []
    while not one.exhausted:
        batch, cut = one.next_batch()
        assert batch.sequence == cut.start.sequence
        one.tracker.fed(cut.start, cut.end, 0)
        found.append([row.cells[0] for row in batch.rows])
    return found


def test_a_file_is_fed_in_order(tmp_path: Path) -> None:
    one = file_feed(tmp_path / "t.csv")
    assert feed_all(one) == [["text 0", "text 1"], ["text 2", "text 3"], ["text 4", "text 5"]]
    assert [row.cells[0] for row in one.batch_again(1)[0].rows] == ["text 2", "text 3"]


@pytest.mark.promise(1)
def test_the_fourth_feeding_is_lost(tmp_path: Path) -> None:
    one = file_feed(tmp_path / "t.csv")
    feed_all(one)
    said = []
    for _ in range(3):
        batch, _ = one.batch_again(0)
        said.append((batch.fed, batch.rows[0].rejected))
        one.tracker.fed_again(0, 0)
    assert said == [(2, None), (3, None), (4, "lost")]


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("Message\n" + "other\n" * 6),
        lambda path: path.write_text("Message\n"),
        lambda path: path.write_text(""),
        lambda path: path.write_bytes(b"\xff" * 100),
        lambda path: path.unlink(),
        lambda path: path.write_text('Message\n"'),
    ],
    ids=["other", "shorter", "empty", "bytes", "gone", "quote"],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_changes_is_fed_no_further(tmp_path: Path, change: object, again: bool) -> None:
    one = file_feed(tmp_path / "t.csv")
    _, cut = one.next_batch()
    one.tracker.fed(cut.start, cut.end, 0)
    change(tmp_path / "t.csv")  # type: ignore[operator]
    with pytest.raises(SourceChanged) as changed:
        one.batch_again(0) if again else one.next_batch()
    assert changed.value.reason in (FileReason.SOURCE_CHANGED, FileReason.SOURCE_GONE)


def test_recovering_from_a_file_that_changed(tmp_path: Path) -> None:
    one = file_feed(tmp_path / "t.csv")
    cursor = FileCursor(next=CutPosition(sequence=2, ordinal=4, offset=36, line=5))
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(SourceChanged):
        one.recover(cursor, FileProgress(), {})


def test_a_spool_that_is_gone_takes_a_new_start(tmp_path: Path) -> None:
    one = file_feed(tmp_path / "t.csv", watched=False)
    (tmp_path / "t.csv").unlink()
    with pytest.raises(FatalError, match="spooled"):
        one.next_batch()


def test_a_run_waits_until_the_merger_has_read_what_was_there(tmp_path: Path) -> None:
    feed = RunFeed("r", 5, 0, [file_feed(tmp_path / "t.csv")], recover_at=5)
    feed.found = {"l": {1: (0, 7)}}
    assert feed.current(64, 0.0) is None
    assert not feed.all_fed
    assert feed.apply(Progress(run_id="r", read_to=4, rows_ok=2), 1.0) == []
    assert feed.recovering
    merged = {"l": FileProgress(merged_through=1)}
    assert feed.apply(Progress(run_id="r", read_to=5, files=merged, rows_ok=2), 2.0) == []
    assert not feed.recovering
    assert (feed.unmerged, feed.moved_at) == (1, 2.0)
    tracker = feed.files[0].tracker
    assert tracker.next.sequence == 2
    assert tracker.outstanding[1].place == (0, 7)
    merged = {"l": FileProgress(merged_through=2)}
    assert len(feed.apply(Progress(run_id="r", read_to=6, files=merged, rows_ok=4), 3.0)) == 1
    assert feed.cursor()["l"].next.sequence == 2


def test_a_run_stands_still_where_its_server_counts_no_tokens_and_says_why(tmp_path: Path) -> None:
    job = {"budget": {"tokens": "1000"}}
    meter = Meter.of(RunRecord(run_id="r", epoch=1, state=RunState.RUNNING, job=job))
    file = file_feed(tmp_path / "t.csv", rows=40, batches=20)
    feed = RunFeed("r", 5, 0, [file], meter=meter)
    while feed.within_budget:
        _, cut = file.next_batch()
        file.tracker.fed(cut.start, cut.end, 0)
    assert (feed.unmerged, feed.out_of_budget) == (FIRST_BATCHES, None)
    for merged in range(1, FIRST_BATCHES + 1):
        files = {"l": FileProgress(merged_through=merged)}
        feed.apply(Progress(run_id="r", files=files, rows_ok=2 * merged, calls=merged), 1.0)
        assert not feed.within_budget
    assert "told no tokens for 8 calls" in (feed.out_of_budget or "")


def test_files_of_a_run_come_one_after_the_other(tmp_path: Path) -> None:
    one, two = file_feed(tmp_path / "1.csv"), file_feed(tmp_path / "2.csv")
    feed = RunFeed("r", 5, 0, [one, two])
    assert feed.current(64, 0.0) is one
    feed_all(one)
    assert feed.current(64, 0.0) is two
    feed_all(two)
    assert feed.current(64, 0.0) is None
    assert feed.all_fed
    assert feed.last_cursor()["l"].next.sequence == 3


# Takeover


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "key", ["", "x", "a/b", "a/b/²", "a/b/", "a/b/-1", "a/b/" + "9" * 5000, "/", "a/b/1/2"]
)
def test_a_foreign_key_in_batches_is_passed_over(key: str) -> None:
    found: Found = {}
    ends = {0: 8}
    message = FakeMessage(b"x", key.encode())
    _note(found, ends, Record("t", 0, 7, key, b"x", 0, message))  # type: ignore[arg-type]
    assert found == {}
    assert ends == {}


def test_a_batch_in_the_topic_is_found_by_its_key() -> None:
    found: Found = {}
    ends = {0: 8}
    _note(found, ends, Record("t", 0, 6, "r/l/12", b"", 0, FakeMessage(b"")))  # type: ignore[arg-type]
    assert found == {"r": {"l": {12: (0, 6)}}}
    assert ends == {0: 8}


# The place on disk


OWNER = """
import sys
from pathlib import Path
from prism_ingestor.workplace import Workplace
place = Workplace(Path(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.promise(6)
def test_two_ingestors_of_one_folder_do_not_meet_and_a_dead_ones_place_is_removed(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "other"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"ready\n"
    (tmp_path / "other" / "spool" / "x").write_text("precious")
    mine = Workplace(tmp_path, "mine")
    assert (tmp_path / "other" / "spool" / "x").exists()
    mine.remove()
    assert not (tmp_path / "mine").exists()
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    Workplace(tmp_path, "mine").remove()
    assert sorted(one.name for one in tmp_path.iterdir()) == [".lock"]
