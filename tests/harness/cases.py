"""One run under test: dropped, disturbed, awaited, checked against the same input undisturbed."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.harness.fleet import Fleet
from tests.harness.flight import Flight
from tests.harness.process import await_true
from tests.harness.promises import Account, Evidence, check, same_but_for_run_id
from tests.harness.rows import CODED, Table

LABEL = "rows"


@dataclass(slots=True)
class Case:
    """A table under a run id in a fleet. `undisturbed` is the output of a calm run under `calm_id`."""

    fleet: Fleet
    table: Table
    run_id: str
    calm: "CalmOutput | None" = None
    failures: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def drop(self, reset: bool = True) -> "Case":
        """Set the model server's counts to zero, if no other case is on, and drop the table."""
        if reset:
            self.fleet.model_server.control(reset=True)
        self.began = time.monotonic()
        self.fleet.drop(self.table.path, self.run_id, LABEL)
        return self

    @property
    def output(self) -> Path:
        """Where the output appears."""
        return self.fleet.data_dir / "output" / f"{self.run_id}_{LABEL}.csv"

    def flight(self) -> Flight:
        """Return a count of what is in flight."""
        return Flight(self.fleet, self.table, self.run_id)

    def await_merged(self, rows: int, timeout_s: float = 60.0) -> None:
        """Wait until so many rows are merged."""
        self.fleet.watch.await_merged(self.run_id, rows, timeout_s)

    def finish(self, timeout_s: float = 120.0, flight: Flight | None = None) -> Account:
        """Wait for the end and check every promise; return what was counted."""
        evidence = self.evidence(timeout_s)
        return check(replace(evidence, calls=flight.calls() if flight else None))

    def evidence(self, timeout_s: float = 120.0) -> Evidence:
        """Wait for the run's end and collect what it has left behind."""
        watch = self.fleet.watch
        record = watch.await_end(self.run_id, timeout_s)
        watch.await_announced(self.run_id)
        await_true(self._has_reports, 60.0, lambda: f"the reports of {self.run_id} are not settled")
        watch.catch_up()
        seen = watch.seen
        return Evidence(
            run_id=self.run_id,
            label=LABEL,
            input_csv=self.table.path,
            data_dir=self.fleet.data_dir,
            coded=CODED,
            interval=self.fleet.plan.interval,
            failures={**self.table.failures, **self.failures},
            announcements=seen.outputs[self.run_id],
            run=record,
            progress=seen.progress.get(self.run_id),
            undisturbed=self.calm.under(self.run_id) if self.calm else None,
        )

    def _has_reports(self) -> bool:
        path = self.fleet.data_dir / "logs" / self.run_id / "run_manifest.json"
        return bool(json.loads(path.read_bytes())["reports"]["state"] != "due")

    @property
    def seconds(self) -> float:
        """Seconds since the drop."""
        return time.monotonic() - self.began


@dataclass(frozen=True, slots=True)
class CalmOutput:
    """The output of an undisturbed run."""

    run_id: str
    data: bytes

    def under(self, run_id: str) -> bytes:
        """Return its bytes as they would be under another run id."""
        return same_but_for_run_id(self.data, self.run_id, run_id)


def run_calmly(fleet: Fleet, table: Table, run_id: str, timeout_s: float = 120.0) -> CalmOutput:
    """Run a table without any disturbance; the checker has nothing to say, and no row is asked twice."""
    case = Case(fleet, table, run_id).drop()
    evidence = case.evidence(timeout_s)
    flight = Flight(fleet, table, run_id)
    check(replace(evidence, calls=flight.calls()))
    return CalmOutput(run_id, case.output.read_bytes())
