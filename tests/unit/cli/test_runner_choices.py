"""What the runner asks, in which order, and which answers it takes."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_cli.runner import choices
from prism_cli.runner.choices import Choices, ModelPick, PromptPick, RowPick, Step, Wrong

FULL = Choices(
    "demo", Path("a.csv"), False, PromptPick(Path("p.json")), ModelPick("m"), 10, RowPick(1, 95, 500)
)


def test_the_steps_without_an_answer_are_missing() -> None:
    assert Choices().missing() == [step for step in Step if step is not Step.CONFIRM]
    assert replace(FULL, model=None, rows=None).missing() == [Step.MODEL, Step.ROWS]
    assert FULL.missing() == []


def test_steps_follow_each_other_and_name_their_flags() -> None:
    flags = ["--project", "--input", "--prompt", "--model", "--batch-size", "--rows", "--yes"]
    assert [step.flag for step in Step] == flags
    assert choices.before(Step.PROJECT) is None
    assert choices.before(Step.ROWS) is Step.BATCH_SIZE


def test_another_project_or_table_keeps_what_still_holds() -> None:
    assert FULL.with_project("demo") == FULL
    other = replace(FULL, copy=True).with_project("other")
    assert (other.project, other.input, other.prompt, other.rows) == ("other", None, None, None)
    assert (other.model, other.batch_size, other.copy) == (FULL.model, 10, True)
    assert FULL.with_input(Path("a.csv"), 500).rows == FULL.rows
    assert FULL.with_input(Path("a.csv"), 499).rows is None, "the file has other rows now"
    assert FULL.with_input(Path("b.csv"), 500).rows is None
    assert FULL.with_input(Path("b.csv"), 500).prompt == FULL.prompt
    proposed = replace(FULL, prompt=PromptPick(None, {}))
    assert proposed.with_input(Path("b.csv"), 500).prompt is None, "it was proposed for another table"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("", 1, 500), ("ALL", 1, 500), ("100", 1, 100), (" 7-9 ", 7, 9), ("7 – 9", 7, 9), ("500-500", 500, 500)],
)
def test_rows(text: str, first: int, last: int) -> None:
    assert choices.rows(text, 500) == RowPick(first, last, 500)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0", "at least one"),
        ("0-5", "from 1"),
        ("9-7", "7-9"),
        ("1-501", "500 rows"),
        ("501", "500 rows"),
        ("-5", "type all"),
        ("1e3", "type all"),
        ("٣", "type all"),
        ("1-2-3", "type all"),
    ],
)
def test_rows_that_are_none_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Wrong, match=why):
        choices.rows(text, 500)


def test_a_file_without_rows_has_none_to_choose() -> None:
    with pytest.raises(Wrong, match="no rows"):
        choices.rows("all", 0)


@given(st.text(), st.integers(0, 10**6))
def test_whatever_is_typed_is_rows_of_the_file_or_refused(text: str, total: int) -> None:
    try:
        found = choices.rows(text, total)
    except Wrong:
        return
    assert 1 <= found.first <= found.last <= total
    assert found.all == (found.count == total)


@given(st.text())
def test_whatever_is_typed_is_a_plain_name_and_a_size_or_refused(text: str) -> None:
    with suppress(Wrong):
        name = choices.new_project(text)
        assert name.isascii()
        assert Path("projects", name).parent == Path("projects")
    with suppress(Wrong):
        assert 1 <= choices.batch_size(text) <= 200


def test_calls_are_batches() -> None:
    assert FULL.calls == 10
    assert replace(FULL, batch_size=1).calls == 95
    assert FULL.rows is not None
    assert FULL.rows.label == "r1-95"
