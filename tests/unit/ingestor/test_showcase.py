"""Which runs have series of their own."""

import pytest

from prism.messages import Progress
from prism_ingestor import metrics
from prism_ingestor.showcase import LINGER_S, MOST_RUNS, Showcase, ShownRun


@pytest.fixture
def showcase() -> Showcase:
    made = Showcase()
    made.start()
    return made


def run(number: int, rows: int = 10) -> ShownRun:
    return ShownRun(f"r{number}", rows, unmerged=1, stalled=False)


def rows(run_id: str, outcome: str) -> float | None:
    labels = {"run_id": run_id, "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("prism_ingestor_run_rows", labels)


def shown() -> set[str]:
    (family,) = metrics.RUN_ROWS_IN.collect()
    return {one.labels["run_id"] for one in family.samples}


def test_there_are_never_more_runs_than_there_is_room_for(showcase: Showcase) -> None:
    many = [run(number) for number in range(100)]
    showcase.show(many, 0.0)
    first = shown()
    assert first == {f"r{number}" for number in range(MOST_RUNS)}
    showcase.show(many[::-1], 1.0)
    assert shown() == first, "those that are shown stay"
    showcase.show(many[MOST_RUNS:], LINGER_S + 2.0)
    showcase.show(many[MOST_RUNS:], 2 * LINGER_S + 3.0)
    assert shown() == {f"r{number}" for number in range(MOST_RUNS, 2 * MOST_RUNS)}


def test_a_run_that_has_ended_shows_its_last_counts_for_a_minute(showcase: Showcase) -> None:
    showcase.show([run(1)], 0.0)
    assert rows("r1", "ok") == 0
    showcase.note(Progress(run_id="r1", rows_ok=9, rows_failed=1))
    showcase.show([], 1.0)
    assert (rows("r1", "ok"), rows("r1", "failed")) == (9, 1)
    showcase.show([], 1.0 + LINGER_S - 0.1)
    assert rows("r1", "ok") == 9
    showcase.show([], 1.0 + LINGER_S)
    assert shown() == set()


def test_one_that_stands_by_shows_none(showcase: Showcase) -> None:
    showcase.show([run(1)], 0.0)
    showcase.clear()
    assert shown() == set()
