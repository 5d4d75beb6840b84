"""The picture of a run stays small, keeps its ends, and survives its merger."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from prism_merger.accounts import run_from_json, run_to_json
from prism_merger.reports.figures import paces
from prism_merger.timeline import MOST_MOMENTS, Moment, Timeline
from tests.unit.merger.report_world import facts, finished


@given(st.lists(st.floats(0.01, 500), max_size=1500))
def test_it_stays_small_and_in_order(steps: list[float]) -> None:
    timeline, seconds, noted = Timeline(), 0.0, 0
    for rows, step in enumerate(steps):
        if timeline.is_due(seconds):
            timeline.note(Moment(seconds, rows, 0, 10 * rows))
            noted += 1
        seconds += step
    moments = timeline.moments
    assert len(moments) <= MOST_MOMENTS
    assert moments == sorted(moments)
    assert moments[:1] == [Moment(0.0, 0, 0, 0)] * bool(steps)
    assert noted <= MOST_MOMENTS or len(moments) > MOST_MOMENTS // 3
    found = list(paces(moments))
    if found:
        told = sum(
            one.rows_per_s * (after - one.start)
            for one, after in zip(found, [moment.seconds for moment in moments[1:]], strict=True)
        )
        assert round(told) == moments[-1].rows - moments[0].rows


def test_it_is_in_the_account_and_in_the_facts(tmp_path: Path) -> None:
    world = finished(tmp_path, [("m", ("Other", "good", "x"))] * 30)
    run = world.run()
    run.note_moment(7.5)
    assert run.timeline.moments[-1] == Moment(7.5, 30, 0, 120)
    assert run_from_json(run_to_json(run), run.files) == run
    assert facts(world).timeline[-1] == (7.5, 30, 0, 120)
