"""The dashboard on a terminal: a Textual application that draws pictures and hands on keys, no more.

It runs in the main thread and touches no topic; the follower reads them in its own thread and posts pictures.
The terminal is given back in every case: a signal ends the application first, and is then raised again as if
nobody had caught it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.driver import Driver
from textual.message import Message
from textual.widgets import Static

from prism.messages import CommandName
from prism_cli import terminal
from prism_cli.board import Board, RunView
from prism_cli.console import messages
from prism_cli.dashboard import crew, frame, overview, tallies
from prism_cli.dashboard.dialogs import Confirmation, Failures, Help
from prism_cli.dashboard.follower import Follower
from prism_cli.dashboard.picture import Picture

Draw = Callable[[Picture, int], list[Text]]
# From here on there is room for two columns.
_WIDE = 132
_TALL = 36
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KEPT_SIGNALS = (
    *_ENDING_SIGNALS,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def follow(board: Board, run_id: str, timeout_s: float | None = None) -> RunView:
    """Show a run until it has ended; return it then, with its last look left in the scrollback.

    Raises TimedOut after the time, KeyboardInterrupt when somebody leaves.
    """
    view = board.run(run_id)
    if view is not None and view.ended:
        return _ended_before(board, view)
    app = Dashboard(run_id)
    follower = Follower(board, run_id, app.take, app.finish, timeout_s)
    app.follower = follower
    with _signals_kept():
        app.run(mouse=False)
    follower.leave()
    follower.join()
    if app.caught is not None:
        os.kill(os.getpid(), app.caught)
    return _outcome(app, follower)


def _ended_before(board: Board, view: RunView) -> RunView:
    board.refresh()
    view = board.run(view.run_id) or view
    workers = tuple(board.workers())
    show_last(Picture(view.run_id, view, datetime.now(UTC), workers, folder=board.connection.data_dir))
    return view


def _outcome(app: "Dashboard", follower: Follower) -> RunView:
    for failure in (follower.failure, app.crash):
        if failure is not None:
            raise failure
    picture = follower.last
    if picture is None or picture.view is None or not picture.ended:
        raise KeyboardInterrupt
    show_last(picture)
    return picture.view


def show_last(picture: Picture) -> None:
    """Print the last look of a run to stderr."""
    console = messages()
    lines = frame.farewell(picture, min(console.width, 120), console.height)
    console.print(Text("\n").join(lines), soft_wrap=True)


@contextmanager
def _signals_kept() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _KEPT_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


class Drawing:
    """A panel's lines, made when the width is known."""

    def __init__(self, draw: Draw, picture: Picture) -> None:
        self._draw = draw
        self._picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n", no_wrap=True, overflow="crop").join(self._draw(self._picture, options.max_width))


