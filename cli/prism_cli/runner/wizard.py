"""From question to question: what is shown now, what an answer does, what comes next.

It waits for nobody: what takes time (a table to check, servers to ask, a sample) is done by whoever drives
it, and handed over by `know_…`. So the same steps run behind a screen, from flags, or in a test.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from prism.runs.project_settings import ProjectSettings
from prism_cli.console import count, printable
from prism_cli.runner import choices as answers
from prism_cli.runner import pages
from prism_cli.runner.choices import Choices, ModelPick, PromptPick, Step, Wrong
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.model_list import ModelOption, SizeOption
from prism_cli.runner.outlook import Outlook, Tell
from prism_cli.runner.pages import Item, Page
from prism_cli.runner.projects import Project
from prism_cli.runner.prompts import PromptView
from prism_cli.runner.surroundings import Entry, LastTime


class World(Protocol):
    """What a wizard asks: `Surroundings`, or a test's."""

    def projects(self) -> list[tuple[str, str]]: ...
    def create(self, name: str) -> Project: ...
    def settings(self, project: Project) -> ProjectSettings: ...
    def usual_input(self, project: Project) -> Path: ...
    def tables(self, project: Project) -> list[Path]: ...
    def folder(self, folder: Path) -> list[Entry]: ...
    def stamp(self, path: Path) -> object: ...
    def inspect(self, project: Project, path: Path) -> Inspection: ...
    def prompts(self, project: Project, seen: Inspection | None) -> list[PromptView]: ...
    def prompt(self, text: str) -> PromptPick: ...
    def models(self, project: Project) -> list[ModelOption]: ...
    def sizes(self, project: Project) -> list[SizeOption]: ...
    def foretell(self, project: Project, choices: Choices, seen: Inspection, tell: Tell) -> Outlook: ...
    def places(self, project: Project, choices: Choices) -> list[tuple[str, str]]: ...
    def write(self, project: Project, choices: Choices, seen: Inspection) -> Path: ...
    def last(self, project: Project) -> LastTime: ...


