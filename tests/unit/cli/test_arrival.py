"""A run that was sent a moment ago: waited for while it can still come, and no longer."""

from collections.abc import Iterator
from typing import cast

import pytest

from prism_cli.arrival import await_run
from prism_cli.board import Board, RunView
from prism_cli.exits import BAD_INPUT, CommandFailed
from tests.unit.cli.views import run_view


class LateBoard:
    """Knows the run from the n-th look on."""

    def __init__(self, from_look: int) -> None:
        self._from_look = from_look
        self._looks = 0

    def refresh(self) -> None:
        self._looks += 1

    def run(self, _run_id: str) -> RunView | None:
        return run_view() if self._looks >= self._from_look else None

    def poll(self, _timeout_s: float) -> int:
        return 0


def board(from_look: int) -> Board:
    return cast(Board, LateBoard(from_look))


def seconds() -> Iterator[float]:
    yield from (float(number) for number in range(1000))


def test_it_is_waited_for_while_files_wait() -> None:
    ticks = seconds()
    assert await_run(board(4), "t1", lambda: True, 20.0, lambda: next(ticks)) is not None


def test_a_file_taken_up_between_two_looks_is_seen() -> None:
    assert await_run(board(1), "t1", lambda: False) is not None


def test_nothing_waits_so_it_never_comes() -> None:
    assert await_run(board(2), "t1", lambda: False) is None


def test_files_that_nobody_takes_up_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    ticks = seconds()
    with pytest.raises(CommandFailed) as caught:
        await_run(board(1000), "t1", lambda: True, 20.0, lambda: next(ticks))
    assert caught.value.code == BAD_INPUT
    assert "nobody takes them up" in str(caught.value)
    assert capsys.readouterr().err.count("not yet taken up") == 1