class Lines(Static):
    """Lines that are as high as they need to be."""

    def __init__(self, draw: Draw, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._draw = draw

    def show(self, picture: Picture) -> None:
        """Draw anew."""
        self.update(Drawing(self._draw, picture))


class Panel(VerticalScroll):
    """Lines under a title, scrolled where they do not fit; the title says how much is out of sight."""

    def __init__(self, title: str | Callable[[Picture], str], draw: Draw, id: str) -> None:
        super().__init__(id=id)
        self._title = title
        self._said = title if isinstance(title, str) else ""
        self._lines = Lines(draw)

    def compose(self) -> ComposeResult:
        yield self._lines

    def show(self, picture: Picture) -> None:
        """Draw anew."""
        self._said = self._title if isinstance(self._title, str) else self._title(picture)
        self._lines.show(picture)
        self.call_after_refresh(self._entitle)

    def on_resize(self) -> None:
        """Say anew what is out of sight."""
        self.call_after_refresh(self._entitle)

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Say anew what is out of sight."""
        super().watch_scroll_y(old, new)
        self._entitle()

    def _entitle(self) -> None:
        above = round(self.scroll_offset.y)
        below = max(0, self.virtual_size.height - self.container_viewport.height - above)
        hidden = " ".join(f"{mark}{number}" for mark, number in (("↑", above), ("↓", below)) if number > 0)
        self.border_title = f" {self._said}  {hidden} " if hidden else f" {self._said} "

    @property
    def container_viewport(self):  # type: ignore[no-untyped-def]
        """The lines that are in sight."""
        return self.scrollable_content_region


class Dashboard(App[None]):
    """One run. `caught`: the signal that ended it, `crash`: a mistake of its own."""

    CSS = """
    #head { height: auto; max-height: 9; padding: 0 1; }
    #keys { height: 1; dock: bottom; padding: 0 1; }
    #main { height: 1fr; layout: vertical; overflow: hidden; padding: 0 1; }
    #left { height: auto; }
    #right { height: 1fr; min-height: 3; layout: horizontal; }
    Panel {
        height: auto; scrollbar-size: 0 0; background: ansi_default;
        border-top: solid ansi_bright_black;
        border-title-color: ansi_default; border-title-style: bold; border-title-background: ansi_default;
    }
    Panel:focus { border-top: solid ansi_cyan; border-title-color: ansi_cyan; }
    Panel.bad { border-title-color: ansi_red; }
    #labels, #events { width: 1fr; height: 1fr; }
    #labels { margin-right: 2; }
    #failures, #servers, #speed, #past { display: none; }
    #progress { max-height: 5; }
    #workers { max-height: 7; }
    .-tall #progress { max-height: 12; }
    .-tall #workers { max-height: 14; }
    .-wide #main { layout: horizontal; }
    .-wide #left { width: 3fr; height: 100%; margin-right: 2; }
    .-wide #right { width: 2fr; height: 100%; layout: vertical; }
    .-wide #labels { margin-right: 0; width: 100%; }
    .-wide #failures, .-wide #servers, .-wide #speed { display: block; max-height: 9; }
    .-wide #past { display: block; height: 1fr; min-height: 4; }
    .-wide #reasons, .-wide #events { display: none; }
    .-wide #workers { max-height: 50%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "leave"),
        Binding("ctrl+c", "leave", "leave", priority=True, show=False),
        Binding("ctrl+q", "leave", "leave", priority=True, show=False),
        Binding("ctrl+z", "suspend_process", "suspend", show=False),
        Binding("p", "pause", "pause"),
        Binding("r", "resume", "resume"),
        Binding("c", "cancel", "cancel"),
        Binding("f", "failures", "failures"),
        Binding("question_mark", "help", "help"),
        Binding("h", "help", "help", show=False),
    ]
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (_WIDE, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (_TALL, "-tall")]

    class Taken(Message):
        """A new picture."""

        def __init__(self, picture: Picture) -> None:
            super().__init__()
            self.picture = picture

    class Finished(Message):
        """There is nothing more to follow."""

    def __init__(self, run_id: str) -> None:
        super().__init__(ansi_color=True)
        self.follower: Follower | None = None
        self.picture: Picture | None = None
        self.caught: int | None = None
        self.crash: Exception | None = None
        self._run_id = run_id

    def compose(self) -> ComposeResult:
        """Make the panels."""
        yield Lines(overview.header, id="head")
        with Container(id="main"):
            with Vertical(id="left"):
                yield Panel("progress", overview.progress, id="progress")
                yield Panel("rows/s", overview.speed_line, id="speed")
                yield Lines(overview.figures, id="figures")
                yield Lines(tallies.failures_line, id="reasons")
                yield Panel(crew.workers_title, crew.workers, id="workers")
                yield Panel("what happened", tallies.events, id="past")
            with Container(id="right"):
                yield Panel("labels", tallies.labels, id="labels")
                yield Panel("failed rows", tallies.failures, id="failures")
                yield Panel("model server", crew.servers, id="servers")
                yield Panel("what happened", tallies.events, id="events")
        yield Lines(frame.keys, id="keys")

    def get_driver_class(self) -> type[Driver]:
        """Return the driver, with the size of the terminal that is drawn on: stdout may be a file."""
        return _sized_by_stderr(super().get_driver_class())

    def on_mount(self) -> None:
        """Begin to follow."""
        for number in _ENDING_SIGNALS:
            # What is ignored, as under nohup, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        self.set_interval(terminal.LOOK_S, self._mind_the_terminal)
        if self.follower is not None:
            self.follower.start()

    def _on_signal(self, number: int) -> None:
        if number != signal.SIGINT:
            self.caught = number
        self.action_leave()

    def _mind_the_terminal(self) -> None:
        if terminal.is_gone():
            self._on_signal(signal.SIGHUP)

    def take(self, picture: Picture) -> None:
        """Show a picture soon. From any thread."""
        self.post_message(self.Taken(picture))

    def finish(self) -> None:
        """End: there is nothing more to follow. From any thread."""
        self.post_message(self.Finished())

    def on_dashboard_taken(self, message: Taken) -> None:
        """Draw."""
        self.picture = picture = message.picture
        for lines in self.screen_stack[0].query(Lines):
            if not isinstance(lines.parent, Panel):
                lines.show(picture)
        for panel in self.screen_stack[0].query(Panel):
            panel.show(picture)
        silent = crew.silent(picture)
        self.screen_stack[0].query_one("#workers").set_class(bool(silent), "bad")
        if isinstance(self.screen, Failures):
            self.screen.show(picture)

    def on_dashboard_finished(self, message: Finished) -> None:
        """End."""
        del message
        self.exit()

    def action_leave(self) -> None:
        """Leave; the run goes on."""
        if self.follower is not None:
            self.follower.leave()
        self.exit()

    def action_pause(self) -> None:
        """Ask the run to pause."""
        self._order(CommandName.PAUSE)

    def action_resume(self) -> None:
        """Ask the run to go on."""
        self._order(CommandName.RESUME)

    def action_cancel(self) -> None:
        """Ask, then cancel the run."""
        if self._going_on():
            self.push_screen(Confirmation(self._run_id), self._cancel)

    def _cancel(self, sure: bool | None) -> None:
        if sure:
            self._order(CommandName.CANCEL)

    def _order(self, command: CommandName) -> None:
        if self._going_on() and self.follower is not None:
            self.follower.order(command)

    def _going_on(self) -> bool:
        return self.picture is not None and self.picture.view is not None and not self.picture.ended

    def action_failures(self) -> None:
        """Show what failed."""
        if self.picture is not None:
            self.push_screen(Failures(self.picture))

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def _handle_exception(self, error: Exception) -> None:
        # A mistake is told in one line by `main`, not as a traceback on the terminal.
        self.crash = self.crash or error
        super()._handle_exception(error)
        self._exit_renderables.clear()


def _sized_by_stderr(driver: type[Driver]) -> type[Driver]:
    if sys.__stdout__ is not None and sys.__stdout__.isatty():
        return driver

    class Sized(driver):  # type: ignore[misc,valid-type]
        """Asks the terminal behind stderr for its size."""

        def _get_terminal_size(self) -> tuple[int, int]:
            try:
                found = os.get_terminal_size(sys.__stderr__.fileno() if sys.__stderr__ else 2)
            except (OSError, ValueError):
                return 80, 24
            return found.columns, found.lines

    return Sized
