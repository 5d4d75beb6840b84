"""The runner on a terminal: a Textual application that hands keys to a wizard and shows its pages, no more.

One thread owns wizard, sheet and errands; what the errands' threads find comes to it as a message.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Event, Key
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input

from prism_cli import terminal
from prism_cli.runner import pages
from prism_cli.runner.boxes import Help, Leaving
from prism_cli.runner.choices import Choices, Step, Wrong
from prism_cli.runner.errands import REFUSED, Errands, told
from prism_cli.runner.look import CSS
from prism_cli.runner.pages import Item, Page
from prism_cli.runner.sheet import Sheet
from prism_cli.runner.widgets import Choosing
from prism_cli.runner.wizard import Wizard, World

# What begins a number or a path.
_BEGINS = frozenset("0123456789-./~")
# From here on there is room for a preview beside the question.
_WIDE = 120


class Runner(App[bool]):
    """The wizard's pages. Returns whether a run is to be started. `crash`: a mistake of its own,
    `caught`: the signal that ended it.
    """

    CSS = CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "go_back", "back"),
        Binding("b", "go_back", "back", show=False),
        Binding("q", "leave", "leave"),
        Binding("ctrl+c", "leave", "leave", priority=True, show=False),
        Binding("ctrl+q", "leave", "leave", priority=True, show=False),
        Binding("question_mark", "help", "help"),
        Binding("r", "look_again", "look again", show=False),
        Binding("c", "copy", "copy", show=False),
        Binding("s", "sample", "sample", show=False),
        Binding("up", "to_items", "", show=False),
    ]
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (_WIDE, "-wide")]

    class Found(Message):
        """A thread has come back."""

        def __init__(self, take: Callable[[], None]) -> None:
            super().__init__()
            self.take = take

    def __init__(self, wizard: Wizard, world: World) -> None:
        super().__init__(ansi_color=True)
        self.crash: Exception | None = None
        self.caught: int | None = None
        self._wizard = wizard
        self._errands = Errands(self, wizard, world)
        self._sheet = Sheet(wizard, self._errands)
        self._typed: dict[Step, str] = {}

    def compose(self) -> ComposeResult:
        yield self._sheet

    def on_mount(self) -> None:
        """Ask the first question; give the terminal back when a signal comes."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Not in the main thread, as in tests: then somebody else looks after signals.
            with suppress(RuntimeError, ValueError, NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        self.set_interval(terminal.LOOK_S, self._mind_the_terminal)
        self.arrive()

    def _on_signal(self, number: int) -> None:
        self.caught = number
        self._leave(True)

    def _mind_the_terminal(self) -> None:
        if terminal.is_gone():
            self._on_signal(signal.SIGHUP)

    # What errands see

    def arrive(self) -> None:
        """Show the question that is next, from its beginning."""
        if self._wizard.done:
            self.exit(True)
            return
        step = self._wizard.step
        try:
            page = self._wizard.page()
        except REFUSED as error:
            # What the files here say is wrong: it stands there until they are mended.
            self._show(Page("This cannot go on", "Mend it, then press r.", ()))
            self.say(told(error), bad=True)
            return
        self._show(page)
        if step is Step.MODEL and self._wizard.models is None:
            self._errands.ask_models()
        if step is Step.CONFIRM:
            self._errands.begin_sample(of_itself=True)
        flag = self._wizard.told.pop(step, None)
        if flag is not None:
            self._typed[step] = flag
            self._sheet.enter(flag)
            self._submit(flag)
        elif step is Step.INPUT and self._sheet.items.item is not None:
            self._look_at_chosen(self._sheet.items.item)

    def _show(self, page: Page) -> None:
        self._sheet.show(page, self._typed.get(self._wizard.step, ""))

    def renew(self) -> None:
        """Show the same question with what is known now, and the same choice."""
        self._sheet.renew(self._wizard.page())

    def draw(self) -> None:
        """Draw the sheet anew."""
        self._sheet.draw()

    def draw_preview(self) -> None:
        """Draw anew what is known of what is chosen."""
        self._sheet.draw_preview()

    def say(self, text: str, bad: bool = False) -> None:
        """Put a line below the field."""
        self._sheet.say(text, bad)

    def post(self, take: Callable[[], None]) -> None:
        """Have something done by the screen's thread, unless the screen has gone. For any thread."""
        with suppress(RuntimeError):
            self.post_message(self.Found(take))

    def on_runner_found(self, message: Found) -> None:
        """Take what a thread has found."""
        message.take()

    # Answers

    def on_choosing_moved(self) -> None:
        """Show what is chosen now, and look at it if it is a table."""
        self.say("")
        item = self._sheet.items.item
        if item is not None and self._wizard.step is Step.INPUT:
            self._look_at_chosen(item)
        self.draw_preview()

    def _look_at_chosen(self, item: Item) -> None:
        path = self._wizard.table_of(item)
        # In folders nobody wants every table checked that is passed by.
        if path is not None and self._wizard.browsing is None and self._wizard.inspection(path) is None:
            self._errands.check(path, None)

    async def on_event(self, event: Event) -> None:
        """Take Enter, and what begins a number or a path, from the list at once.

        The list would answer by a message, which stands behind the keys that were typed ahead: these would
        still go to the list, and not to the field or the question that Enter leads to.
        """
        if isinstance(event, Key) and not event.is_forwarded and isinstance(self.focused, Choosing):
            if event.key in ("enter", "space"):
                self._take()
                return
            if event.character is not None and event.character in _BEGINS and self._sheet.has_field:
                self._sheet.focus_on(self._sheet.field)
        await super().on_event(event)

    def _take(self) -> None:
        """Take what is chosen."""
        item = self._sheet.items.item
        if item is None:
            return
        if self._wizard.wants_field(item):
            self._sheet.focus_on(self._sheet.field)
            return
        if item.id == pages.SAMPLE and self._wizard.step is Step.CONFIRM:
            self.action_sample()
            return
        path = self._wizard.needs(item)
        if path is not None:
            self._errands.check(path, lambda: self._try(lambda: self._wizard.choose(item)))
            return
        self._try(lambda: self._wizard.choose(item))

    def on_choosing_left(self) -> None:
        """Go to the field below the list."""
        if self._sheet.has_field:
            self._sheet.focus_on(self._sheet.field)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say what is made of it."""
        self._typed[self._wizard.step] = event.value
        if not event.value.strip():
            self.say("")
            return
        try:
            self.say(self._wizard.check(event.value))
        except Wrong as error:
            self.say(str(error), bad=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take what was typed."""
        self._submit(event.value)

    def _submit(self, text: str) -> None:
        if self._wizard.step is not Step.INPUT:
            self._try(lambda: self._wizard.type(text))
            return
        try:
            path = self._wizard.typed_table(text)
        except Wrong as error:
            self.say(str(error), bad=True)
            return
        self._errands.check(path, lambda: self._try(lambda: self._wizard.type(text)))

    def _try(self, answer: Callable[[], None]) -> None:
        """Let the wizard take an answer; say why it does not."""
        before = self._wizard.step
        try:
            answer()
        except REFUSED as error:
            self.say(told(error), bad=True)
            return
        if before is Step.PROJECT:
            # Another project may have other models.
            self._wizard.models = None
        self._errands.skip()
        self.arrive()

    # Keys

    def action_go_back(self) -> None:
        """Go back; at the first question there is nothing to go back to."""
        self._errands.skip()
        if self._wizard.back():
            self.arrive()
        else:
            self.action_to_items()

    def action_leave(self) -> None:
        """Leave; nothing was started."""
        if self._wizard.choices == Choices():
            self._leave(True)
        elif not isinstance(self.screen, ModalScreen):
            self.push_screen(Leaving(), self._leave)

    def _leave(self, sure: bool | None) -> None:
        if sure:
            self._errands.skip()
            self.exit(False)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_to_items(self) -> None:
        """Go from the field to the list."""
        if self._sheet.field.has_focus:
            self._sheet.focus_on(self._sheet.items)

    def action_copy(self) -> None:
        """Use the table where it lies, or a copy."""
        if self._wizard.step is Step.INPUT:
            self._wizard.toggle_copy()
            copied = self._wizard.choices.copy
            self.say("it will be copied into the project" if copied else "it is used where it lies")
            self.draw()

    def action_look_again(self) -> None:
        """Ask the servers again, look at the folders again."""
        if self._wizard.step is Step.MODEL:
            self._errands.ask_models()
        else:
            self.arrive()

    def action_sample(self) -> None:
        """Ask a sample, or wait for it no longer."""
        if self._wizard.step is Step.CONFIRM:
            self._errands.toggle_sample()

    def _handle_exception(self, error: Exception) -> None:
        # A mistake is told in one line by `main`, not as a traceback on the terminal.
        self.crash = self.crash or error
        super()._handle_exception(error)
        self._exit_renderables.clear()
