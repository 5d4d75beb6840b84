"""The merger as a process on a real broker: order, duplicates, deaths at every point, lost volumes."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism.kafka.admin import delete_below, ensure_topics, topic_id
from prism.messages import (
    Cursor,
    CutPosition,
    FileCursor,
    Heartbeat,
    MergeState,
    OutputPublished,
    Result,
    RunRecord,
    RunShare,
    RunState,
    WorkerState,
)
from prism.service.fault import POINTS
from prism_embedded.broker import EmbeddedBroker
from tests.integration.merger_fleet import DEADLINE_S, PARTITIONS, Fleet, await_true
from tests.unit.merger.world import result, run_record, shuffled

MERGER_POINTS = [name for name in POINTS if name.startswith("merger.")]
JOB = {"output": {"checkpoints": {"interval": "30"}}}


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), heap_mb=256)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.kill()


@pytest.fixture
def fleet(bootstrap: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(bootstrap, tmp_path, f"t{time.monotonic_ns()}.")
    try:
        yield made
    finally:
        made.close()


def undisturbed(record: RunRecord, label: str = "march") -> list[Result]:
    file = record.file(label)
    assert file is not None
    return [result(record, sequence, label=label) for sequence in range(file.batches)]


def twice(results: list[Result], some: int, seed: int) -> list[Result]:
    """Return results in disorder, the first of them twice; the run is complete with the very last."""
    *others, last = results
    return [*shuffled(others + results[:some], seed), last]


def lines_of(content: bytes) -> int:
    import csv
    import io

    return len(list(csv.reader(io.StringIO(content.decode(), newline="")))) - 1


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_results_of_several_runs_out_of_order_and_twice(fleet: Fleet) -> None:
    """Two runs on two partitions, shuffled, some twice: published whole and in order; SIGTERM exits 0."""
    first, second = (
        run_record("a", rows=230, labels=("march", "april")),
        run_record("b", rows=95, partition=1),
    )
    fleet.put_run(first)
    process = fleet.merger()
    results = undisturbed(first) + undisturbed(first, "april")
    fleet.put_results(twice(results, 9, 1))
    fleet.put_results([b"{not a result", *shuffled(undisturbed(second), 2)], partition=1)
    # The run's record comes after its results are there: the merger looks before it refuses.
    fleet.put_run(second)
    done = fleet.await_state("a", MergeState.PUBLISHED)
    assert (done.rows_ok + done.rows_failed, done.calls, done.extra_calls) == (460, 46, 9)
    assert done.read_to == len(results) + 9
    assert {one.label for one in done.outputs} == {"march", "april"}
    assert lines_of(fleet.output("a")) == lines_of(fleet.output("a", "april")) == 230
    assert fleet.manifest("a")["rows"] == {"in": 460, "ok": done.rows_ok, "failed": done.rows_failed}
    await_true(lambda: fleet.ready() == (200, {"status": "ready"}), "ready", fleet.log)
    process.terminate()
    assert process.wait(20) == 0


def test_a_result_of_an_unknown_run_is_a_dead_letter_and_stops_nothing(fleet: Fleet) -> None:
    record = run_record("a", rows=20)
    stranger = undisturbed(run_record("nobody", rows=20))
    fleet.put_run(record)
    fleet.put_results([b"\xff", *stranger, *undisturbed(record)])
    fleet.merger()
    fleet.await_state("a", MergeState.PUBLISHED)
    await_true(lambda: len(fleet.records(fleet.topics.dead_letter)) >= 3, "three letters", fleet.log)
    dead = fleet.records(fleet.topics.dead_letter)
    assert [one.headers["prism_reason"] for one in dead] == ["not_parsed", "unknown_run", "unknown_run"]
    assert dead[0].value == b"\xff"


@pytest.fixture(scope="module")
def reference(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed merger makes of the run of the crash tests."""
    fleet = Fleet(bootstrap, tmp_path_factory.mktemp("reference"), "reference.")
    try:
        record = run_record("a", rows=95, job=JOB)
        fleet.put_run(record)
        fleet.put_results(undisturbed(record))
        fleet.merger()
        fleet.await_state("a", MergeState.PUBLISHED)
        visible = fleet.visible()
        assert len(visible) == 5, "the output and its four parts"
        return visible
    finally:
        fleet.close()


