"""What stands over the runner for a moment: help, and the question before leaving."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from prism_cli.runner import texts
from prism_cli.runner.widgets import Lines

_BOX = """
    align: center middle;
    & > Static {
        width: 72; max-width: 95%; height: auto; max-height: 100%; padding: 0 2;
        background: ansi_default; border: round ansi_cyan; border-title-style: bold;
    }
"""
_HELP = (
    ("↑ ↓", "choose; below the last item is the field"),
    ("Enter", "take it and go on"),
    ("Tab", "to the field, to the preview (↑ ↓ scroll it), and back"),
    ("Esc, b", "back; what was entered is kept"),
    ("r", "look again: at the servers, at the files"),
    ("c", "input: copy the table into the project, or use it where it lies"),
    ("s", "start: ask a sample, or do not wait for it"),
    ("q", "leave; nothing was started, nothing is lost but the answers"),
    ("?", "this help; Esc closes it"),
    ("", ""),
    ("flags", "every answer can be given as a flag: prism runner --help"),
    ("again", "the job file in the project repeats a run: prism run projects/NAME/job.yaml"),
)


class Help(ModalScreen[None]):
    """The keys."""

    DEFAULT_CSS = f"Help {{ {_BOX} }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,b,question_mark,enter,space", "close", "close"),
    ]

    def compose(self) -> ComposeResult:
        box = Lines("told")
        box.border_title = "help"
        box.show(lambda width: texts.facts(_HELP, width))
        yield box

    def action_close(self) -> None:
        """Go back."""
        self.dismiss()


class Leaving(ModalScreen[bool]):
    """Are you sure?"""

    DEFAULT_CSS = f"Leaving {{ {_BOX} }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,q,enter", "close(True)", "leave"),
        Binding("n,b,escape", "close(False)", "stay"),
    ]

    def compose(self) -> ComposeResult:
        box = Lines("told")
        box.border_title = "leave?"
        what = "Nothing was started, so no run is lost: only these answers are."
        keys = (("y, Enter", "leave"), ("n, Esc", "stay"))
        box.show(lambda width: [*map(Text, texts.folded(what, width)), Text(""), *texts.facts(keys, width)])
        yield box

    def action_close(self, sure: bool) -> None:
        """Answer."""
        self.dismiss(sure)
