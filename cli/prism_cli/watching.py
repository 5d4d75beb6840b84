"""Following one run to its end: the dashboard on a terminal, a line now and then elsewhere."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prism.messages import RunState
from prism_cli import connection as connections
from prism_cli.arrival import known_run
from prism_cli.board import Board, RunView, WorkerView
from prism_cli.console import count, duration, interactive, messages, printable, say, write_json, write_line
from prism_cli.exits import BAD_INPUT, DONE, FAILED, FAILED_ROWS, CommandFailed
from prism_cli.outputs import local_path
from prism_cli.status import explanation, rows_text, state_text

_FRAME_S = 0.25
_LINE_S = 5.0
# An ingestor that is there takes a file up at once; after this it is worth a word.
_PATIENCE_S = 10.0

Clock = Callable[[], float]


class Screen(Protocol):
    """Where a run's course is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def show(self, run_id: str, view: RunView | None, workers: list[WorkerView]) -> None: ...


def run(options: Namespace) -> int:
    """Follow a run, by default the newest that has not ended, and exit as it ended."""
    connection = connections.connect(options)
    board = Board(connection)
    try:
        board.catch_up()
        wanted = options.run_id
        run_id = known_run(board, connection, wanted).run_id if wanted else _newest_unended(board)
        return finish(attend(board, run_id, plain=options.plain), connection.data_dir, options.json)
    finally:
        board.close()


def _newest_unended(board: Board) -> str:
    for view in board.runs():
        if not view.ended:
            return view.run_id
    raise CommandFailed(
        BAD_INPUT, "no run is under way", next="name one that has ended, or send one: prism submit"
    )


def attend(
    board: Board,
    run_id: str,
    timeout_s: float | None = None,
    *,
    plain: bool = False,
    parting: str | None = None,
) -> RunView:
    """Follow a run, on a terminal with the whole dashboard, and return it when it has ended.

    :param plain: lines, whatever the terminal can do.
    :param parting: what whoever breaks off is told; by default that the run goes on, which is true of a fleet
        that is not ours.

    Raises CommandFailed (1) after the time, KeyboardInterrupt when somebody leaves.
    """
    try:
        if full_screen() and not plain:
            return _follow_on_screen(board, run_id, timeout_s)
        return follow(board, run_id, timeout_s, shown=LineScreen() if plain else screen())
    except KeyboardInterrupt:
        say(parting if parting is not None else f"{run_id} goes on; follow it again: prism watch {run_id}")
        raise


def full_screen() -> bool:
    """Return whether the dashboard can be drawn on stderr, and its keys read from stdin."""
    keyboard = sys.__stdin__ is not None and not sys.__stdin__.closed and sys.__stdin__.isatty()
    return os.name == "posix" and keyboard and interactive(messages())


def _follow_on_screen(board: Board, run_id: str, timeout_s: float | None) -> RunView:
    # Textual takes a third of a second to import: nobody without a terminal should pay for it.
    from prism_cli.dashboard import follower
    from prism_cli.dashboard import screen as dashboard

    try:
        return dashboard.follow(board, run_id, timeout_s)
    except follower.TimedOut:
        raise _late(run_id, timeout_s) from None


def follow(
    board: Board,
    run_id: str,
    timeout_s: float | None = None,
    clock: Clock = time.monotonic,
    shown: Screen | None = None,
) -> RunView:
    """Show a run until it has ended; return it then. Raises CommandFailed (1) after the time."""
    started = clock()
    with shown or screen() as shown:
        while True:
            view = board.run(run_id)
            if view is not None and view.ended:
                board.refresh()
                view = board.run(run_id) or view
            shown.show(run_id, view, board.workers())
            if view is not None and view.ended:
                return view
            if timeout_s is not None and clock() - started > timeout_s:
                raise _late(run_id, timeout_s)
            board.poll(_FRAME_S)


def _late(run_id: str, timeout_s: float | None) -> CommandFailed:
    return CommandFailed(
        FAILED,
        f"{run_id} has not ended within {timeout_s or 0:g} s",
        "it goes on",
        f"prism watch {run_id}",
    )


def leave_running(board: Board, run_id: str, as_json: bool) -> int:
    """Say what goes on without us, once it is taken up. Raises CommandFailed (3) if nobody does."""
    view = known_run(board, board.connection, run_id)
    if as_json:
        write_json(view.as_json(board.connection.data_dir))
    else:
        write_line(run_id)
        say(f"follow it: prism watch {run_id}")
    return DONE


