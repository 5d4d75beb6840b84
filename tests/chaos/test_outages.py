"""The broker, or the model server, is away for a minute: the fleet says so, waits, and loses nothing."""

from collections.abc import Iterator

import pytest

from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import Case
from tests.harness.fleet import Fleet, Plan
from tests.harness.keeper import FleetKeeper
from tests.harness.process import ServiceProcess, await_true
from tests.harness.rows import write_csv

ROWS, OUTAGE_S = 600, 60.0
# Promise 10: who cannot work says so within 10 s.
SAYS_SO_S = 10.0
PLAN = Plan(
    limit=3,
    behaviour=Behaviour(latency_ms=300.0, count_rows=True),
    # A call of five rows is given up after 4.2 s.
    environment={"OLLAMA_REQUEST_TIMEOUT": "3"},
)


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetKeeper]:
    folder = tmp_path_factory.mktemp("outages")
    made = FleetKeeper(folder, PLAN, write_csv(folder / "in.csv", ROWS))
    yield made
    made.close()


@pytest.mark.promise(4)
@pytest.mark.promise(5)
@pytest.mark.promise(10)
def test_the_broker_down_for_60_s(keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, "broker-down", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 5)
        in_flight, deaths = flight.note_outage(), fleet.deaths()
        fleet.broker.kill()
        said = [_says_not_ready(one, "broker") for one in fleet]
        fleet.watch.follow(OUTAGE_S - sum(said))
        fleet.broker.start()
        account = case.finish(flight=flight)
        fleet.await_ready(15.0)
        assert fleet.deaths() == deaths, "an outage of the broker is waited for"
        tell(in_flight=in_flight, extra_rows=account.extra_rows, said_so_s=sum(said), seconds=case.seconds)


@pytest.mark.promise(9)
@pytest.mark.promise(10)
def test_the_model_server_gone_for_60_s(keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, "model-gone", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 5)
        in_flight = flight.note_outage()
        flight.keep_counts()
        fleet.model_server.kill()
        said = [_says_not_ready(one, "") for one in fleet.of("worker")]
        stalled = _await_stall(fleet, case.run_id)
        fleet.watch.follow(OUTAGE_S - sum(said) - stalled)
        fleet.model_server.start()
        account = case.finish(flight=flight)
        _assert_not_stalled(fleet, case.run_id)
        tell(
            in_flight=in_flight, extra_rows=account.extra_rows, said_so_s=sum(said), stalled_s=stalled,
            seconds=case.seconds,
        )  # fmt: skip


@pytest.mark.promise(9)
@pytest.mark.promise(10)
def test_the_model_server_hangs_for_60_s(keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, "model-hangs", calm).drop()
        flight = case.flight()
        case.await_merged(ROWS // 5)
        # While others were still answered, a timeout counts against its rows: halved once, asked again.
        in_flight = flight.note_outage(tries=2)
        fleet.model_server.control(faults="hang=1.0")
        said = [_says_not_ready(one, "") for one in fleet.of("worker")]
        stalled = _await_stall(fleet, case.run_id)
        fleet.watch.follow(OUTAGE_S - sum(said) - stalled)
        fleet.model_server.control(faults="")
        account = case.finish(flight=flight)
        _assert_not_stalled(fleet, case.run_id)
        tell(
            in_flight=in_flight, extra_rows=account.extra_rows, said_so_s=sum(said), stalled_s=stalled,
            seconds=case.seconds,
        )  # fmt: skip


def _says_not_ready(one: ServiceProcess, word: str) -> float:
    """Wait until `/ready` is 503 with a reason that has the word in it; return the seconds."""

    def says_so() -> bool:
        status, body = one.ready()
        return status == 503 and bool(body.get("reason")) and word in body["reason"]

    return await_true(says_so, SAYS_SO_S, lambda: f"promise 10: {one.name} says {one.ready()}")


def _await_stall(fleet: Fleet, run_id: str) -> float:
    """Wait until the run says that it is stalled, and why."""

    def stalled(_: object) -> bool:
        record = fleet.watch.run(run_id)
        return record is not None and record.stalled is not None and "every worker waits" in record.stalled

    return fleet.watch.wait(stalled, 30.0, f"promise 10: {run_id} stalled because every worker waits")


def _assert_not_stalled(fleet: Fleet, run_id: str) -> None:
    record = fleet.watch.run(run_id)
    assert record is not None
    assert record.stalled is None
