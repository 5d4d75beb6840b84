"""Every named crash point, one by one: SIGKILL there, start again, and the output is that of a calm run."""

from collections.abc import Iterator

import pytest

from prism.service.fault import POINTS
from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import Case
from tests.harness.fleet import Fleet, Plan
from tests.harness.keeper import FleetKeeper
from tests.harness.process import KILLED, ServiceProcess
from tests.harness.rows import write_csv
from tests.harness.watch import Seen

ROWS = 300
HIT_S = 30.0
# A run of some two seconds: long enough to see what is done once a second.
PLAN = Plan(limit=2, behaviour=Behaviour(latency_ms=100.0, count_rows=True))
# Passed many times in a run: the third passage finds something done and something to do.
OFTEN = {
    "ingestor.after_batch_fed",
    "worker.after_poll",
    "worker.before_call",
    "worker.after_call",
    "worker.after_result_produced",
    "worker.after_result_acked",
    "worker.before_commit",
    "worker.after_commit",
    "merger.after_poll",
    "merger.before_store_commit",
    "merger.after_store_commit",
    "merger.after_progress",
    "merger.after_part_written",
}
VICTIMS = {"ingestor": "ingestor-1", "worker": "worker-1", "merger": "merger-0"}


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetKeeper]:
    folder = tmp_path_factory.mktemp("crash-points")
    made = FleetKeeper(folder, PLAN, write_csv(folder / "in.csv", ROWS))
    yield made
    made.close()


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.promise(4)
@pytest.mark.promise(5)
@pytest.mark.parametrize("point", POINTS)
def test_survives_a_kill_at(point: str, keeper: FleetKeeper, tell: Tell) -> None:
    with keeper.lend() as (fleet, calm):
        case = Case(fleet, keeper.table, f"kill-{list(POINTS).index(point):02}", calm)
        flight = case.flight()
        spec = f"{point}:3" if point in OFTEN else point
        victim = fleet[VICTIMS[point.partition(".")[0]]]
        provoke(fleet, victim, case, spec)
        in_flight = flight.note_death(victim.name) if victim.name.startswith("worker") else 0
        victim.start()
        account = case.finish(flight=flight)
        tell(kills=1, in_flight=in_flight, extra_rows=account.extra_rows, seconds=case.seconds)


def provoke(fleet: Fleet, victim: ServiceProcess, case: Case, spec: str) -> None:
    """Start the victim with the crash point set, and do what brings it there; it has died there then."""
    before = len(victim.deaths)
    if spec == "ingestor.after_takeover":
        case.drop().await_merged(1)
    victim.stop()
    victim.start({"PRISM_CRASH_AT": spec})
    if spec != "ingestor.after_takeover":
        victim.await_ready()
        if spec == "worker.on_revoke":
            hold_everything(fleet, victim)
        case.drop()
    if spec == "worker.on_revoke":
        case.await_merged(1)
        fleet["worker-2"].start()
    death = victim.await_death(HIT_S, since=before + 1)
    assert death.status == KILLED, f"{victim.name} ended with {death.status}: {victim.last_words()}"


def hold_everything(fleet: Fleet, victim: ServiceProcess) -> None:
    """Let the victim hold every partition: whoever joins then takes some away from it."""
    fleet["worker-2"].stop()
    count = fleet.plan.partitions

    def holds_all(seen: Seen) -> bool:
        beat = seen.workers.get(victim.name)
        return beat is not None and len(beat.partitions) == count

    fleet.watch.wait(holds_all, HIT_S, f"{victim.name} holds all {count} partitions")
