"""What each step shows: its question, what can be chosen, and what is known of the choice. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_cli.console import count, printable
from prism_cli.runner.choices import Choices, Step
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.model_list import ModelOption, SizeOption
from prism_cli.runner.prompts import PromptView
from prism_cli.runner.surroundings import Entry, LastTime

NEW = "new"
OTHER = "other"
BROWSE = "browse"
START = "start"
SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to choose. problem: why it cannot be chosen."""

    id: str
    name: str
    about: str = ""
    problem: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A step's question. field: what may be typed instead of choosing; None: nothing."""

    title: str
    hint: str
    items: tuple[Item, ...]
    field: str | None = None
    selected: int = 0


_TITLES = {
    Step.PROJECT: (
        "Which project is it for?",
        "A project keeps its inputs, outputs and logs in projects/NAME.",
    ),
    Step.INPUT: ("Which table is to be annotated?", "Its rows are checked before anything is asked."),
    Step.PROMPT: (
        "What is to be asked about each row?",
        "The prompt file names the columns and their labels.",
    ),
    Step.MODEL: ("Which model answers?", "Those of models.json and what the servers have."),
    Step.BATCH_SIZE: ("How many rows in one call?", "Few are more accurate, many are faster."),
    Step.ROWS: ("Which rows?", "A first few are a cheap way to see whether the prompt is right."),
    Step.CONFIRM: ("Start?", "Nothing has been sent yet."),
}


def project_page(there: Sequence[tuple[str, str]], choices: Choices) -> Page:
    """Return the choice of a project."""
    items = [Item(name, printable(name, 60), "", problem) for name, problem in there]
    items.append(Item(NEW, "+ a new project", "type its name below"))
    title, hint = _TITLES[Step.PROJECT]
    return Page(title, hint, tuple(items), "name of a new project", _index(items, choices.project))


def input_page(
    tables: Sequence[Path], usual: Path, seen: dict[Path, Inspection], choices: Choices, last: LastTime
) -> Page:
    """Return the choice of a table."""
    items = [
        Item(str(one), printable(str(one), 80), _seen(seen.get(one)), last=one == last.input)
        for one in dict.fromkeys(tables)
    ]
    if usual not in tables:
        items.insert(
            0,
            Item(str(usual), printable(str(usual), 80), "", "not there yet: put it there, or choose another"),
        )
    items.append(Item(BROWSE, "… look in folders", ""))
    items.append(Item(OTHER, "+ another file", "type its path below"))
    title, hint = _TITLES[Step.INPUT]
    wanted = str(choices.input or last.input or next(iter(tables), BROWSE))
    return Page(title, hint, tuple(items), "path of a table", _index(items, wanted))


def _seen(one: Inspection | None) -> str:
    if one is None:
        return ""
    if one.refused:
        return f"✗ {one.refused}"
    bad = f", {count(one.failing)} will fail" if one.failing else ""
    return f"{several(one.rows, 'row')}{bad}"


def folder_page(folder: Path, entries: Iterable[Entry]) -> Page:
    """Return what a folder holds."""
    items = [Item(str(folder.parent if folder.name not in ("", "..") else folder / ".."), "‹ up", "")]
    items += [
        Item(
            str(one.path),
            printable(one.path.name, 80) + ("/" if one.folder else ""),
            "" if one.folder else _size(one.size),
        )
        for one in entries
    ]
    hint = "Folders and tables: CSV, TSV, JSON Lines, Parquet. Esc leaves the folders."
    return Page(
        f"In {printable(str(folder.absolute()), 100)}", hint, tuple(items), None, min(1, len(items) - 1)
    )


def _size(size: int) -> str:
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"


def prompt_page(views: Sequence[PromptView], choices: Choices, last: LastTime) -> Page:
    """Return the choice of a prompt file."""
    items = [
        Item(
            one.pick.name,
            one.name,
            "asks for " + ", ".join(printable(name, 30) for name in one.columns) if one.columns else "",
            one.problem,
            last=one.pick.path is not None and one.pick.path == last.prompt,
        )
        for one in views
    ]
    items.append(Item(OTHER, "+ another file", "type its path below"))
    title, hint = _TITLES[Step.PROMPT]
    wanted = choices.prompt.name if choices.prompt else str(last.prompt) if last.prompt else None
    return Page(title, hint, tuple(items), "path of a prompt file", _index(items, wanted))


def model_page(options: Sequence[ModelOption], choices: Choices, last: LastTime) -> Page:
    """Return the choice of a model."""
    items = [
        Item(
            str(number),
            one.name,
            one.about if not one.problem else "",
            one.problem,
            last=one.pick.name is not None and one.pick.name == last.model,
        )
        for number, one in enumerate(options)
    ]
    title, hint = _TITLES[Step.MODEL]
    wanted = choices.model.name if choices.model else last.model
    found = next((at for at, one in enumerate(options) if one.pick.name == wanted and not one.problem), None)
    usable = next((at for at, one in enumerate(options) if not one.problem), 0)
    return Page(title, hint, tuple(items), None, usable if found is None else found)


def size_page(sizes: Sequence[SizeOption], choices: Choices, last: LastTime) -> Page:
    """Return the choice of a batch size."""
    items = [
        Item(str(one.size), f"{one.size:>3}  {one.name}", one.about, last=one.size == last.batch_size)
        for one in sizes
    ]
    items.append(Item(OTHER, "  +  another size", "type it below"))
    title, hint = _TITLES[Step.BATCH_SIZE]
    wanted = choices.batch_size or last.batch_size or _usual(sizes)
    return Page(title, hint, tuple(items), "rows per call, 1 to 200", _index(items, str(wanted), OTHER))


def _usual(sizes: Sequence[SizeOption]) -> int:
    there = [one.size for one in sizes]
    return 5 if 5 in there else there[0] if there else 5


def rows_page(total: int, choices: Choices, last: LastTime) -> Page:
    """Return the choice of rows."""
    items = [Item("all", f"all {count(total)}", f"rows 1 to {count(total)}", last=last.rows == "all")]
    items += [
        Item(
            f"1-{few}",
            f"the first {count(few)}",
            "to try the prompt" if few <= 20 else "",
            last=last.rows == f"1-{few}",
        )
        for few in (10, 100, 1000)
        if few < total
    ]
    items.append(Item(OTHER, "+ other rows", "type them below: 100 is the first 100, 101-200 a range"))
    title, hint = _TITLES[Step.ROWS]
    rows = choices.rows
    wanted = ("all" if rows.all else f"{rows.first}-{rows.last}") if rows else last.rows or "all"
    return Page(title, hint, tuple(items), "all, 100, or 101-200", _index(items, wanted, OTHER))


def confirm_page(can_sample: bool) -> Page:
    """Return the last question."""
    title, hint = _TITLES[Step.CONFIRM]
    items = [Item(START, "Start the run", "it goes on even if this window is closed")]
    if can_sample:
        items.append(Item(SAMPLE, "Ask a small sample first", "to tell time, tokens and cost"))
    return Page(title, hint, tuple(items))


def _index(items: Sequence[Item], id: str | None, otherwise: str | None = None) -> int:
    for wanted in (id, otherwise):
        for at, one in enumerate(items):
            if wanted is not None and one.id == wanted and not one.problem:
                return at
    return next((at for at, one in enumerate(items) if not one.problem), 0)


def several(number: int, one: str) -> str:
    """Return so many of something."""
    return f"{count(number)} {one}{'' if number == 1 else 's'}"
