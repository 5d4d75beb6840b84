"""What a run and its retries make together: every row once, in its place, as the last that did it says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.tables import render_line
from prism_merger.completion import Mismatch, Parts, completed
from prism_merger.joining import Line

# For each row, how many retries it takes to succeed; 9: it never does.
ROWS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 9]), max_size=40)


def attempt(rows: list[tuple[int, int]], number: int) -> list[Line]:
    """Return what the `number`-th try makes of rows (their place, and the try that succeeds)."""
    return [Line(f"{place}:{number}".encode(), number < succeeds) for place, succeeds in rows]


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@given(rows=ROWS, tries=st.integers(0, 4))
def test_each_row_comes_once_in_its_place_from_its_last_try(rows: list[int], tries: int) -> None:
    left = list(enumerate(rows))
    attempts = []
    for number in range(tries + 1):
        attempts.append(attempt(left, number))
        left = [row for row in left if number < row[1]]
    found = list(completed(attempts[0], attempts[1:]))
    assert [line.content for line in found] == [
        f"{place}:{min(succeeds, tries)}".encode() for place, succeeds in enumerate(rows)
    ]
    assert [line.failed for line in found] == [succeeds > tries for succeeds in rows]


@given(rows=ROWS.filter(any), change=st.sampled_from([-1, 1]))
def test_a_retry_of_other_rows_completes_nothing(rows: list[int], change: int) -> None:
    first = attempt(list(enumerate(rows)), 0)
    failed = sum(line.failed for line in first)
    again = [Line(b"x", False)] * (failed + change)
    with pytest.raises(Mismatch):
        list(completed(first, [again]))


@given(
    cells=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20), st.booleans()
        ),
        max_size=12,
    ),
    interval=st.integers(1, 5),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_lines_are_read_back_from_parts_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, bool]],
    interval: int,
    delimiter: str,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    header = render_line(["Message", "Topic", "Error"], delimiter).encode()
    lines = [
        Line(render_line([text, "", "not_json" if failed else ""], delimiter).encode(), failed)
        for text, failed in cells
    ]
    paths: list[Path] = []
    for first in range(0, len(lines), interval):
        paths.append(folder / f"part{first}.csv")
        paths[-1].write_bytes(header + b"".join(line.content for line in lines[first : first + interval]))
    assert list(Parts(paths, delimiter, header).lines()) == lines
