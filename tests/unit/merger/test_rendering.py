"""Rows made into lines: the input's cells as they came, the model's made harmless."""

import csv

import pytest

from prism.messages import Result, ResultRow
from prism_merger.rendering import FileRenderer, split_lines

RENDERER = FileRenderer("r1", ["RowID", "Message"], ["Topic"], ",", rows=3, batches=2)


def batch(*rows: ResultRow, sequence: int = 0, first_row: int = 0) -> Result:
    return Result(
        run_id="r1",
        label="a",
        sequence=sequence,
        first_row=first_row,
        rows=list(rows),
        model="m",
        batch_size=2,
    )


def good(cells: list[str], value: str = "x") -> ResultRow:
    return ResultRow(row_id="1", cells=cells, values=[value])


def read(line: bytes) -> list[str]:
    return next(csv.reader([line.decode()]))


@pytest.mark.promise(8)
def test_cells_of_the_input_come_back_and_formulas_of_the_model_do_not() -> None:
    rendered = RENDERER.render(batch(good(["=1+1", 'a "q",\r\nb'], "=2+2"), good(["", "NA"], "-")))
    first, second = (read(line) for line in split_lines(rendered.lines, rendered.lengths))
    assert first == ["=1+1", 'a "q",\r\nb', "'=2+2", "m", "2", "r1", ""]
    assert second == ["", "NA", "-", "m", "2", "r1", ""]
    assert RENDERER.header == b"RowID,Message,Topic,Model_Name,Batch_Size,Run_ID,Error\n"


@pytest.mark.parametrize(
    ("cells", "kept"), [(["1"], ["1", ""]), (["1", "2", "3"], ["1", "2"]), ([], ["", ""])]
)
def test_a_wrong_number_of_cells_is_padded_or_cut(cells: list[str], kept: list[str]) -> None:
    row = ResultRow(row_id="1", cells=cells, reason="wrong_cell_count", detail="x" * 999)
    rendered = RENDERER.render(batch(row))
    assert read(rendered.lines) == [*kept, "", "m", "2", "r1", "wrong_cell_count"]
    assert len(rendered.failed[0].detail) == 300
    assert (rendered.ok, rendered.end_row) == (0, 1)


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    "result",
    [
        batch(),
        batch(good(["1", "a"]), sequence=2),
        batch(good(["1", "a"]), sequence=-1),
        batch(good(["1", "a"]), sequence=1, first_row=0),  # a sequence has at least as many rows before it
        batch(good(["1", "a"]), sequence=1, first_row=1),  # the last batch holds the last row
        batch(*[good(["1", "a"])] * 3),  # the last row is the last batch's
        batch(*[good(["1", "a"])] * 3, sequence=1, first_row=1),
        batch(ResultRow(row_id="1", cells=["1", "a"])),
        batch(ResultRow(row_id="1", cells=["1", "a"], values=["x", "y"])),
        batch(ResultRow(row_id="1", cells=["1", "a"], reason="Traceback (most recent call last)")),
    ],
)
def test_what_cannot_be_this_files_is_objected_to(result: Result) -> None:
    assert RENDERER.objection(result) is not None


def test_what_fits_is_not_objected_to() -> None:
    assert RENDERER.objection(batch(good(["1", "a"]), good(["2", "b"]))) is None
    assert RENDERER.objection(batch(good(["1", "a"]), sequence=1, first_row=2)) is None
