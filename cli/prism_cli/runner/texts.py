"""What the runner shows, in lines as wide as the terminal lets them be. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from prism_cli.console import count, printable
from prism_cli.runner.choices import ORDER, PROPOSED, Choices, RowPick, Step
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.model_list import ModelOption
from prism_cli.runner.outlook import Outlook
from prism_cli.runner.pages import Item, several
from prism_cli.runner.prompts import PromptView

DIM, BAD, GOOD, WARN = "dim", "red", "green", "yellow"
_CELL = 200
_NAMES = 13
_SHOWN_ROWS = 30
# Columns of a preview are never narrower than this: what does not fit is told.
_LEAST_CELL = 6


def trail(step: Step, choices: Choices, width: int) -> Text:
    """Return where in the questions one is."""
    made = Text(no_wrap=True, overflow="ellipsis")
    for one in ORDER:
        if made.plain:
            made.append(" › ", DIM)
        done = choices.has(one)
        style = "bold" if one is step else GOOD if done else DIM
        made.append(f"{'● ' if one is step else '✓ ' if done else ''}{one.value}", style)
    made.truncate(width, overflow="ellipsis")
    return made


def item_line(item: Item, chosen: bool, focused: bool, names: int, width: int) -> Text:
    """Return an item in one line."""
    style = ("bold cyan" if focused else "bold") if chosen else DIM if item.problem else ""
    made = Text(no_wrap=True, overflow="ellipsis").append("❯ " if chosen else "  ", style)
    made.append(set_cell_size(item.name, names) if cell_len(item.name) <= names else item.name, style)
    about = item.problem or item.about
    if item.last:
        about = f"as last time{'; ' if about else ''}{about}"
    if about:
        bad = bool(item.problem) or about.startswith("✗")
        made.append(f"  {about}", "yellow" if bad and chosen else DIM)
    made.truncate(width, overflow="ellipsis")
    return made


def names_width(items: Sequence[Item], width: int) -> int:
    """Return how wide the names of items are, in cells: what stands behind them is aligned."""
    return min(max((cell_len(one.name) for one in items), default=0), max(16, width // 2))


def answers(choices: Choices, models: Sequence[ModelOption], width: int) -> list[Text]:
    """Return what is decided so far."""
    told = [(name, text) for name, text in answer_facts(choices, models) if text]
    return facts(told, width) or [Text("nothing yet", DIM)]


def answer_facts(choices: Choices, models: Sequence[ModelOption] = ()) -> list[tuple[str, str]]:
    """Return each answer with its name."""
    found: list[tuple[str, str]] = [("project", choices.project or "")]
    copied = " (copied into the project)" if choices.copy else ""
    found.append(("input", f"{choices.input}{copied}" if choices.input else ""))
    prompt = choices.prompt
    found.append(
        (
            "prompt",
            "" if prompt is None else "a new one, proposed" if prompt.name == PROPOSED else prompt.name,
        )
    )
    found.append(("model", _model(choices, models)))
    found.append(("batch size", str(choices.batch_size or "")))
    found.append(("rows", _rows(choices.rows) if choices.rows else ""))
    return [(name, printable(text)) for name, text in found]


def _model(choices: Choices, models: Sequence[ModelOption]) -> str:
    if choices.model is None:
        return ""
    about = next((one.about for one in models if one.pick == choices.model and one.embedded), "")
    return (choices.model.name or "the fleet's own") + (f": {about}" if about else "")


def _rows(rows: RowPick) -> str:
    told = f"{count(rows.first)} to {count(rows.last)}"
    return f"all {count(rows.total)}" if rows.all else f"{told}, {count(rows.count)} of {count(rows.total)}"


def facts(told: Sequence[tuple[str, str]], width: int, least: int = 0) -> list[Text]:
    """Return facts, one a line, folded where they are long. least: cells of the names' column."""
    names = max((cell_len(name) for name, _ in told), default=0) + 2
    names = max(names, least)
    lines = []
    for name, text in told:
        for at, part in enumerate(folded(text, width - names)):
            line = Text(no_wrap=True).append(set_cell_size("" if at else name, names), DIM)
            lines.append(line.append(part))
    return lines


def folded(text: str, width: int) -> list[str]:
    """Return a text in lines of so many cells at most."""
    lines: list[str] = []
    for word in text.split(" "):
        while cell_len(word) > max(8, width):
            head = _head(word, max(8, width))
            lines.append(head)
            word = word[len(head) :]
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _head(word: str, width: int) -> str:
    end = width
    while cell_len(word[:end]) > width:
        end -= 1
    return word[: max(1, end)]


def table_lines(seen: Inspection, width: int) -> list[Text]:
    """Return what is wrong with a table, and its first rows."""
    lines = list(_verdict(seen, width))
    if seen.sample is not None and seen.sample.columns:
        lines += [Text(""), *_grid(seen.sample.columns, seen.sample.rows[:_SHOWN_ROWS], width)]
    return lines


