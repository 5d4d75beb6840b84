"""Row ranges: which rows are taken, cut from any batch's position, and found again by their number."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import CutPosition
from prism.runs.cutting import cut_rows, row_position
from prism.runs.job import parse_job
from prism.runs.ranges import RangesRefused, RowNumbers, ordered, ranges_of, taken
from prism.tables import Row, TableFormat, read_header, read_rows


@st.composite
def some_ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Disjoint ranges within 60 rows, in any order."""
    edges = draw(st.lists(st.integers(1, 60), min_size=2, max_size=8, unique=True).map(sorted))
    pairs = [(edges[index], edges[index + 1]) for index in range(0, len(edges) - 1, 2)]
    return draw(st.permutations(pairs))


def rows_of(path: Path, start: CutPosition) -> list[Row]:
    fmt = TableFormat()
    return list(read_rows(path, read_header(path, fmt), fmt, row_position(start)))


@given(ranges=some_ranges(), rows=st.integers(0, 60), size=st.integers(1, 7), data=st.data())
def test_the_same_rows_are_cut_from_the_start_and_from_any_batch(
    tmp_path_factory: pytest.TempPathFactory,
    ranges: list[tuple[int, int]],
    rows: int,
    size: int,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("cut") / "t.csv"
    path.write_text("Message\n" + "".join(f"text {number}\n" for number in range(1, rows + 1)))
    chosen = ordered(ranges)
    cuts = list(cut_rows(taken(rows_of(path, CutPosition()), chosen), size, CutPosition()))
    wanted = [number for number in range(1, rows + 1) if any(a <= number <= b for a, b in chosen)]
    assert [row.ordinal + 1 for cut in cuts for row in cut.rows] == wanted
    assert [row.row_id for cut in cuts for row in cut.rows] == [str(number) for number in wanted]
    # What the merger sees: numbers without gaps, and the way back to the file's rows.
    assert [cut.start.ordinal for cut in cuts] == list(range(0, len(wanted), size))
    numbers = RowNumbers(chosen)
    assert [numbers[ordinal] for ordinal in range(len(wanted))] == wanted
    stretches = list(numbers.stretches(0, len(wanted))) if wanted else []
    together = [range(numbers[first], numbers[end - 1] + 1) for first, end in stretches]
    assert [number for stretch in together for number in stretch] == wanted
    if cuts:
        begun = data.draw(st.integers(0, len(cuts) - 1))
        start = cuts[begun].start
        assert list(cut_rows(taken(rows_of(path, start), chosen), size, start)) == cuts[begun:]


def test_without_ranges_every_row_is_taken() -> None:
    assert RowNumbers([])[41] == 42
    assert ranges_of(parse_job({})) == []
    job = {"parallelization": {"manual_ranges": [{"start": "1", "end": "2"}]}}
    assert ranges_of(parse_job(job)) == [], "the strategy is auto"


def test_manual_ranges_of_a_job_are_its_rows() -> None:
    ranges = [{"start": "501", "end": "1000"}, {"start": "1", "end": "500"}]
    job = {"parallelization": {"split_strategy": "manual", "manual_ranges": ranges}}
    assert ranges_of(parse_job(job)) == [(1, 500), (501, 1000)]


@pytest.mark.parametrize("ranges", [[(0, 3)], [(4, 3)], [(1, 5), (5, 6)], [(3, 9), (1, 4)]])
def test_ranges_that_name_no_row_or_one_twice_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(RangesRefused):
        ordered(ranges)
