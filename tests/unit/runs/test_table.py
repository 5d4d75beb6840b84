"""The runs as their topic tells them: the higher epoch counts, whatever comes last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import BadMessage, Cursor, CutPosition, FileCursor, RunRecord, RunState
from prism.runs.table import RunsTable


def run(epoch: int, owner: str = "a", state: RunState = RunState.RUNNING, detail: str = "") -> RunRecord:
    return RunRecord(
        run_id="r", epoch=epoch, owner=owner, state=state, detail=detail, prompt={"x": 1}, job={"y": "2"}
    )


def cursor(epoch: int, sequence: int) -> Cursor:
    return Cursor(run_id="r", epoch=epoch, files={"l": FileCursor(next=CutPosition(sequence=sequence))})


def test_a_deletion_and_what_is_none_of_ours() -> None:
    table = RunsTable()
    table.apply("r", run(1).to_bytes())
    with pytest.raises(BadMessage):
        table.apply("r", b"{}")
    assert table.runs["r"] == run(1)
    assert table.apply("r", None) is None
    assert table.runs == {}
    table.apply("r/cursor", cursor(1, 5).to_bytes())
    table.apply("r/cursor", None)
    assert table.cursors == {}
    assert table.stale == set()


def test_only_runs_that_are_answered_lose_their_prompt() -> None:
    for state in RunState:
        table = RunsTable()
        table.apply("r", run(1, state=state).to_bytes())
        answered = state.value.startswith("completed") or state is RunState.REFUSED
        assert bool(table.runs["r"].prompt) is not answered
        assert table.runs["r"].job == {"y": "2"}


@pytest.mark.promise(6)
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("ab")), min_size=1, max_size=20))
def test_a_lower_epoch_changes_nothing(writers: list[tuple[int, str]]) -> None:
    table = RunsTable()
    best: tuple[int, str] = (0, "")
    expected = ""
    for number, (epoch, owner) in enumerate(writers):
        applied = table.apply("r", run(epoch, owner, detail=str(number)).to_bytes())
        counts = (epoch, owner) >= best
        assert (applied is not None) is counts
        assert ("r" in table.stale) is not counts
        if counts:
            best, expected = (epoch, owner), str(number)
    assert table.runs["r"].detail == expected
    assert table.highest_epoch == max(epoch for epoch, _ in writers)


def test_cursors_follow_the_same_rule() -> None:
    table = RunsTable()
    table.apply("r/cursor", cursor(2, 5).to_bytes())
    assert table.apply("r/cursor", cursor(1, 9).to_bytes()) is None
    assert table.stale == {"r/cursor"}
    table.apply("r/cursor", cursor(2, 6).to_bytes())
    assert table.cursors["r"].files["l"].next.sequence == 6
    assert table.stale == set()
    assert table.highest_epoch == 2
