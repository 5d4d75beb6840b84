"""A model's cells that a spreadsheet must not run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.tables import neutralise

DANGEROUS = [
    "=1+1",
    '=HYPERLINK("http://example.org")',
    "+1+1",
    "-1+1",
    "-- no --",
    "- a point",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\t-5",
    " =1",
    "\n=1",
    "\u00a0=1",
    "\u200b=1",
    "\ufeff=1",
    "＝1+1",
    "＋1+1",
    "－1+1",
    "＠SUM(A1)",
    "﹦1",
    "+49 170 1234567",
    "-1.5)",
    "=",
    "+",
    "@",
    "-5\n",
]
HARMLESS = [
    "",
    "-",
    "-1.5",
    "+3",
    "-1,234.50",
    "+12%",
    "-1e5",
    " -7 ",
    "5",
    "a=b",
    "N/A",
    "'=1",
    "x\n=1",
    "—",
]


@pytest.mark.promise(8)
@pytest.mark.parametrize("cell", DANGEROUS)
def test_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert neutralise(cell) == "'" + cell


@pytest.mark.parametrize("cell", HARMLESS)
def test_other_cells_stay_as_they_are(cell: str) -> None:
    assert neutralise(cell) == cell


@pytest.mark.promise(8)
@given(cell=st.text(alphabet=st.characters(), max_size=20))
def test_the_result_can_be_written_and_is_stable(cell: str) -> None:
    once = neutralise(cell)
    once.encode()
    assert "\0" not in once
    assert neutralise(once) == once
    assert once == "-" or once[:1] not in "=+-@\t\r" or once.strip(" ")[1:2].isdigit() or once == ""


def test_what_a_csv_cannot_carry_is_replaced() -> None:
    assert neutralise("a\0b\ud800c") == "a\ufffdb\ufffdc"
