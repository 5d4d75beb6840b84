"""The example is what its README says, and accepted without a word."""

from pathlib import Path

from tests.unit.tables.files import checked, written

EXAMPLE = Path(__file__).parents[3] / "examples" / "feedback" / "feedback.csv"


def test_the_example_has_500_good_rows(tmp_path: Path) -> None:
    rows = checked(written(tmp_path, EXAMPLE.read_bytes()))
    assert [row.row_id for row in rows] == [str(n + 1) for n in range(500)]
    assert {row.problem for row in rows} == {None}
    assert len({row.cells[2] for row in rows}) == 500
    assert {row.cells[3] for row in rows} == {"Positive", "Negative", "Neutral", "Mixed", ""}
