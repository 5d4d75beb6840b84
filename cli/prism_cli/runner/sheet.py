"""What is on the runner's screen: the question, what can be chosen, and what is known beside it."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.widget import Widget
from textual.widgets import Input, Static

from prism_cli.console import printable
from prism_cli.runner import texts
from prism_cli.runner.choices import Step
from prism_cli.runner.errands import Errands
from prism_cli.runner.look import head_line, title_lines
from prism_cli.runner.pages import Item, Page
from prism_cli.runner.texts import DIM, Expected
from prism_cli.runner.widgets import Choosing, Draw, Lines, Preview
from prism_cli.runner.wizard import Wizard


def _nothing(_: int) -> list[Text]:
    return []


class Sheet(Vertical):
    """Draws a wizard's page, with what is known and what is under way. Asks and answers nothing."""

    def __init__(self, wizard: Wizard, errands: Errands) -> None:
        super().__init__()
        self._wizard = wizard
        self._errands = errands
        self._page: Page | None = None

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

    @property
    def items(self) -> Choosing:
        """What can be chosen."""
        return self.query_one(Choosing)

    @property
    def field(self) -> Input:
        """Where an answer is typed."""
        return self.query_one(Input)

    @property
    def has_field(self) -> bool:
        """Whether the question can be answered by typing."""
        return self._page is not None and self._page.field is not None

    def focus_on(self, widget: Widget) -> None:
        """Hand the keys to the list or the field."""
        # At once, not soon: what is typed ahead must not be lost.
        self.screen.set_focus(widget)

    def on_resize(self, event: Resize) -> None:
        del event
        if self._page is not None:
            self.call_after_refresh(self.draw_preview)

    # A question

    def show(self, page: Page, typed: str) -> None:
        """Show a question from its beginning, with what was typed for it before."""
        self._put(page, page.selected)
        self.field.placeholder = page.field or ""
        self.enter(typed if page.field is not None else "")
        self.say("")
        self.focus_on(self.items)
        self.draw()

    def renew(self, page: Page) -> None:
        """Show the same question with what is known now, and the same choice."""
        self._put(page, self.items.at)
        self.draw()

    def _put(self, page: Page, at: int) -> None:
        self._page = page
        self.screen.set_class(self._wizard.step is Step.CONFIRM, "-confirm")
        self.items.show(page.items, at)
        self.query_one("#entry").set_class(page.field is None, "-hidden")

    def enter(self, text: str) -> None:
        """Put a text into the field, as if nobody had typed it."""
        with self.prevent(Input.Changed):
            self.field.value = text

    def say(self, text: str, bad: bool = False) -> None:
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

    # What stands around it

    def draw(self) -> None:
        """Draw everything but the list and the field anew."""
        wizard, page = self._wizard, self._page
        assert page is not None
        self._lines("head").show(lambda width: [head_line(wizard.choices, width)])
        self._lines("trail").show(lambda width: [texts.trail(wizard.step, wizard.choices, width)])
        self._lines("title").show(lambda width: title_lines(page, width))
        self._lines("keys").show(lambda width: [texts.keys(self._keys(), width)])
        self._lines("decided").show(lambda width: texts.answers(wizard.choices, wizard.models or (), width))
        self.draw_preview()

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
            told.append(("s", "skip the sample" if self._errands.sampling is not None else "ask a sample"))
        return [*told, ("?", "help"), ("q", "leave")]

    def draw_preview(self) -> None:
        """Draw anew what is known of what is chosen."""
        title, draw = self._preview()
        panel = self.query_one(Preview)
        panel.display = bool(title)
        self._lines("shown").show(draw)
        panel.entitle(title)

    def _preview(self) -> tuple[str, Draw]:
        item, step = self.items.item, self._wizard.step
        if step is Step.CONFIRM:
            return "what will be done", self._summary
        if item is None:
            return "", _nothing
        if step is Step.INPUT:
            return self._preview_table(item)
        if step is Step.PROMPT:
            view = next((one for one in self._wizard.prompts() if one.pick.name == item.id), None)
            return ("what it asks", lambda width: texts.prompt_lines(view, width)) if view else ("", _nothing)
        if step is Step.MODEL and self._wizard.models:
            option = self._wizard.models[int(item.id)]
            return "the model", lambda width: texts.model_lines(option, width)
        if step is Step.ROWS and self._wizard.seen is not None:
            seen = self._wizard.seen
            return "the table", lambda width: texts.table_lines(seen, width)
        return "", _nothing

    def _preview_table(self, item: Item) -> tuple[str, Draw]:
        path = self._wizard.table_of(item)
        if path is None:
            return "", _nothing
        known = self._wizard.inspection(path)
        if known is None:
            told = "being checked …" if self._errands.checking == path else "Enter checks it"
            return "first rows", lambda _: [Text(told, DIM)]
        return "first rows", lambda width: texts.table_lines(known, width)

    def _summary(self, width: int) -> list[Text]:
        wizard = self._wizard
        outlook = wizard.outlook if wizard.is_foretold else None
        expected = Expected(outlook, self._errands.sample_told, wizard.places())
        return texts.summary_lines(wizard.choices, wizard.models or (), expected, width)

    def _lines(self, id: str) -> Lines:
        return self.query_one(f"#{id}", Lines)