class Wizard:
    """The questions of one run. `done`: everything is answered, and the job is written."""

    def __init__(
        self,
        world: World,
        choices: Choices | None = None,
        told: Mapping[Step, str] | None = None,
        confirm: bool = True,
    ) -> None:
        """`told`: what flags have answered: it is typed as soon as its question comes."""
        self.choices = choices or Choices()
        self.told = dict(told or {})
        self.done = False
        self.models: list[ModelOption] | None = None
        self.models_problem = ""
        self.outlook: Outlook | None = None
        self.browsing: Path | None = None
        self.step = Step.PROJECT
        self._world = world
        self._confirm = confirm
        self._seen: dict[Path, tuple[object, Inspection]] = {}
        self._foretold_for: Choices | None = None

    # What is known

    @property
    def project(self) -> Project:
        """The project that was chosen."""
        assert self.choices.project is not None
        return Project(self.choices.project)

    @property
    def seen(self) -> Inspection | None:
        """What is known of the table that was chosen."""
        return self.inspection(self.choices.input) if self.choices.input else None

    def inspection(self, path: Path) -> Inspection | None:
        """Return what is known of a table, unless it has changed since."""
        known = self._seen.get(path)
        return known[1] if known is not None and known[0] == self._world.stamp(path) else None

    def know_table(self, seen: Inspection) -> None:
        """Remember what a table holds."""
        self._seen[seen.path] = (self._world.stamp(seen.path), seen)

    def know_models(self, found: list[ModelOption]) -> None:
        """Remember what the servers have."""
        self.models, self.models_problem = found, ""

    def know_outlook(self, outlook: Outlook, choices: Choices) -> None:
        """Remember what a run with these choices takes."""
        self.outlook, self._foretold_for = outlook, choices

    @property
    def is_foretold(self) -> bool:
        """Whether the outlook is that of what is chosen now."""
        return self.outlook is not None and self._foretold_for == self.choices

    @property
    def is_priced(self) -> bool:
        """Whether a call costs money: then nobody is asked without having been told to."""
        return any(one.pick == self.choices.model and one.priced for one in self.models or ())

    # What is shown

    def page(self) -> Page:
        """Return the question as it stands now."""
        step, chosen = self.step, self.choices
        if step is Step.PROJECT:
            return pages.project_page(self._world.projects(), chosen)
        last = self._world.last(self.project)
        if step is Step.INPUT:
            return self._input_page(last)
        if step is Step.PROMPT:
            return pages.prompt_page(self.prompts(), chosen, last)
        if step is Step.MODEL:
            return pages.model_page(self.models or (), chosen, last)
        if step is Step.BATCH_SIZE:
            return pages.size_page(self._world.sizes(self.project), chosen, last)
        if step is Step.ROWS:
            return pages.rows_page(self._total(), chosen, last)
        return pages.confirm_page(not self.is_foretold)

    def _input_page(self, last: LastTime) -> Page:
        if self.browsing is not None:
            return pages.folder_page(self.browsing, self._world.folder(self.browsing))
        tables = self._world.tables(self.project)
        if last.input is not None:
            tables = [*tables, last.input]
        if self.choices.input is not None:
            tables = [*tables, self.choices.input]
        seen = {path: known for path in tables if (known := self.inspection(path)) is not None}
        return pages.input_page(tables, self._world.usual_input(self.project), seen, self.choices, last)

    def prompts(self) -> list[PromptView]:
        """Return the prompt files that can be taken; what was typed among them."""
        found = self._world.prompts(self.project, self.seen)
        chosen = self.choices.prompt
        if (
            chosen is not None
            and chosen.path is not None
            and chosen.path not in [one.pick.path for one in found]
        ):
            return [*found, PromptView(chosen, printable(str(chosen.path)))]
        return found

    def places(self) -> list[tuple[str, str]]:
        """Return where the run's files will be."""
        return self._world.places(self.project, self.choices)

    def table_of(self, item: Item) -> Path | None:
        """Return the table that an item is, if it is one."""
        if self.step is not Step.INPUT or item.id in (pages.BROWSE, pages.OTHER) or item.problem:
            return None
        path = Path(item.id)
        return None if self.browsing is not None and self._is_folder(item) else path

    def _is_folder(self, item: Item) -> bool:
        return item.name.endswith("/") or item.name == "‹ up"

    # What an answer does

    def needs(self, item: Item) -> Path | None:
        """Return the table that must be looked at before an item can be chosen."""
        path = self.table_of(item)
        if path is None:
            return None
        known = self.inspection(path)
        # What was refused may have been mended in a way that its stamp does not tell.
        return path if known is None or known.refused else None

    def wants_field(self, item: Item) -> bool:
        """Return whether an item is answered by typing."""
        return item.id in (pages.NEW, pages.OTHER)

    def choose(self, item: Item) -> None:
        """Take an item as the answer, and go on. Raises Wrong, and CommandFailed at the start."""
        if item.problem:
            raise Wrong(item.problem)
        if self.step is Step.INPUT:
            self._choose_table(item)
            return
        take = {
            Step.PROJECT: lambda: self.choices.with_project(item.id),
            Step.PROMPT: lambda: replace(self.choices, prompt=self._prompt(item.id)),
            Step.MODEL: lambda: replace(self.choices, model=(self.models or [])[int(item.id)].pick),
            Step.BATCH_SIZE: lambda: replace(self.choices, batch_size=answers.batch_size(item.id)),
            Step.ROWS: lambda: replace(self.choices, rows=answers.rows(item.id, self._total())),
        }.get(self.step)
        if take is None:
            self.start()
            return
        self._answered(take())

    def _prompt(self, id: str) -> PromptPick:
        return next(one.pick for one in self.prompts() if one.pick.name == id)

    def _choose_table(self, item: Item) -> None:
        if item.id == pages.BROWSE:
            self.browsing = Path()
        elif self.browsing is not None and self._is_folder(item):
            self.browsing = Path(item.id)
        else:
            self._take_table(Path(item.id))

    def _take_table(self, path: Path) -> None:
        known = self.inspection(path)
        if known is None:
            raise Wrong("it has not been looked at yet")
        if known.refused:
            raise Wrong(known.refused)
        if not known.rows:
            raise Wrong("it has a header and no rows: there is nothing to ask about")
        self.browsing = None
        self._answered(self.choices.with_input(path, known.rows, self.choices.copy))

    def typed_table(self, text: str) -> Path:
        """Return the table that was typed. Raises Wrong."""
        if not text.strip():
            raise Wrong("type the path of a table")
        path = Path(text.strip()).expanduser()
        if path.is_dir():
            raise Wrong("that is a folder: name a table in it")
        if not path.exists():
            raise Wrong("there is no such file")
        return path

    def check(self, text: str) -> str:
        """Return what is made of what is typed. Raises Wrong with why nothing is."""
        if self.step is Step.PROJECT:
            name = self._project_typed(text)
            there = name in [one for one, _ in self._world.projects()]
            return f"projects/{name} is there: Enter takes it" if there else f"Enter makes projects/{name}"
        if self.step is Step.INPUT:
            self.typed_table(text)
            return "Enter checks it"
        if self.step is Step.PROMPT:
            self._world.prompt(text)
            return "Enter takes it"
        if self.step is Step.BATCH_SIZE:
            size = answers.batch_size(text)
            warning = "; more than 15 are rarely answered well" if size > 15 else ""
            return f"{count(size)} {'row' if size == 1 else 'rows'} a call{warning}"
        picked = answers.rows(text, self._total())
        told = f"rows {count(picked.first)} to {count(picked.last)}"
        return f"{told}: {count(picked.count)} of {count(picked.total)}"

    def type(self, text: str) -> None:
        """Take what was typed as the answer, and go on. A table must have been looked at. Raises Wrong."""
        if self.step is Step.PROJECT:
            name = self._project_typed(text)
            self._world.create(name)
            self._answered(self.choices.with_project(name))
        elif self.step is Step.INPUT:
            self._take_table(self.typed_table(text))
        elif self.step is Step.PROMPT:
            self._answered(replace(self.choices, prompt=self._prompt_typed(text)))
        elif self.step is Step.MODEL:
            self._answered(replace(self.choices, model=self._model_typed(text)))
        elif self.step is Step.BATCH_SIZE:
            self._answered(replace(self.choices, batch_size=answers.batch_size(text)))
        else:
            self._answered(replace(self.choices, rows=answers.rows(text, self._total())))

    def _project_typed(self, text: str) -> str:
        """Return a project that is there, or the name of a new one. Raises Wrong."""
        for name, problem in self._world.projects():
            if name == text and problem:
                raise Wrong(problem)
            if name == text:
                return name
        return answers.new_project(text)

    def _prompt_typed(self, text: str) -> PromptPick:
        if text.strip() != answers.PROPOSED:
            return self._world.prompt(text)
        proposed = [one.pick for one in self.prompts() if one.pick.path is None]
        if not proposed:
            raise Wrong("nothing can be proposed for this table; name a prompt file")
        return proposed[0]

    def _model_typed(self, text: str) -> ModelPick:
        if not text.strip():
            raise Wrong("name a model")
        return next(
            (one.pick for one in self.models or () if one.pick.name == text.strip()), ModelPick(text.strip())
        )

    def toggle_copy(self) -> None:
        """Use the table where it lies, or a copy in the project."""
        self.choices = replace(self.choices, copy=not self.choices.copy)

    def _total(self) -> int:
        return self.seen.rows if self.seen is not None else 0

    # Where to go

    def _answered(self, changed: Choices) -> None:
        self.choices = changed
        # One step at a time, past nothing that was answered before: it is shown, and Enter keeps it.
        self.step = answers.ORDER[answers.ORDER.index(self.step) + 1]
        if self.step is Step.CONFIRM and not self._confirm:
            self.start()

    def back(self) -> bool:
        """Go back a step, or out of the folders; return whether there was one. What was chosen is kept."""
        if self.browsing is not None:
            self.browsing = None
            return True
        step = answers.before(self.step)
        if step is None:
            return False
        self.step = step
        return True

    def start(self) -> None:
        """Write the job: it can be run. Raises CommandFailed (3)."""
        assert self.seen is not None
        assert not self.choices.missing()
        self._world.write(self.project, self.choices, self.seen)
        self.done = True
