"""What was stored is gone or cannot be: results, their topic, the merger's volume, space on the disk."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prism.kafka.admin import delete_below, ensure_topics, partition_count, topic_ends
from prism.messages import Topics
from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import Case
from tests.harness.fleet import Fleet, Plan, with_changes
from tests.harness.keeper import FleetKeeper
from tests.harness.process import await_true
from tests.harness.rows import write_csv

ROWS = 600
PLAN = Plan(limit=3, behaviour=Behaviour(latency_ms=150.0, count_rows=True))
DISK_MIB = 24


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetKeeper]:
    folder = tmp_path_factory.mktemp("storage")
    made = FleetKeeper(folder, PLAN, write_csv(folder / "in.csv", ROWS))
    yield made
    made.close()


@pytest.mark.promise(1)
@pytest.mark.promise(5)
def test_results_deleted_before_they_were_merged(keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, "results-deleted", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 5)
        fleet["merger-0"].stop()
        deleted = _delete_unmerged(fleet, case.run_id, 3)
        unmerged = flight.note_unmerged()
        fleet["merger-0"].start()
        account = case.finish(flight=flight)
        again = [
            one for one in fleet.watch.seen.batches.values() if one.run_id == case.run_id and one.fed > 1
        ]
        assert len(again) >= deleted, "a batch whose result is gone is fed again"
        tell(
            deleted=deleted,
            fed_again=len(again),
            unmerged=unmerged,
            extra_rows=account.extra_rows,
            seconds=case.seconds,
        )


def _delete_unmerged(fleet: Fleet, run_id: str, count: int) -> int:
    """Delete results that the stopped merger has not read; return how many."""
    partition, read_to = _await_unread(fleet, run_id, count)
    delete_below(fleet.admin, Topics().results, {partition: read_to + count})
    return count


def _await_unread(fleet: Fleet, run_id: str, count: int) -> tuple[int, int]:
    """Wait until so many results are beyond what is merged; return partition and offset of the first."""
    fleet.watch.catch_up()
    progress = fleet.watch.seen.progress[run_id]
    partition = progress.results_partition

    def end() -> int:
        return topic_ends(fleet.admin, Topics().results, [partition]).high[partition]

    await_true(lambda: end() >= progress.read_to + count, 30.0, "results beyond what is merged")
    return partition, progress.read_to


@pytest.mark.promise(1)
@pytest.mark.promise(5)
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_the_results_topic_deleted_and_made_again(read: bool, keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, f"topic-again-{read}".lower(), calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 5)
        if not read:
            fleet["merger-0"].freeze()
            _await_unread(fleet, case.run_id, 20)
        _delete_results_topic(fleet)
        unmerged = flight.note_unmerged()
        ensure_topics(fleet.admin, Topics().specs(), fleet.plan.partitions)
        fleet["merger-0"].thaw()
        account = case.finish(flight=flight)
        fleet.await_ready(15.0)
        tell(unmerged=unmerged, extra_rows=account.extra_rows, seconds=case.seconds)


def _delete_results_topic(fleet: Fleet) -> None:
    topic = Topics().results
    for future in fleet.admin.delete_topics([topic], operation_timeout=10.0).values():
        future.result(30.0)
    await_true(lambda: partition_count(fleet.admin, topic) == 0, 30.0, "the topic is gone")


@pytest.mark.promise(1)
@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "folders", [["merger-0"], ["merger-0", "checkpoints", "output", "logs"]], ids=["state", "all"]
)
def test_the_mergers_volume_deleted(folders: list[str], keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        published = fleet.data_dir / "output" / f"{calm.run_id}_rows.csv"
        before = published.stat().st_mtime_ns if published.exists() else None
        case = Case(fleet, keeper.table, f"volume-{len(folders)}", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 3)
        fleet["merger-0"].kill()
        for name in folders:
            shutil.rmtree(fleet.data_dir / name)
        fleet["merger-0"].start()
        account = case.finish(flight=flight)
        if "output" in folders:
            assert not published.exists(), "a published run is left alone"
        elif before is not None:
            assert published.stat().st_mtime_ns == before, "a published run is left alone"
        tell(deleted=",".join(folders), extra_rows=account.extra_rows, seconds=case.seconds)


@pytest.mark.promise(1)
@pytest.mark.promise(9)
@pytest.mark.promise(10)
def test_the_mergers_disk_full(tmp_path: Path, keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (_, calm):
        pass
    data = tmp_path / "fleet" / "data"
    plan = with_changes(PLAN, merger_alone=True)
    with _small_disk(data), Fleet(tmp_path / "fleet", plan) as fleet:
        case = Case(fleet, keeper.table, "disk-full", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 5)
        ballast = _fill(data)
        said = _says_disk_full(fleet)
        stalled = _await_stall(fleet, case.run_id)
        _assert_alive(fleet)
        ballast.unlink()
        account = case.finish(flight=flight)
        fleet["merger-0"].await_ready(15.0)
        tell(said_so_s=said, stalled_s=stalled, extra_rows=account.extra_rows, seconds=case.seconds)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """Mount a small tmpfs, or skip the test."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(folder: Path) -> Path:
    """Write a file until nothing goes any more; return it."""
    ballast = folder / "ballast"
    block = b"\0" * 4096
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            return ballast


def _says_disk_full(fleet: Fleet) -> float:
    merger = fleet["merger-0"]

    def says_so() -> bool:
        status, body = merger.ready()
        return status == 503 and "disk full" in str(body.get("reason"))

    return await_true(says_so, 10.0, lambda: f"promise 10: merger-0 says {merger.ready()}")


def _await_stall(fleet: Fleet, run_id: str) -> float:
    def stalled(_: object) -> bool:
        record = fleet.watch.run(run_id)
        return record is not None and "disk full" in (record.stalled or "")

    return fleet.watch.wait(stalled, 30.0, f"promise 10: {run_id} stalled because the disk is full")


def _assert_alive(fleet: Fleet) -> None:
    dead = [one.name for one in fleet if not one.alive]
    assert not dead, f"a full disk is waited for, and these died: {dead}"