def finish(view: RunView, data_dir: Path, as_json: bool) -> int:
    """Print what came of a run and return the exit code that says the same."""
    if as_json:
        write_json(view.as_json(data_dir))
    else:
        for one in view.progress.outputs:
            write_line(local_path(one, data_dir))
    return say_end(view)


def say_end(view: RunView) -> int:
    """Say how a run ended and return the exit code that says the same."""
    if view.state in (RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES):
        say(f"{view.run_id} {view.state.value}: {rows_text(view)}{_withheld(view)}")
        return FAILED_ROWS if view.progress.rows_failed else DONE
    why = explanation(view)
    say(f"prism: {view.run_id} {view.state.value}{': ' if why else ''}{why}")
    return FAILED if view.state is RunState.CANCELLED else BAD_INPUT


def _withheld(view: RunView) -> str:
    return "" if view.progress.outputs else f"; no output: {explanation(view) or 'see its manifest'}"


def screen() -> Screen:
    """Return the screen that fits stderr."""
    console = messages()
    return MovingScreen(console) if interactive(console) else LineScreen()


class MovingScreen:
    """A few lines that are drawn anew."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, run_id: str, view: RunView | None, workers: list[WorkerView]) -> None:
        self._live.update(moving(run_id, view, workers), refresh=True)


def moving(run_id: str, view: RunView | None, workers: list[WorkerView]) -> RenderableType:
    """Return state, bar, speed, failures, workers and why nothing moves."""
    head = Text(run_id, style="bold", overflow="fold")
    if view is None:
        return Group(head.append("  sent, not yet taken up", style="cyan"))
    head.append("  ").append_text(state_text(view))
    lines: list[RenderableType] = [head, _bar(view)]
    if view.progress.rows_failed:
        lines.append(Text(rows_text(view), style="yellow"))
    if view.record.stalled and not view.ended:
        lines.append(Text(f"stalled: {printable(view.record.stalled)}", style="red"))
    if not view.ended:
        lines.append(Text(workers_line(workers), style="dim"))
    return Group(*lines)


def _bar(view: RunView) -> RenderableType:
    rows = view.record.rows
    share = view.rows_done / rows if rows else float(view.state is RunState.COMPLETED)
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(ProgressBar(total=1.0, completed=share), Text(_figures(view, share)))
    return line


def _figures(view: RunView, share: float) -> str:
    figures = f"{share:4.0%}  {count(view.rows_done)}/{count(view.record.rows)}  {view.rows_per_s:.1f} rows/s"
    if view.progress.eta_s is not None and not view.ended:
        figures += f"  {duration(view.progress.eta_s)} left"
    return figures


def workers_line(workers: list[WorkerView]) -> str:
    """Return how many workers there are and what they do."""
    living = [one.heartbeat for one in workers if not one.lost]
    if not living:
        return "no model worker is running"
    calls = sum(len(one.in_flight) for one in living)
    text = f"{len(living)} worker{'s' if len(living) > 1 else ''}, {calls} calls under way"
    waiting = [printable(one.reason, 80) for one in living if one.reason]
    lost = len(workers) - len(living)
    text += f", {lost} silent" if lost else ""
    return f"{text}, waiting: {waiting[0]}" if waiting else text


class LineScreen:
    """A line when the state changes, and every few seconds."""

    def __init__(self, clock: Clock = time.monotonic, write: Callable[[str], None] = say) -> None:
        self._clock = clock
        self._write = write
        self._last: tuple[object, ...] = ()
        self._at = clock()
        self._since = clock()
        self._warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, run_id: str, view: RunView | None, workers: list[WorkerView]) -> None:
        now = self._clock()
        if view is None:
            if now - self._since > _PATIENCE_S and not self._warned:
                self._warned = True
                self._write(f"{run_id} is not yet taken up; is an ingestor running? prism doctor")
            return
        state = (view.state, view.record.stalled)
        if view.ended or (state == self._last and now - self._at < _LINE_S):
            return
        self._last, self._at = state, now
        self._write(plain_line(view, workers))


def plain_line(view: RunView, workers: list[WorkerView]) -> str:
    """Return a run's course in one line."""
    parts = [f"{view.run_id} {state_text(view).plain}: {rows_text(view)}"]
    if view.record.stalled:
        parts.append(printable(view.record.stalled))
    elif view.rows_per_s:
        parts.append(f"{view.rows_per_s:.1f} rows/s")
    if view.progress.eta_s is not None:
        parts.append(f"{duration(view.progress.eta_s)} left")
    return ", ".join([*parts, workers_line(workers)])
