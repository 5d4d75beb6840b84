"""The parts of the runner's screen: lines that know their width, and a list of which one is chosen."""

from collections.abc import Callable
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from prism_cli.runner import texts
from prism_cli.runner.pages import Item
from prism_cli.runner.texts import DIM

Draw = Callable[[int], list[Text]]


class Lines(Static):
    """Lines that are made when the width is known."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, markup=False)

    def show(self, draw: Draw) -> None:
        """Draw anew."""
        self.update(_Drawing(draw))


class _Drawing:
    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n", no_wrap=True, overflow="crop").join(self._draw(options.max_width))


class Preview(VerticalScroll):
    """What scrolls under a title that says how much is out of sight."""

    _said = ""

    def entitle(self, said: str) -> None:
        """Have a title."""
        self._said = said
        self._count()
        self.call_after_refresh(self._count)

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Say anew what is out of sight."""
        super().watch_scroll_y(old, new)
        self._count()

    def _count(self) -> None:
        above = round(self.scroll_offset.y)
        below = max(0, self.virtual_size.height - self.scrollable_content_region.height - above)
        hidden = " ".join(f"{mark}{number}" for mark, number in (("↑", above), ("↓", below)) if number > 0)
        self.border_title = f" {self._said}  {hidden} " if hidden else f" {self._said} "


class Choosing(Widget, can_focus=True):
    """A list of which one is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("home", "edge(0)", "first", show=False),
        Binding("end", "edge(-1)", "last", show=False),
    ]

    class Moved(Message):
        """Another item is chosen."""

    class Left(Message):
        """Somebody went below the last item."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.items: tuple[Item, ...] = ()
        self.at = 0

    @property
    def item(self) -> Item | None:
        """The item that is chosen."""
        return self.items[self.at] if self.items else None

    def show(self, items: tuple[Item, ...], at: int) -> None:
        """Show other items."""
        self.items = items
        self.at = min(max(0, at), max(0, len(items) - 1))
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return as many lines as there are items."""
        del container, viewport, width
        return max(1, len(self.items))

    def render(self) -> Text:
        """Draw what fits around what is chosen."""
        width, height = self.size.width, max(1, self.size.height)
        first = max(0, min(self.at - height // 2, len(self.items) - height))
        names = texts.names_width(self.items, width)
        lines = [
            texts.item_line(one, first + at == self.at, self.has_focus, names, width)
            for at, one in enumerate(self.items[first : first + height])
        ]
        if first and lines:
            lines[0] = _hidden("↑", first, width)
        below = len(self.items) - first - height
        if below > 0:
            lines[-1] = _hidden("↓", below + 1, width)
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def action_move(self, step: int) -> None:
        """Choose the next, or the one before."""
        if self.at + step >= len(self.items):
            self.post_message(self.Left())
            return
        self._go(self.at + step)

    def action_edge(self, at: int) -> None:
        """Choose the first or the last."""
        self._go(at % max(1, len(self.items)))

    def _go(self, at: int) -> None:
        self.at = min(max(0, at), max(0, len(self.items) - 1))
        self.refresh()
        self.post_message(self.Moved())


def _hidden(mark: str, number: int, width: int) -> Text:
    made = Text(f"  {mark} {number} more", DIM, no_wrap=True)
    made.truncate(width)
    return made
