"""Processes that stand still for 30 s and then go on as if nothing had happened (promise 6)."""

import random
from collections.abc import Iterator

import pytest

from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import Case
from tests.harness.fleet import Fleet, Plan
from tests.harness.keeper import FleetKeeper
from tests.harness.rows import write_csv

ROWS = 1200
STOP_S = 30.0
# 240 calls of 0.4 s, six at once: some 20 s.
PLAN = Plan(limit=3, behaviour=Behaviour(latency_ms=400.0, count_rows=True))


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetKeeper]:
    folder = tmp_path_factory.mktemp("stops")
    made = FleetKeeper(folder, PLAN, write_csv(folder / "in.csv", ROWS))
    yield made
    made.close()


@pytest.mark.promise(5)
@pytest.mark.promise(6)
@pytest.mark.parametrize("name", ["worker-1", "merger-0", "ingestor-1"])
def test_a_service_stopped_for_30_s(name: str, keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, f"stop-{name}", calm).drop()
        flight = case.flight()
        case.await_merged(_some_rows(name))
        deaths = fleet.deaths()
        in_flight = flight.freeze(fleet[name])
        fleet.watch.follow(STOP_S)
        fleet[name].thaw()
        account = case.finish(flight=flight)
        fleet[name].await_ready(15.0)
        assert fleet.deaths() == deaths, "a service that stood still goes on, it does not die"
        tell(in_flight=in_flight, extra_rows=account.extra_rows, seconds=case.seconds)


@pytest.mark.promise(5)
@pytest.mark.promise(6)
def test_the_broker_stopped_for_30_s(keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, "stop-broker", calm).drop()
        flight = case.flight()
        case.await_merged(_some_rows("broker"))
        in_flight = flight.note_outage()
        fleet.freeze_broker()
        fleet.watch.follow(STOP_S)
        fleet.thaw_broker()
        account = case.finish(flight=flight)
        tell(in_flight=in_flight, extra_rows=account.extra_rows, seconds=case.seconds)


@pytest.mark.promise(6)
def test_the_active_ingestor_stopped_while_a_stand_by_takes_over(keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        stand_by = fleet.add_ingestor("ingestor-2")
        stand_by.start()
        stand_by.await_ready()
        case = Case(fleet, keeper.table, "stop-active", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 10)
        active = _owner(fleet, case.run_id)
        fleet[active].freeze()
        took = fleet.watch.wait(
            lambda _: _owner(fleet, case.run_id) != active, STOP_S, "the stand-by takes over"
        )
        fleet.watch.follow(STOP_S - took)
        fleet[active].thaw()
        account = case.finish(flight=flight)
        for one in fleet.of("ingestor"):
            one.await_ready(15.0)
        tell(took_over_s=took, extra_rows=account.extra_rows, seconds=case.seconds)
        stand_by.stop()


def _owner(fleet: Fleet, run_id: str) -> str:
    record = fleet.watch.run(run_id)
    assert record is not None
    return record.owner.partition(":")[0]


def _some_rows(name: str) -> int:
    return random.Random(name).randrange(ROWS // 20, ROWS // 3)
