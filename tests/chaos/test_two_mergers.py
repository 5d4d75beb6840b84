"""Two mergers, each killed while it works: every run is published once, by the one that it belongs to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import pytest

from prism.runs.naming import results_partition
from prism_embedded.model_state import Behaviour
from tests.chaos.conftest import Tell
from tests.harness.cases import CalmOutput, Case, run_calmly
from tests.harness.fleet import Fleet, Plan, with_changes
from tests.harness.process import KILLED, ServiceProcess
from tests.harness.rows import Table, write_csv

ROWS, RUNS_OF_EACH, MERGERS = 400, 3, 2
ROWS_OF_EACH = ROWS * RUNS_OF_EACH
# Rows to be merged of somebody's runs before the next thing happens to them.
STEP = 100
STEP_S = 60.0
# 480 calls of 0.3 s, four at once: some 36 s.
PLAN = Plan(mergers=MERGERS, limit=2, behaviour=Behaviour(latency_ms=300.0, count_rows=True))


@dataclass(frozen=True, slots=True)
class Side:
    """One merger and the runs of its partitions."""

    fleet: Fleet
    ordinal: int
    cases: Sequence[Case]

    @property
    def merger(self) -> ServiceProcess:
        """Its process."""
        return self.fleet[f"merger-{self.ordinal}"]

    @property
    def merged(self) -> int:
        """Rows of its runs that are merged."""
        return sum(self.fleet.watch.merged(case.run_id) for case in self.cases)

    def await_more(self, rows: int) -> int:
        """Wait until so many more rows are merged; return how many are."""
        self.fleet.watch.catch_up()
        wanted = self.merged + rows
        assert wanted <= ROWS_OF_EACH, f"the runs of {self.merger.name} are too short for {rows} more rows"
        what = f"{rows} more rows merged by {self.merger.name}"
        self.fleet.watch.wait(lambda _: self.merged >= wanted, STEP_S, what)
        return self.merged

    def kill(self) -> None:
        """Kill the merger while it has something to do."""
        assert self.merged < ROWS_OF_EACH, f"{self.merger.name} has finished before it is killed"
        self.merger.kill()


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
@pytest.mark.promise(5)
def test_two_mergers_killed_in_turn(tmp_path: Path, tell: Tell) -> None:
    tables = [write_csv(tmp_path / f"in-{seed}.csv", ROWS, seed) for seed in range(MERGERS * RUNS_OF_EACH)]
    calm = _undisturbed(tmp_path / "calm", tables)
    with Fleet(tmp_path / "hurt", PLAN) as fleet:
        cases = [
            Case(fleet, table, run_id, output)
            for table, run_id, output in zip(tables, _run_ids(), calm, strict=True)
        ]
        for number, case in enumerate(cases):
            case.drop(reset=number == 0)
        sides = [Side(fleet, ordinal, cases[ordinal::MERGERS]) for ordinal in range(MERGERS)]
        alone = _disturb(*sides)
        accounts = [case.finish(flight=case.flight()) for case in cases]
        _assert_published_by_their_own(sides)
        killed = [[death.status for death in side.merger.deaths] for side in sides]
        assert killed == [[KILLED, KILLED], [KILLED]]
        extra = sum(account.extra_rows or 0 for account in accounts)
        tell(kills=3, rows_while_alone=alone, extra_rows=extra, seconds=cases[0].seconds)


def _run_ids() -> Iterator[str]:
    """Yield ids whose runs belong to the first merger, the second, the first, and so on."""
    of_each = [_ids_of(ordinal) for ordinal in range(MERGERS)]
    return chain.from_iterable(zip(*of_each, strict=True))


def _ids_of(ordinal: int) -> list[str]:
    names = (f"two-mergers-{number}" for number in count())
    own = (name for name in names if results_partition(name, PLAN.partitions) % MERGERS == ordinal)
    return list(islice(own, RUNS_OF_EACH))


def _undisturbed(folder: Path, tables: Sequence[Table]) -> list[CalmOutput]:
    plan = with_changes(PLAN, mergers=1, limit=16, behaviour=Behaviour(count_rows=True))
    with Fleet(folder, plan) as fleet:
        return [run_calmly(fleet, table, f"calm-{number}") for number, table in enumerate(tables)]


def _disturb(first: Side, second: Side) -> int:
    """Kill the first, the second, the first; return the rows that the others merged meanwhile."""
    first.await_more(STEP)
    alone = _kill_and_watch(first, second)
    first.merger.start()
    first.await_more(STEP)
    alone += _kill_and_watch(second, first)
    second.merger.start()
    second.await_more(STEP)
    first.kill()
    first.merger.start()
    return alone


def _kill_and_watch(victim: Side, other: Side) -> int:
    """Kill a merger; the other goes on, and leaves the victim's runs alone. Return the rows it merged."""
    victim.kill()
    victim.fleet.watch.catch_up()
    left, before = victim.merged, other.merged
    alone = other.await_more(STEP) - before
    assert victim.merged == left, f"{other.merger.name} has merged what is not its own"
    return alone


def _assert_published_by_their_own(sides: Sequence[Side]) -> None:
    for side in sides:
        for case in side.cases:
            record = side.fleet.watch.run(case.run_id)
            assert record is not None
            assert record.results_partition % MERGERS == side.ordinal
            said = {one.source for one in side.fleet.watch.seen.outputs[case.run_id]}
            assert said == {f"/prism-merger-{side.ordinal}"}
