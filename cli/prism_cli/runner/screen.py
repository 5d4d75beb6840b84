"""The runner on a terminal: a Textual application that draws a wizard's pages and hands on keys, no more.

What takes time runs in threads: one that checks tables, one that asks servers, one that asks a sample. Each
posts what it found; what nobody waits for any more is dropped by the wizard, which knows what it is for.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Input, Static

from prism.annotation.prompt_file import PromptRefused
from prism.runs.catalogue import CatalogueRefused
from prism.runs.job import JobRefused
from prism.runs.project_settings import SettingsRefused
from prism_cli.console import printable
from prism_cli.exits import CommandFailed
from prism_cli.runner import pages, texts
from prism_cli.runner.boxes import Help, Leaving
from prism_cli.runner.choices import Choices, Step, Wrong
from prism_cli.runner.look import CSS, head_line, title_lines
from prism_cli.runner.outlook import Skipped
from prism_cli.runner.pages import Item, Page
from prism_cli.runner.texts import DIM, Expected
from prism_cli.runner.widgets import Choosing, Draw, Lines, Preview
from prism_cli.runner.wizard import Wizard, World

# From here on there is room for a preview beside the question.
_WIDE = 120
_REFUSED = (Wrong, CommandFailed, PromptRefused, CatalogueRefused, JobRefused, SettingsRefused)


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
        self._world = world
        self._page: Page | None = None
        self._typed: dict[Step, str] = {}
        self._checking: Path | None = None
        # What is done as soon as a table was looked at.
        self._then: Callable[[], None] | None = None
        self._asking_models = False
        self._sampling: Choices | None = None
        self._sample_told = ""
        # Checks read whole files, and look after each other's threads: never two beside one another.
        self._one_at_a_time = threading.Lock()

    def compose(self) -> ComposeResult:
        yield Lines("head")
        yield Lines("trail")
        with Container(id="main"):
            with Vertical(id="left"):
                yield Lines("title")
                yield Choosing("items")
                with Horizontal(id="entry"):
                    yield Static("› ", id="mark", markup=False)
                    yield Input(id="field", select_on_focus=False)
                yield Lines("reason")
                with VerticalScroll(id="answers", can_focus=False) as box:
                    box.border_title = " so far "
                    yield Lines("decided")
            with Container(id="right"), Preview(id="preview"):
                yield Lines("shown")
        yield Lines("keys")

    def on_mount(self) -> None:
        """Ask the first question; give the terminal back when a signal comes."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Not in the main thread, as in tests: then somebody else looks after signals.
            with suppress(RuntimeError, ValueError, NotImplementedError):
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        self._arrive()

    def _on_signal(self, number: int) -> None:
        self.caught = number
        self._leave(True)

    def on_resize(self, event: Resize) -> None:
        del event
        if self._page is not None:
            self.call_after_refresh(self._draw_preview)

    # Drawing

    def _arrive(self) -> None:
        """Show the question that is next, from its beginning."""
        if self._wizard.done:
            self.exit(True)
            return
        step = self._wizard.step
        try:
            self._page = self._wizard.page()
        except _REFUSED as error:
            # What the files here say is wrong: it stands there until they are mended.
            self._page = Page("This cannot go on", "Mend it, then press r.", ())
            self._show_page()
            self._say(_told(error), bad=True)
            return
        self._show_page()
        if step is Step.MODEL and self._wizard.models is None:
            self._ask_models()
        if step is Step.CONFIRM:
            self._begin_sample(of_itself=True)
        told = self._wizard.told.pop(step, None)
        if told is not None:
            with self.prevent(Input.Changed):
                self._field.value = self._typed[step] = told
            self._submit(told)
        elif step is Step.INPUT and self._items.item is not None:
            self._look_at_chosen(self._items.item)

    def _show_page(self, keep: bool = False) -> None:
        page, step = self._page, self._wizard.step
        assert page is not None
        self._body.set_class(step is Step.CONFIRM, "-confirm")
        items = self._items
        at = items.at if keep else page.selected
        items.show(page.items, at)
        entry = self._body.query_one("#entry")
        entry.set_class(page.field is None, "-hidden")
        if not keep:
            self._field.placeholder = page.field or ""
            with self.prevent(Input.Changed):
                self._field.value = self._typed.get(step, "") if page.field is not None else ""
            self._say("")
            self._focus(items)
        self._draw()

    def _draw(self) -> None:
        wizard, page = self._wizard, self._page
        assert page is not None
        self._lines("head").show(lambda width: [head_line(wizard.choices, width)])
        self._lines("trail").show(lambda width: [texts.trail(wizard.step, wizard.choices, width)])
        self._lines("title").show(lambda width: title_lines(page, width))
        self._lines("keys").show(lambda width: [texts.keys(self._keys(), width)])
        self._lines("decided").show(lambda width: texts.answers(wizard.choices, wizard.models or (), width))
        self._draw_preview()

    def _keys(self) -> list[tuple[str, str]]:
        step = self._wizard.step
        told = [("Enter", "start" if step is Step.CONFIRM else "next")]
        told += [("Esc", "back")] if step is not Step.PROJECT else []
        if step is Step.INPUT and self._wizard.browsing is None:
            told.append(
                ("c", "use it where it lies" if self._wizard.choices.copy else "copy it into the project")
            )
        if step is Step.MODEL:
            told.append(("r", "look again"))
        if step is Step.CONFIRM and not self._wizard.is_foretold:
            told.append(("s", "skip the sample" if self._sampling is not None else "ask a sample"))
        return [*told, ("?", "help"), ("q", "leave")]

    def _draw_preview(self) -> None:
        title, draw = self._preview()
        panel = self._body.query_one(Preview)
        panel.display = bool(title)
        self._lines("shown").show(draw)
        panel.entitle(title)

    def _preview(self) -> tuple[str, Draw]:
        item, step = self._items.item, self._wizard.step
        if step is Step.CONFIRM:
            return "what will be done", self._summary
        if item is None:
            return "", lambda _: []
        if step is Step.INPUT:
            return self._preview_table(item)
        if step is Step.PROMPT:
            view = next((one for one in self._wizard.prompts() if one.pick.name == item.id), None)
            return (
                ("what it asks", lambda width: texts.prompt_lines(view, width))
                if view
                else ("", lambda _: [])
            )
        if step is Step.MODEL and self._wizard.models:
            option = self._wizard.models[int(item.id)]
            return "the model", lambda width: texts.model_lines(option, width)
        if step is Step.ROWS and self._wizard.seen is not None:
            seen = self._wizard.seen
            return "the table", lambda width: texts.table_lines(seen, width)
        return "", lambda _: []

    def _preview_table(self, item: Item) -> tuple[str, Draw]:
        path = self._wizard.table_of(item)
        if path is None:
            return "", lambda _: []
        known = self._wizard.inspection(path)
        if known is None:
            told = "being checked …" if self._checking == path else "Enter checks it"
            return "first rows", lambda _: [Text(told, DIM)]
        return "first rows", lambda width: texts.table_lines(known, width)

    def _summary(self, width: int) -> list[Text]:
        wizard = self._wizard
        outlook = wizard.outlook if wizard.is_foretold else None
        return texts.summary_lines(
            wizard.choices, wizard.models or (), Expected(outlook, self._sample_told, wizard.places()), width
        )

    def _say(self, text: str, bad: bool = False) -> None:
        """Put a line below the field."""
        mark, style = ("✗ ", "red") if bad else ("  ", DIM)
        clean = printable(text, 400)
        self._lines("reason").show(
            lambda width: (
                [
                    Text((mark if at == 0 else "  ") + part, style, no_wrap=True)
                    for at, part in enumerate(texts.folded(clean, width - 2)[:3])
                ]
                if clean
                else [Text("")]
            )
        )

    # Answers

    def on_choosing_moved(self) -> None:
        """Show what is chosen now, and look at it if it is a table."""
        self._say("")
        item = self._items.item
        if item is not None and self._wizard.step is Step.INPUT:
            self._look_at_chosen(item)
        self._draw_preview()

    def _look_at_chosen(self, item: Item) -> None:
        path = self._wizard.table_of(item)
        # In folders nobody wants every table checked that is passed by.
        if path is not None and self._wizard.browsing is None and self._wizard.inspection(path) is None:
            self._check(path, None)

    def on_choosing_taken(self) -> None:
        """Take what is chosen."""
        item = self._items.item
        if item is None:
            return
        if self._wizard.wants_field(item):
            self._focus(self._field)
            return
        if item.id == pages.SAMPLE and self._wizard.step is Step.CONFIRM:
            self.action_sample()
            return
        path = self._wizard.needs(item)
        if path is not None:
            self._check(path, lambda: self._try(lambda: self._wizard.choose(item)))
            return
        self._try(lambda: self._wizard.choose(item))

    def on_choosing_left(self) -> None:
        """Go to the field below the list."""
        if self._page is not None and self._page.field is not None:
            self._focus(self._field)

    def on_choosing_typed(self, message: Choosing.Typed) -> None:
        """Type it into the field."""
        if self._page is not None and self._page.field is not None:
            self._focus(self._field)
            self._field.insert_text_at_cursor(message.character)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say what is made of it."""
        self._typed[self._wizard.step] = event.value
        if not event.value.strip():
            self._say("")
            return
        try:
            self._say(self._wizard.check(event.value))
        except Wrong as error:
            self._say(str(error), bad=True)

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
            self._say(str(error), bad=True)
            return
        self._check(path, lambda: self._try(lambda: self._wizard.type(text)))

    def _try(self, answer: Callable[[], None]) -> None:
        """Let the wizard take an answer; say why it does not."""
        before = self._wizard.step, self._wizard.browsing
        try:
            answer()
        except _REFUSED as error:
            self._say(_told(error), bad=True)
            return
        if before[0] is Step.PROJECT:
            # Another project may have other models.
            self._wizard.models = None
        self._skip()
        self._arrive()

    def action_go_back(self) -> None:
        """Go back; at the first question there is nothing to go back to."""
        self._skip()
        if self._wizard.back():
            self._arrive()
        elif self._field.has_focus:
            self._focus(self._items)

    def action_leave(self) -> None:
        """Leave; nothing was started."""
        if self._wizard.choices == Choices():
            self._leave(True)
        elif not isinstance(self.screen, ModalScreen):
            self.push_screen(Leaving(), self._leave)

    def _leave(self, sure: bool | None) -> None:
        if sure:
            self._skip()
            self.exit(False)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_to_items(self) -> None:
        """Go from the field to the list."""
        if self._field.has_focus:
            self._focus(self._items)

    def action_copy(self) -> None:
        """Use the table where it lies, or a copy."""
        if self._wizard.step is Step.INPUT:
            self._wizard.toggle_copy()
            copied = self._wizard.choices.copy
            self._say("it will be copied into the project" if copied else "it is used where it lies")
            self._draw()

    def action_look_again(self) -> None:
        """Ask the servers again, look at the folders again."""
        if self._wizard.step is Step.MODEL:
            self._ask_models()
        else:
            self._arrive()

    # What takes time

    def _check(self, path: Path, then: Callable[[], None] | None) -> None:
        self._checking, self._then = path, then
        if then is not None:
            self._say("checking every row …")
        self._draw_preview()
        project = self._wizard.project

        def look() -> None:
            with self._one_at_a_time:
                if path != self._checking:
                    return
                seen = self._world.inspect(project, path)
            self._post(lambda: self._checked(path, lambda: self._wizard.know_table(seen)))

        self._in_thread(look)

    def _checked(self, path: Path, know: Callable[[], None]) -> None:
        know()
        if path != self._checking:
            return
        then, self._checking, self._then = self._then, None, None
        if then is not None:
            self._say("")
            then()
        if self._wizard.step is Step.INPUT and not self._wizard.done:
            self._refresh_page()

    def _ask_models(self) -> None:
        if self._asking_models:
            return
        self._asking_models = True
        self._say("asking the servers …")
        project = self._wizard.project

        def ask() -> None:
            try:
                found = self._world.models(project)
            except _REFUSED as error:
                told = _told(error)
                self._post(lambda: self._models_failed(told))
                return
            self._post(lambda: self._models_found(lambda: self._wizard.know_models(found)))

        self._in_thread(ask)

    def _models_found(self, know: Callable[[], None]) -> None:
        know()
        self._asking_models = False
        if self._wizard.step is Step.MODEL:
            self._arrive()

    def _models_failed(self, told: str) -> None:
        self._asking_models = False
        if self._wizard.step is Step.MODEL:
            self._say(told, bad=True)

    def action_sample(self) -> None:
        """Ask a sample, or wait for it no longer."""
        if self._wizard.step is not Step.CONFIRM:
            return
        if self._sampling is not None:
            self._skip()
            self._sample_told = "the sample was skipped"
            self._draw()
        else:
            self._begin_sample(of_itself=False)

    def _begin_sample(self, of_itself: bool) -> None:
        wizard = self._wizard
        if wizard.is_foretold or self._sampling is not None or wizard.seen is None:
            return
        if of_itself and wizard.is_priced:
            self._sample_told = "press s to ask a small sample; it costs what its calls cost"
            self._draw()
            return
        choices, project, seen = wizard.choices, wizard.project, wizard.seen
        self._sampling = choices
        self._sample_told = "asking a small sample …"

        def tell(text: str) -> None:
            if self._sampling is not choices:
                raise Skipped
            self._post(lambda: self._sample_goes(choices, text))

        def ask() -> None:
            try:
                with self._one_at_a_time:
                    tell("asking a small sample")
                    outlook = self._world.foretell(project, choices, seen, tell)
            except Skipped:
                return
            except _REFUSED as error:
                told = _told(error)
                self._post(lambda: self._sample_failed(choices, told))
                return
            self._post(lambda: self._sampled(choices, lambda: wizard.know_outlook(outlook, choices)))

        self._in_thread(ask)
        self._draw()

    def _sample_goes(self, choices: Choices, text: str) -> None:
        if self._sampling is choices:
            self._sample_told = f"{text} …"
            self._draw_preview()

    def _sampled(self, choices: Choices, know: Callable[[], None]) -> None:
        if self._sampling is choices:
            know()
            self._end_sample("")

    def _sample_failed(self, choices: Choices, told: str) -> None:
        if self._sampling is choices:
            self._end_sample(f"no sample: {told}")

    def _end_sample(self, told: str) -> None:
        self._sampling, self._sample_told = None, told
        if self._wizard.step is Step.CONFIRM:
            self._refresh_page()

    def _skip(self) -> None:
        self._sampling, self._sample_told = None, ""

    def _refresh_page(self) -> None:
        """Show the same question with what is known now, and the same choice."""
        self._page = self._wizard.page()
        self._show_page(keep=True)

    def on_runner_found(self, message: Found) -> None:
        """Take what a thread has found."""
        message.take()

    def _in_thread(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                crash = error
                self._post(lambda: self._crashed(crash))

        # Not one of Textual's own: nobody should wait for it when the screen is left.
        threading.Thread(target=guarded, name="runner", daemon=True).start()

    def _post(self, take: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the screen has gone
            self.post_message(self.Found(take))

    def _crashed(self, error: Exception) -> None:
        raise error

    def _focus(self, widget: Widget) -> None:
        # At once, not soon: what is typed ahead must not be lost.
        self._body.set_focus(widget)

    @property
    def _items(self) -> Choosing:
        return self.screen_stack[0].query_one(Choosing)

    @property
    def _field(self) -> Input:
        return self.screen_stack[0].query_one(Input)

    @property
    def _body(self) -> Screen[object]:
        return self.screen_stack[0]

    def _lines(self, id: str) -> Lines:
        return self.screen_stack[0].query_one(f"#{id}", Lines)

    def _handle_exception(self, error: Exception) -> None:
        # A mistake is told in one line by `main`, not as a traceback on the terminal.
        self.crash = self.crash or error
        super()._handle_exception(error)
        self._exit_renderables.clear()


def _told(error: Exception) -> str:
    return printable(str(error), 400)
