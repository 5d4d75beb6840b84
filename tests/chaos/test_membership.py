"""Workers that come and go without end, and a row that kills each worker that takes it."""

import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from prism.messages import RowReason
from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import CalmOutput, Case, run_calmly
from tests.harness.fleet import Fleet, Plan, with_changes
from tests.harness.rows import Table, write_csv

STORM_S, EVERY_S = 60.0, 3.0
STORM_ROWS, DEADLY_ROWS = 4000, 300
STORM = Plan(limit=2, behaviour=Behaviour(latency_ms=400.0, count_rows=True))
DEADLY = "DEADLYROW"


@pytest.mark.promise(5)
@pytest.mark.promise(6)
def test_workers_joining_and_leaving_every_3_s(tmp_path: Path, tell: Tell) -> None:
    table = write_csv(tmp_path / "in.csv", STORM_ROWS)
    calm = _undisturbed(tmp_path / "calm", table, "storm", STORM)
    with Fleet(tmp_path / "hurt", STORM) as fleet:
        case = Case(fleet, table, "storm", calm).drop()
        flight = case.flight()
        case.await_merged(1)
        moves = _storm(fleet)
        merged = fleet.watch.merged(case.run_id)
        assert merged < STORM_ROWS, "the run is over before the storm is"
        account = case.finish(flight=flight)
        statuses = {death.status for one in fleet for death in one.deaths}
        assert statuses <= {0}, f"a worker that leaves in order exits 0, these did not: {statuses}"
        tell(**moves, merged_in_storm=merged, extra_rows=account.extra_rows, seconds=case.seconds)


def _storm(fleet: Fleet) -> Counter[str]:
    """Let the oldest worker leave, or a new one join, every 3 s."""
    moves: Counter[str] = Counter()
    for turn in range(int(STORM_S / EVERY_S)):
        if turn % 2 == 0:
            fleet.add_worker(f"worker-{3 + turn // 2}").start()
            moves["joined"] += 1
        else:
            next(one for one in fleet.of("worker") if one.alive).terminate()
            moves["left"] += 1
        fleet.watch.follow(EVERY_S)
    return moves


@pytest.mark.promise(1)
@pytest.mark.promise(9)
def test_a_row_that_kills_each_worker_that_takes_it(tmp_path: Path, tell: Tell) -> None:
    deadly = f"r{DEADLY_ROWS // 2:06d}"
    table = write_csv(tmp_path / "in.csv", DEADLY_ROWS, special=[(DEADLY_ROWS // 2, f"this is the {DEADLY}")])
    calm = _undisturbed(tmp_path / "calm", table, "poison", Plan())
    plan = Plan(supervised=True, environment={"PRISM_CRASH_AT": f"worker.before_call~{DEADLY}"})
    with Fleet(tmp_path / "hurt", plan) as fleet:
        case = Case(fleet, table, "poison", failures={deadly: RowReason.POISON.value}).drop()
        evidence_account = case.finish(240.0)
        deaths = [death for one in fleet for death in one.deaths]
        assert {death.status for death in deaths} == {-9}
        assert all(not one.deaths for one in (*fleet.of("ingestor"), *fleet.of("merger")))
        assert _without(case.output.read_bytes(), deadly) == _without(calm.data, deadly)
        tell(deaths=len(deaths), failed=evidence_account.failed, seconds=case.seconds)


def _without(data: bytes, row_id: str) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    return [row for row in rows if row[0] != row_id]


def _undisturbed(folder: Path, table: Table, run_id: str, plan: Plan) -> CalmOutput:
    with Fleet(folder, with_changes(plan, limit=16, behaviour=Behaviour(count_rows=True))) as fleet:
        return run_calmly(fleet, table, run_id)
