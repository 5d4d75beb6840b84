"""Rows that failed yesterday, done again with no fleet up: the command brings its own, and takes it down."""

from pathlib import Path

import pytest

from prism_embedded.model_server import EmbeddedModelServer
from tests.acceptance.jobs import Desk, table

ROWS = 20


@pytest.mark.promise(3)
def test_a_retry_brings_the_fleet_that_its_run_had(tmp_path: Path, jobs_server: EmbeddedModelServer) -> None:
    content = table(ROWS, mark=lambda number: "BROKEN" if number == 7 else "")
    desk = Desk.made(tmp_path / "desk", jobs_server, t=content)
    try:
        desk.control(faults="text:BROKEN=http_400", reset=True)
        assert desk.run("--run-id", "a").returncode == 6
        desk.control(faults="", reset=True)
        done = desk.prism("retry", "a", "--model-server", jobs_server.url)
        assert done.returncode == 0, done.stderr
        assert {row["Error"] for row in desk.rows("a", "t")} == {""}
        assert len(desk.rows("a", "t")) == ROWS
        assert desk.stats()["rows"] == 1
        assert desk.fleet_pids() == []
        shown = desk.prism("purge", "--dry-run", "--what", "parts")
        assert "a.r1" in shown.stdout, "what lies beside the data folder is found without a fleet"
        unknown = desk.prism("retry", "nope")
        assert (unknown.returncode, "no run of that name" in unknown.stderr) == (4, True)
    finally:
        desk.control(faults="", reset=True)
        desk.end()
