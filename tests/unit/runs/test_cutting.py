"""Cutting: the same rows give the same batches, from wherever one begins."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.messages import CutPosition
from prism.runs.cutting import MAX_BATCH_BYTES, Cut, cut_rows, row_position
from prism.tables import Row, TableFormat, read_header, read_rows, render_line

FORMAT = TableFormat()
cells = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


def cuts_of(path: Path, size: int, most: int, start: CutPosition | None = None) -> list[Cut]:
    start = start or CutPosition()
    header = read_header(path, FORMAT)
    return list(cut_rows(read_rows(path, header, FORMAT, row_position(start)), size, start, most))


def written(folder: Path, rows: list[list[str]], blank: bool) -> Path:
    path = folder / "t.csv"
    lines = [render_line(["RowID", "Message"]), *(render_line(row) for row in rows)]
    path.write_text(("\n" if blank else "").join(lines), encoding="utf-8", newline="")
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(cells, min_size=1, max_size=3), max_size=25),
    size=st.integers(1, 7),
    most=st.integers(1, 200),
    blank=st.booleans(),
)
def test_every_row_once_within_the_limits_and_the_same_from_anywhere(
    tmp_path: Path, rows: list[list[str]], size: int, most: int, blank: bool
) -> None:
    path = written(tmp_path, rows, blank)
    cuts = cuts_of(path, size, most)
    found: list[Row] = [row for cut in cuts for row in cut.rows]
    assert found == list(read_rows(path, read_header(path, FORMAT), FORMAT))
    for sequence, cut in enumerate(cuts):
        assert cut.start.sequence == sequence
        assert cut.start.ordinal == cut.rows[0].ordinal
        assert cut.end.ordinal == cut.rows[-1].ordinal + 1
        assert 1 <= len(cut.rows) <= size
        taken = sum(row.end.offset - row.start.offset for row in cut.rows)
        assert len(cut.rows) == 1 or taken <= most
    for place, cut in enumerate(cuts):
        assert cuts_of(path, size, most, cut.start) == cuts[place:]
        assert cuts_of(path, size, most, cut.end) == cuts[place + 1 :]


def test_a_long_row_stands_alone(tmp_path: Path) -> None:
    rows = [["1", "a"], ["2", "x" * MAX_BATCH_BYTES], ["3", "b"], ["4", "c"]]
    cuts = cuts_of(written(tmp_path, rows, blank=False), 10, MAX_BATCH_BYTES)
    assert [[row.row_id for row in cut.rows] for cut in cuts] == [["1"], ["2"], ["3", "4"]]


def test_no_rows_no_batches(tmp_path: Path) -> None:
    assert cuts_of(written(tmp_path, [], blank=False), 10, 100) == []


@pytest.mark.promise(1)
def test_a_row_that_no_model_may_see_travels_with_its_reason(tmp_path: Path) -> None:
    (cut,) = cuts_of(written(tmp_path, [["1", "a"], ["2"], ["3", " "]], blank=False), 10, 1000)
    sent: list[dict[str, Any]] = [row.model_dump() for row in cut.batch_rows()]
    assert sent == [
        {"row_id": "1", "cells": ["1", "a"], "rejected": None},
        {"row_id": "2", "cells": ["2"], "rejected": "wrong_cell_count"},
        {"row_id": "3", "cells": ["3", " "], "rejected": "empty_message"},
    ]
