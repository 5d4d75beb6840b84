"""What stands over the dashboard for a moment: help, failures, and the question before a cancel."""

from collections.abc import Callable
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from prism_cli.dashboard import frame
from prism_cli.dashboard.picture import Picture

_BOX = """
    align: center middle;
    & > VerticalScroll {
        width: 90%; max-width: 100; height: auto; max-height: 100%; padding: 0 1;
        background: ansi_default; border: round ansi_cyan; border-title-style: bold;
        scrollbar-size: 0 0;
    }
"""


class Written:
    """Lines that are made when the width is known."""

    def __init__(self, write: Callable[[int], list[Text]]) -> None:
        self._write = write

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n", no_wrap=True, overflow="crop").join(self._write(options.max_width))


class _Box(ModalScreen[None]):
    """A box that any of its keys closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f,question_mark,enter,space", "close", "close"),
    ]
    AUTO_FOCUS = "VerticalScroll"  # so that the arrows scroll it
    TITLE_TEXT = ""

    def compose(self) -> ComposeResult:
        """Make the box."""
        box = VerticalScroll(Static(Written(self.lines), markup=False))
        box.border_title = self.TITLE_TEXT
        yield box

    def lines(self, width: int) -> list[Text]:
        """Return what stands in the box."""
        raise NotImplementedError

    def action_close(self) -> None:
        """Go back to the dashboard."""
        self.dismiss()


class Help(_Box):
    """The keys and the words."""

    DEFAULT_CSS = f"Help {{ {_BOX} }}"
    TITLE_TEXT = "help"

    def lines(self, width: int) -> list[Text]:
        return frame.help_lines(width)


class Failures(_Box):
    """What failed, and where it will be written."""

    DEFAULT_CSS = f"Failures {{ {_BOX} }}"
    TITLE_TEXT = "failures"

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self._picture = picture

    def lines(self, width: int) -> list[Text]:
        return frame.failure_lines(self._picture, width)

    def show(self, picture: Picture) -> None:
        """Draw anew."""
        self._picture = picture
        self.query_one(Static).update(Written(self.lines))


class Confirmation(ModalScreen[bool]):
    """Are you sure?"""

    DEFAULT_CSS = f"Confirmation {{ {_BOX} & > VerticalScroll {{ border: round ansi_red; }} }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "sure", "cancel the run"),
        Binding("n,escape,q,enter,c", "unsure", "go on"),
    ]

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def compose(self) -> ComposeResult:
        """Make the box."""
        box = VerticalScroll(
            Static(Written(lambda width: frame.cancel_lines(self._run_id, width)), markup=False)
        )
        box.border_title = "cancel the run?"
        yield box

    def action_sure(self) -> None:
        """Cancel it."""
        self.dismiss(True)

    def action_unsure(self) -> None:
        """Go on."""
        self.dismiss(False)
