"""How the runner looks: its style sheet, and the lines at its head. Colours are the terminal's own."""

from rich.text import Text

from prism_cli.console import printable
from prism_cli.runner import texts
from prism_cli.runner.choices import Choices
from prism_cli.runner.pages import Page
from prism_cli.runner.texts import DIM

CSS = """
Screen { background: ansi_default; }
#head { height: 1; padding: 0 1; }
#trail { height: 1; padding: 0 1; margin-bottom: 1; }
#keys { height: 1; dock: bottom; padding: 0 1; }
#main { height: 1fr; layout: vertical; padding: 0 1; overflow: hidden; }
#left { height: auto; }
#title { height: auto; }
#items { height: auto; max-height: 8; margin-top: 1; background: ansi_default; }
#entry { height: auto; margin-top: 1; }
#entry.-hidden { display: none; }
#mark { width: 2; text-style: bold; }
Input { width: 1fr; }
Input, Input:focus {
    height: 1; border: none; padding: 0; background: ansi_default; color: ansi_default;
    background-tint: ansi_default 0%;
}
Input > .input--placeholder { color: ansi_bright_black; }
Input > .input--cursor { text-style: reverse; }
#reason { height: auto; min-height: 1; }
#preview, #answers {
    height: 1fr; min-height: 3; scrollbar-size: 0 0; background: ansi_default;
    border-top: solid ansi_bright_black;
    border-title-color: ansi_default; border-title-style: bold; border-title-background: ansi_default;
}
#preview:focus { border-top: solid ansi_cyan; border-title-color: ansi_cyan; }
#answers { display: none; height: auto; }
.-confirm #title { display: none; }
.-confirm #items { margin-top: 0; }
.-wide #main { layout: horizontal; }
.-wide #left { width: 2fr; height: 100%; margin-right: 3; }
.-wide #right { width: 3fr; height: 100%; }
.-wide #answers { display: block; margin-top: 1; }
.-wide #items { max-height: 20; }
.-wide.-confirm #answers { display: none; }
#right { height: 1fr; }
"""


def head_line(choices: Choices, width: int) -> Text:
    """Return the first line."""
    left, right = Text("PRISM runner", "bold"), printable(choices.project or "", 60)
    left.append(" " * max(2, width - left.cell_len - len(right)))
    return left.append(right, DIM)


def title_lines(page: Page, width: int) -> list[Text]:
    """Return a page's question."""
    hint = [Text(part, DIM, no_wrap=True) for part in texts.folded(page.hint, width)]
    return [Text(page.title, "bold", no_wrap=True, overflow="ellipsis"), *hint]