@pytest.mark.promise(3)
@pytest.mark.promise(4)
@pytest.mark.promise(5)
@pytest.mark.parametrize("point", MERGER_POINTS)
def test_killed_at_each_point_the_output_is_the_same(
    fleet: Fleet, point: str, reference: dict[str, bytes]
) -> None:
    record = run_record("a", rows=95, job=JOB)
    fleet.put_run(record)
    results = undisturbed(record)
    fleet.put_results(twice(results, 3, 3))
    reports = str(point == "merger.after_reports_written")
    killed = fleet.merger(PRISM_CRASH_AT=point, PRISM_MERGER_REPORTS=reports)
    assert killed.wait(DEADLINE_S) == -signal.SIGKILL
    fleet.merger()
    done = fleet.await_state("a", MergeState.PUBLISHED)
    assert fleet.visible() == reference
    assert (done.rows_ok + done.rows_failed, done.calls, done.extra_calls) == (95, 10, 3)
    await_true(lambda: len(fleet.announcements()) > 0, "announced", fleet.log)
    announced = [OutputPublished.parse(one.value) for one in fleet.announcements()]
    assert {one.sha256 for one in announced} == {done.outputs[0].sha256}
    assert {one.headers["ce_id"] for one in fleet.announcements()} == {"a/march/csv"}


def test_a_deleted_and_remade_topic_is_read_from_its_start(fleet: Fleet) -> None:
    record = run_record("a", rows=95)
    fleet.put_run(record)
    # It stays open on the same partition, and so goes on telling how far that was read.
    fleet.put_run(run_record("b", rows=95))
    fleet.merger()
    results = undisturbed(record)
    fleet.put_results(results[:6])
    await_true(lambda: (found := fleet.progress("a")) is not None and found.read_to == 6, "6 read", fleet.log)
    before = topic_id(fleet.admin, fleet.topics.results)
    for future in fleet.admin.delete_topics([fleet.topics.results]).values():
        future.result(10)
    await_true(lambda: fleet.ready()[0] == 503, "says that the topic is gone", fleet.log)

    def made() -> bool:
        ensure_topics(fleet.admin, fleet.topics.specs(), PARTITIONS)
        return topic_id(fleet.admin, fleet.topics.results) not in ("", before)

    await_true(made, "topic made again")
    fleet.put_results(results[4:])
    done = fleet.await_state("a", MergeState.PUBLISHED)
    made_again = topic_id(fleet.admin, fleet.topics.results)
    assert done.topic_id == made_again

    def read_again() -> bool:
        told = fleet.progress("b")
        return told is not None and (told.topic_id, told.read_to) == (made_again, 6)

    # The old session may have read on into the new topic before its id was noticed: then it reads it again.
    await_true(read_again, "the new topic is read to its end", fleet.log)
    assert done.rows_ok + done.rows_failed == 95
    assert "restarted_from_beginning" in (fleet.data_dir / "merger.log").read_text()


def test_deleted_records_are_passed(fleet: Fleet) -> None:
    """A result deleted before it was read: the position goes on to the low end, and says so."""
    record = run_record("a", rows=95)
    fleet.put_run(record)
    results = undisturbed(record)
    fleet.put_results(results[:3])
    delete_below(fleet.admin, fleet.topics.results, {0: 3})
    fleet.merger()
    await_true(lambda: (found := fleet.progress("a")) is not None and found.read_to == 3, "passed", fleet.log)
    fleet.put_results(results)
    assert fleet.await_state("a", MergeState.PUBLISHED).extra_calls == 0


