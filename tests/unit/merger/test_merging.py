"""One commit: results, counts and offsets together, or none of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prism.kafka.errors import BrokerAway
from prism.messages import MessageReason, RunState
from prism.service import fault
from prism_merger.accounts import Stage
from prism_merger.store import RowReader
from tests.unit.merger.world import World, result, run_record, shuffled

NewWorld = Callable[..., World]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code catches it."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[NewWorld]:
    made: list[World] = []

    def new(*records: object, **more: object) -> World:
        for one in made:
            one.close()
        made.append(World(tmp_path, records, **more))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for one in made:
        one.close()


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def arm(name: str) -> None:
        def passing(point: str, detail: str = "") -> None:
            if point == name:
                raise Killed(name)

        monkeypatch.setattr(fault, "point", passing)

    return arm


@pytest.mark.promise(4)
@pytest.mark.promise(5)
def test_results_and_offsets_are_durable_together(world: NewWorld, kill_at: Callable[[str], None]) -> None:
    record = run_record()
    one = world(record)
    one.merge([result(record, 0)])
    kill_at("merger.before_store_commit")
    with pytest.raises(Killed):
        one.merge([result(record, 1)], first_offset=1)
    two = world(record)
    assert two.store.offsets() == {0: 1}
    assert two.run().files["march"].merged.through == 1
    assert two.run().calls == 1
    kill_at("merger.after_store_commit")
    with pytest.raises(Killed):
        two.merge([result(record, 1)], first_offset=1)
    three = world(record)
    assert three.store.offsets() == {0: 2}
    assert three.run().files["march"].merged.through == 2
    assert len(list(RowReader(three.store.path).batches(1))) == 2


def test_a_failed_commit_leaves_memory_as_the_store_after_a_reload(
    world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run_record()
    one = world(record)
    one.merge([result(record, 0)])
    before = one.store.load_run("r1")

    def full(offsets: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(one.store, "set_offsets", full)
        with pytest.raises(OSError, match="No space"):
            one.merge([result(record, 1)], first_offset=1)
    one.ledger.reload()
    assert one.run() == before
    one.merge([result(record, 1)], first_offset=1)
    assert one.run().files["march"].merged.through == 2


@pytest.mark.promise(1)
@pytest.mark.promise(6)
def test_the_first_result_wins_and_the_others_count_as_extra_calls(world: NewWorld) -> None:
    record = run_record(rows=20)
    one = world(record)
    other = result(record, 0).model_copy(update={"model": "another"})
    one.merge([result(record, 0), other, result(record, 0)])
    one.merge([other, result(record, 1)], first_offset=3)
    run = one.run()
    assert (run.calls, run.extra_calls, run.ok + run.failed, run.models) == (2, 3, 20, ["prism-embedded"])
    assert b"another" not in next(iter(RowReader(one.store.path).batches(1))).lines


def test_what_cannot_be_used_goes_to_the_dead_letters_and_stops_nothing(world: NewWorld) -> None:
    record = run_record(rows=20)
    one = world(record)
    one.merge(
        [
            b"not json",
            result(run_record("nobody"), 0),
            result(record, 0).model_copy(update={"label": "april"}),
            result(record, 0).model_copy(update={"sequence": 7}),
            result(record, 0),
            result(record, 1).model_copy(update={"first_row": 11}),
        ]
    )
    assert one.outlet.dead_offsets == [0, 1, 2, 3, 5]
    assert one.outlet.dead[1][0] is MessageReason.UNKNOWN_RUN
    assert one.refreshed == 1
    assert one.store.offsets() == {0: 6}
    assert one.run().files["march"].merged.through == 1


@pytest.mark.promise(4)
def test_offsets_pass_a_dead_letter_only_once_it_is_acknowledged(
    world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = world(run_record(rows=20))

    def away() -> None:
        raise BrokerAway("not acknowledged")

    monkeypatch.setattr(one.outlet, "settle", away)
    with pytest.raises(BrokerAway):
        one.merge([b"not json"])
    assert one.store.offsets() == {}


def test_a_result_that_comes_before_its_runs_record_is_waited_for(world: NewWorld) -> None:
    record = run_record(rows=20)
    one = world()
    one._refresh = lambda: one.take_in(record)  # type: ignore[method-assign]
    one.merger._refresh = one._refresh
    one.merge([result(record, 0)])
    assert one.outlet.dead == []
    assert one.run().calls == 1


def test_a_result_of_another_mergers_run_is_stale(world: NewWorld) -> None:
    one = world()
    record = run_record(partition=1)
    one.ledger._replicas = 2
    one.take_in(record)
    one.merge([result(record, 0)])
    assert one.outlet.dead[0][0] is MessageReason.STALE


@pytest.mark.promise(6)
def test_a_late_result_of_a_published_run_changes_a_counter_only(world: NewWorld) -> None:
    record = run_record(rows=20)
    one = world(record)
    one.merge([result(record, 0), result(record, 1)])
    one.finish()
    before = one.files()
    one.merge([result(record, 1)], first_offset=2)
    assert one.files() == before
    assert (one.run().calls, one.run().extra_calls) == (2, 1)
    two = world(record)
    assert two.run().manifest_stale
    two.publisher.refresh_manifest(two.run())
    assert '"extra_calls": 1' in two.places.manifest("r1").read_text()


def test_a_new_store_leaves_ended_runs_alone(world: NewWorld) -> None:
    one = world()
    ended = run_record(rows=20, state=RunState.COMPLETED)
    one.table.apply("r1", ended.to_bytes())
    one.ledger.leave_ended_alone()
    one.merge([result(ended, 0)])
    assert one.run().stage is Stage.LEFT_ALONE
    assert one.outlet.dead == []
    one.take_in(ended.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    assert one.run().stage is Stage.LEFT_ALONE


def test_another_clusters_run_of_the_same_name_is_another_run(world: NewWorld) -> None:
    old, new = run_record(rows=20), run_record(rows=30, created_at="2027-01-01T00:00:00Z")
    one = world(old)
    one.merge([result(old, 0), result(old, 1)])
    one.finish()
    one.ledger._cluster_id = "c2"
    one.take_in(new)
    one.merge(shuffled([result(new, number) for number in range(3)], 1), first_offset=0)
    run = one.finish()
    assert run.ok + run.failed == 30
    assert sorted(one.files()) == [
        "checkpoint_r1_march_part0001.csv", "r1_march-2.csv", "r1_march.csv",
    ]  # fmt: skip
