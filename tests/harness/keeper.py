"""Fleets that several tests share: one that was hurt by a failed test is thrown away."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.cases import CalmOutput, run_calmly
from tests.harness.fleet import Fleet, Plan
from tests.harness.rows import Table


class FleetKeeper:
    """Lends one fleet at a time, with the output of an undisturbed run of a table in that very fleet."""

    def __init__(self, folder: Path, plan: Plan, table: Table) -> None:
        self.table = table
        self._folder = folder
        self._plan = plan
        self._fleet: Fleet | None = None
        self._calm: CalmOutput | None = None
        self._made = 0

    @contextmanager
    def lend(self) -> Iterator[tuple[Fleet, CalmOutput]]:
        """Lend a sound fleet; an exception in the block ends it for good."""
        try:
            fleet = self._sound_fleet()
            calm = self._calm = self._calm or run_calmly(fleet, self.table, "calm-run")
            yield fleet, calm
        except BaseException:
            self.close()
            raise

    def _sound_fleet(self) -> Fleet:
        if self._fleet is None:
            self._made += 1
            fleet = self._fleet = Fleet(self._folder / f"fleet-{self._made}", self._plan)
            fleet.start()
        return self._fleet

    def close(self) -> None:
        """End the fleet, if there is one."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()
            fleet.drop_broker_data()