def test_a_lost_volume_is_rebuilt_and_published_runs_are_left_alone(fleet: Fleet) -> None:
    old, going = run_record("old", rows=40), run_record("going", rows=95, partition=1)
    told = run_record("told", rows=20)
    for record in (old, told, going):
        fleet.put_run(record)
    fleet.put_results(undisturbed(old) + undisturbed(told))
    fleet.put_results(undisturbed(going)[:5], partition=1)
    process = fleet.merger(PRISM_MERGER_DELETE_SECONDS="3600")
    fleet.await_state("old", MergeState.PUBLISHED)
    before = fleet.await_state("told", MergeState.PUBLISHED)
    await_true(
        lambda: (found := fleet.progress("going")) is not None and found.read_to == 5, "half", fleet.log
    )
    process.kill()
    process.wait()
    fleet.put_run(old.model_copy(update={"state": RunState.COMPLETED_WITH_FAILURES, "epoch": 2}))
    inodes = {one.name: one.stat().st_ino for one in (fleet.data_dir / "output").iterdir()}
    shutil.rmtree(fleet.data_dir / "merger-0")

    def told_of_told() -> int:
        return sum(one.key == "told" for one in fleet.records(fleet.topics.progress))

    told_before = told_of_told()
    fleet.merger()
    fleet.put_results(undisturbed(going)[5:], partition=1)
    fleet.await_state("going", MergeState.PUBLISHED)
    await_true(lambda: told_of_told() > told_before, "the new one to tell of it", fleet.log)
    after = fleet.await_state("told", MergeState.PUBLISHED)
    assert lines_of(fleet.output("going")) == 95
    assert after.model_dump(
        include={"rows_ok", "rows_failed", "calls", "outputs", "files"}
    ) == before.model_dump(include={"rows_ok", "rows_failed", "calls", "outputs", "files"})
    now = {one.name: one.stat().st_ino for one in (fleet.data_dir / "output").iterdir()}
    assert now.items() >= inodes.items()
    assert set(now) == {"old_march.csv", "told_march.csv", "going_march.csv"}