def _verdict(seen: Inspection, width: int) -> Iterable[Text]:
    if seen.refused:
        yield from _folded_lines("✗ ", seen.refused, BAD, width)
    else:
        told = f"{several(seen.rows, 'row')}; {seen.written}"
        yield Text(f"✓ {told}", GOOD, no_wrap=True, overflow="ellipsis")
    if seen.failing:
        many = f"{several(seen.failing, 'row')} will fail, the others go on:"
        yield Text(f"! {many}", WARN)
        for one in seen.troubles[:5]:
            yield from _folded_lines("  ", one, "", width)
        if seen.failing > 5:
            yield Text(f"  and {count(seen.failing - 5)} more", DIM)
    for note in () if seen.refused else seen.notes:
        yield from _folded_lines("· ", note, DIM, width)


def trouble_texts(seen: Inspection) -> list[str]:
    """Return what is wrong with rows of a table, a line each."""
    shown = list(seen.troubles[:5])
    if seen.failing > len(shown):
        shown.append(f"{count(seen.failing - len(shown))} more rows will fail")
    return shown


def _folded_lines(mark: str, text: str, style: str, width: int) -> Iterable[Text]:
    for at, part in enumerate(folded(text, width - 2)):
        yield Text((mark if at == 0 else "  ") + part, style, no_wrap=True)


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterable[Text]:
    names = [printable(one, _CELL) for one in columns]
    cells = [[printable(cell, _CELL) for cell in row] for row in rows]
    widths = _widths([[name, *(row[at] for row in cells)] for at, name in enumerate(names)], width)
    left_out = len(names) - len(widths)
    head = _row(names, widths, "bold")
    if left_out:
        head.append(f"+{left_out}", DIM)
    yield head
    for row in cells:
        yield _row(row, widths, "")


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how wide each column is: as its cells are, the widest shortened until all fit; some left out."""
    wanted = [max(_LEAST_CELL, *(cell_len(one) for one in cells)) for cells in columns]
    fitting = max(1, min(len(wanted), (width - 4) // (_LEAST_CELL + 2)))
    found = wanted[:fitting]
    room = width - 2 * fitting - (4 if fitting < len(wanted) else 0)
    while sum(found) > room and max(found) > _LEAST_CELL:
        widest = max(found)
        at = found.index(widest)
        next_widest = max((one for one in found if one < widest), default=_LEAST_CELL)
        found[at] = max(_LEAST_CELL, next_widest, widest - (sum(found) - room))
        if found[at] == widest:
            found[at] -= 1
    return found


def _row(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    made = Text(no_wrap=True, overflow="crop")
    for cell, width in zip(cells, widths, strict=False):
        text = cell if cell_len(cell) <= width else _head(cell, width - 1) + "…"
        made.append(set_cell_size(text, width), style).append("  ")
    return made


def prompt_lines(one: PromptView, width: int) -> list[Text]:
    """Return what a prompt file asks."""
    if one.problem:
        return list(_folded_lines("✗ ", one.problem, BAD, width))
    lines = []
    names = min(28, max((cell_len(printable(name)) for name in one.columns), default=0)) + 2
    for name, labels in zip(one.columns, one.labels, strict=False):
        text = ", ".join(printable(label, 40) for label in labels) or "free text"
        for at, part in enumerate(folded(text, width - names)):
            shown = set_cell_size("" if at else printable(name, 28), names)
            lines.append(Text(no_wrap=True).append(shown, "bold").append(part, "" if labels else DIM))
    lines.append(Text(""))
    for paragraph in one.instructions.splitlines()[:60]:
        lines += [Text(part, DIM, no_wrap=True) for part in folded(printable(paragraph), width)]
    return lines


def model_lines(one: ModelOption, width: int) -> list[Text]:
    """Return what is known of a model."""
    told = [
        ("model", one.name),
        ("state", one.problem or one.state),
        ("server", one.server),
        ("about", one.about),
    ]
    return facts([(name, text) for name, text in told if text], width)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run is expected to take. telling: where nothing is foretold; places: of its files."""

    outlook: Outlook | None
    telling: str
    places: Sequence[tuple[str, str]]


def summary_lines(
    choices: Choices, models: Sequence[ModelOption], expected: Expected, width: int
) -> list[Text]:
    """Return everything that is decided, what it takes, and where the files will be."""
    lines = [*facts([one for one in answer_facts(choices, models) if one[1]], width, _NAMES), Text("")]
    outlook = expected.outlook
    if outlook is None:
        lines += facts([("calls", f"{count(choices.calls)}, if each is answered well")], width, _NAMES)
        lines += [Text(part, DIM, no_wrap=True) for part in folded(expected.telling, width) if part]
    else:
        lines += facts([one for one in outlook.facts if one[0] != "rows"], width, _NAMES)
        for warning in outlook.warnings:
            lines += _folded_lines("! ", printable(warning), WARN, width)
    return [*lines, Text(""), *facts(expected.places, width, _NAMES)]


def keys(told: Sequence[tuple[str, str]], width: int) -> Text:
    """Return the line of keys."""
    made = Text(no_wrap=True)
    for key, what in told:
        made.append(f" {key} ", "reverse bold")
        made.append(f" {what}  ")
    made.truncate(width)
    return made
