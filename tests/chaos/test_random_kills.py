"""50 SIGKILLs over all services and 3 of the broker during 20,000 rows: the bytes of an undisturbed run."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import CalmOutput, Case, run_calmly
from tests.harness.fleet import Fleet, Plan, with_changes
from tests.harness.flight import Flight
from tests.harness.process import await_true
from tests.harness.rows import Table, write_csv

ROWS, KILLS, BROKER_KILLS, SEED = 20_000, 50, 3, 20261121
BATCH = 10
PLAN = Plan(
    workers=3,
    limit=6,
    batch_size=BATCH,
    interval=1000,
    supervised=True,
    behaviour=Behaviour(latency_ms=120.0, count_rows=True),
)
# Seconds for the rows between two kills: a killed worker's partitions move after 6 s.
STEP_S = 60.0


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.promise(9)
def test_50_kills_and_3_of_the_broker_during_20000_rows(tmp_path: Path, tell: Tell) -> None:
    table = write_csv(tmp_path / "in.csv", ROWS)
    calm = _undisturbed(tmp_path / "calm", table)
    with Fleet(tmp_path / "hurt", PLAN) as fleet:
        case = Case(fleet, table, "random-kills", calm).drop()
        flight = case.flight()
        killed = _disturb(fleet, case, flight)
        account = case.finish(300.0, flight)
        assert sum(killed.values()) == KILLS + BROKER_KILLS
        assert account.extra_rows is not None
        assert account.extra_rows <= flight.batches_in_flight * BATCH
        counted = _counted_extra_calls(case, account.extra_rows)
        tell(
            **killed, in_flight=flight.batches_in_flight, extra_rows=account.extra_rows,
            counted_extra_calls=counted, seconds=case.seconds,
        )  # fmt: skip


def _undisturbed(folder: Path, table: Table) -> CalmOutput:
    plan = with_changes(PLAN, supervised=False, limit=16, behaviour=Behaviour(count_rows=True))
    with Fleet(folder, plan) as fleet:
        return run_calmly(fleet, table, "random-kills", 180.0)


def _disturb(fleet: Fleet, case: Case, flight: Flight) -> Counter[str]:
    """Kill at even steps of the progress, so that all of the run is disturbed."""
    dice = random.Random(SEED)
    steps = KILLS + BROKER_KILLS
    brokers = {steps * (number + 1) // (BROKER_KILLS + 1) for number in range(BROKER_KILLS)}
    killed: Counter[str] = Counter()
    for step in range(steps):
        case.await_merged(ROWS * (step + 1) // (steps + 3), STEP_S)
        if step in brokers:
            flight.note_outage()
            fleet.broker.kill()
            fleet.broker.start()
            killed["broker"] += 1
        else:
            victim = dice.choice([one for one in fleet if one.alive])
            flight.freeze(victim)
            victim.kill()
            killed[victim.name.partition("-")[0]] += 1
    return killed


def _counted_extra_calls(case: Case, extra_rows: int) -> int:
    """Return the manifest's `extra_calls` once it is no less than what the model server has seen."""
    path = case.fleet.data_dir / "logs" / case.run_id / "run_manifest.json"

    def counted() -> int:
        return int(json.loads(path.read_bytes())["extra_calls"])

    def complaint() -> str:
        return f"promise 5: {counted()} extra calls of {BATCH} rows are counted, {extra_rows} rows were extra"

    await_true(lambda: counted() * BATCH >= extra_rows, 20.0, complaint)
    return counted()