class FileSizeLimit:
    """A volume on which no file may grow: works without root, and raises the rarer errors."""

    def __init__(self, folder: Path) -> None:
        del folder
        self._pid = 0

    def full(self, pid: int) -> None:
        self._pid = pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))

    def free(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        pass


class SmallVolume:
    """A tmpfs that somebody else fills up; needs root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("cannot mount a tmpfs here")

    def full(self, pid: int) -> None:
        del pid
        with contextlib.suppress(OSError), (self._folder / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

    def free(self) -> None:
        (self._folder / "ballast").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self._folder)], check=False)


@pytest.mark.promise(4)
@pytest.mark.promise(10)
@pytest.mark.parametrize("kind", [FileSizeLimit, SmallVolume])
def test_a_full_disk_loses_nothing_and_is_told(
    bootstrap: str, tmp_path: Path, kind: type[FileSizeLimit | SmallVolume], reference: dict[str, bytes]
) -> None:
    volume = kind(tmp_path)
    fleet = Fleet(bootstrap, tmp_path, f"full-{kind.__name__}.")
    try:
        record, filler = run_record("a", rows=95, job=JOB), run_record("f", rows=20_000, partition=1)
        fleet.put_run(record)
        fleet.put_run(filler)
        results = undisturbed(record)
        process = fleet.merger()
        fleet.put_results(results[:4])
        await_true(lambda: (found := fleet.progress("a")) is not None and found.read_to == 4, "4", fleet.log)
        volume.full(process.pid)
        fleet.put_results(undisturbed(filler), partition=1)
        await_true(lambda: "disk full" in str(fleet.ready()[1].get("reason")), "says it is full", fleet.log)
        await_true(lambda: "disk full" in str((fleet.progress("a") or record).detail), "tells", fleet.log)
        held = fleet.progress("f")
        assert held is not None
        assert process.poll() is None
        volume.free()
        fleet.put_results(results[4:])
        fleet.await_state("f", MergeState.PUBLISHED)
        done = fleet.await_state("a", MergeState.PUBLISHED)
        await_true(lambda: fleet.ready()[0] == 200, "ready again", fleet.log)
        assert (done.rows_ok + done.rows_failed, done.extra_calls, done.detail) == (95, 0, None)
        assert {
            name: text for name, text in fleet.visible().items() if "_f_" not in name and "f_m" not in name
        } == (reference)
    finally:
        fleet.close()
        volume.close()


@pytest.mark.promise(6)
def test_a_second_copy_waits_until_the_first_is_gone(fleet: Fleet) -> None:
    record = run_record("a", rows=20)
    fleet.put_run(record)
    first = fleet.merger()
    await_true(lambda: fleet.ready()[0] == 200, "first ready", fleet.log)
    second = fleet.merger()
    await_true(lambda: "another merger" in str(fleet.ready()[1].get("reason")), "second waits", fleet.log)
    first.send_signal(signal.SIGSTOP)
    await_true(lambda: fleet.ready()[0] == 503, "the second to wait for one that stands still", fleet.log)
    first.kill()
    await_true(lambda: fleet.ready()[0] == 200, "second takes over", fleet.log)
    fleet.put_results(undisturbed(record))
    fleet.await_state("a", MergeState.PUBLISHED)
    second.terminate()
    assert second.wait(20) == 0


@pytest.mark.promise(1)
def test_a_cancelled_run_publishes_what_there_is_only_if_asked(fleet: Fleet) -> None:
    always = run_record("always", rows=95, job={"merge": {"condition": "always"}})
    plain = run_record("plain", rows=95)
    for record in (always, plain):
        fleet.put_run(record)
        fleet.put_results(undisturbed(record)[:4])
        position = FileCursor(next=CutPosition(sequence=4, ordinal=40))
        fleet.put_cursor(Cursor(run_id=record.run_id, epoch=1, files={"march": position}))
    fleet.merger()
    for record in (always, plain):
        fleet.await_state(record.run_id, MergeState.MERGING)
        fleet.put_run(record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    done = fleet.await_state("always", MergeState.PUBLISHED)
    assert fleet.await_state("plain", MergeState.WITHHELD).detail == "the run was cancelled"
    assert lines_of(fleet.output("always")) == 40
    assert done.failed_by_reason["cancelled"] == 55
    for name in ("always", "plain"):
        rows = fleet.manifest(name)["rows"]
        assert rows["in"] == rows["ok"] + rows["failed"] == 95
    assert not (fleet.data_dir / "output" / "plain_march.csv").exists()


@pytest.mark.promise(5)
def test_a_killed_workers_calls_are_counted_once(fleet: Fleet) -> None:
    record = run_record("a", rows=95)
    fleet.put_run(record)
    share = RunShare(rows=10, calls=1, tokens=120, started_at="2026-11-21T10:00:00Z")
    beat = Heartbeat(
        worker_id="w1",
        session="s1",
        state=WorkerState.RUNNING,
        limit=4,
        in_flight=["a/march/3", "other/x/1"],
        runs={"a": share},
    )
    fleet.put_heartbeat(beat)
    again = beat.model_copy(update={"session": "s2", "in_flight": []})
    fleet.put_heartbeat(again)
    process = fleet.merger()
    await_true(
        lambda: (found := fleet.progress("a")) is not None and found.extra_calls == 4, "counted", fleet.log
    )
    await_true(lambda: fleet.workers("a") == {1: ("s1", "failed"), 2: ("s2", "running")}, "told", fleet.log)
    process.kill()
    process.wait()
    done = share.model_copy(update={"rows": 95})
    fleet.put_heartbeat(again.model_copy(update={"runs": {"a": done, "other": done}}))
    fleet.put_heartbeat(again.model_copy(update={"worker_id": "w2", "runs": {"a": done}}))
    fleet.put_results(undisturbed(record))
    process = fleet.merger()
    assert fleet.await_state("a", MergeState.PUBLISHED).extra_calls == 4
    assert fleet.manifest("a")["extra_calls"] == 4
    process.terminate()
    assert process.wait(20) == 0
    # Files to look at go on after a kill, and the last figures are in before a stop.
    assert fleet.workers("a") == {1: ("s1", "failed"), 2: ("s2", "completed"), 3: ("s2", "completed")}
    text = (fleet.data_dir / "logs" / "a" / "run_a.log").read_text()
    assert (text.count(" opened "), text.count(" published "), text.count(" finished ")) == (1, 1, 1)
