"""One short storm for every `make test`: kill -9 of a worker, the merger, the ingestor and the broker."""

from pathlib import Path

import pytest

from prism_embedded.model_state import Behaviour
from tests.harness.cases import Case
from tests.harness.fleet import Fleet, Plan
from tests.harness.rows import write_csv

ROWS = 1000
PLAN = Plan(limit=4, supervised=True, interval=100, behaviour=Behaviour(latency_ms=100.0, count_rows=True))


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.promise(5)
def test_1000_rows_with_everything_killed_once(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", ROWS)
    with Fleet(tmp_path / "fleet", PLAN) as fleet:
        case = Case(fleet, table, "smoke").drop()
        flight = case.flight()
        case.await_merged(ROWS // 10)
        flight.freeze(fleet["worker-1"])
        fleet["worker-1"].kill()
        case.await_merged(ROWS // 5)
        fleet["merger-0"].kill()
        case.await_merged(ROWS * 3 // 10)
        fleet["ingestor-1"].kill()
        case.await_merged(ROWS * 2 // 5)
        flight.note_outage()
        fleet.broker.kill()
        fleet.broker.start()
        account = case.finish(60.0, flight)
        assert [len(fleet[name].deaths) for name in ("worker-1", "merger-0", "ingestor-1")] == [1, 1, 1]
        assert (account.rows, account.failed) == (ROWS, ROWS // 97)
