# ruff: noqa: ARG002 — it answers whatever it is asked about
"""A world for the runner's tests: a few projects and files, servers that answer at once, and no disk."""

from collections.abc import Callable
from pathlib import Path

from prism.runs.project_settings import ProjectSettings
from prism_cli.peek import Sample
from prism_cli.proposal import Wishes, propose
from prism_cli.runner.choices import Choices, ModelPick, PromptPick, Wrong
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.model_list import ModelOption, SizeOption
from prism_cli.runner.outlook import Outlook, Tell
from prism_cli.runner.projects import Project
from prism_cli.runner.prompts import PromptView, proposal
from prism_cli.runner.surroundings import Entry, LastTime

ROWS = 500
HOSTILE = "\x1b[31m[bold red]x[/bold red]\u202e\n=cmd()"
GOOD = Path("data/good.csv")
BROKEN = Path("data/broken.csv")
SAMPLE = Sample(
    "csv", ",", ("RowID", "Message"), (("1", "late shipping"), ("2", HOSTILE), ("3", "表示" * 40))
)
REFUSAL = (
    "Two rows have the same RowID: line 5, column 1: this row has the RowID of line 2; give each its own"
)
SERVED = ModelOption(ModelPick("llama3.2"), "llama3.2", "fast", "there", "http://here", priced=False)
PRICED = ModelOption(
    ModelPick("gpt"), "gpt", "1 + 2 USD per million tokens", "there", "http://far", priced=True
)
AWAY = ModelOption(
    ModelPick("mistral"), "mistral", "", "server away", "http://off", "nobody answers; start it"
)
EMBEDDED = ModelOption(
    ModelPick("prism-embedded", "embedded"),
    "prism-embedded",
    "answers by rules",
    "embedded",
    "",
    embedded=True,
)


def inspection(path: Path = GOOD, rows: int = ROWS, refused: str = "") -> Inspection:
    """Return a table as it was seen."""
    found = propose(SAMPLE, Wishes("p", str(path), "l"))
    troubles = () if refused else ("line 7: has 3 cells, the header 2; look for a quote or delimiter",)
    return Inspection(path, SAMPLE, rows, refused, troubles, 0, (), found)


class FakeWorld:
    """Remembers what was made and written. `changed` counts the changes of every file."""

    def __init__(self) -> None:
        self.there = [("demo", ""), ("my/bad", "rename it")]
        self.files = [GOOD, BROKEN]
        self.created: list[str] = []
        self.written: list[Choices] = []
        self.inspected: list[Path] = []
        self.refusals = {BROKEN: REFUSAL}
        self.refuse_to_write: Exception | None = None
        self.models_found = [SERVED, EMBEDDED, PRICED, AWAY]
        self.last_time = LastTime()
        self.changed = 0
        self.on_foretell: Callable[[Tell], None] = lambda _: None
        self.foretold = 0

    def projects(self) -> list[tuple[str, str]]:
        return self.there + [(one, "") for one in self.created]

    def create(self, name: str) -> Project:
        self.created.append(name)
        return Project(name)

    def settings(self, project: Project) -> ProjectSettings:
        return ProjectSettings()

    def usual_input(self, project: Project) -> Path:
        return project.inputs / "input.csv"

    def tables(self, project: Project) -> list[Path]:
        return self.files

    def folder(self, folder: Path) -> list[Entry]:
        if folder == Path("deep"):
            return [Entry(Path("deep/inner.csv"), False, 12_300)]
        return [Entry(Path("deep"), True), Entry(GOOD, False, 12)]

    def stamp(self, path: Path) -> object:
        return self.changed

    def inspect(self, project: Project, path: Path) -> Inspection:
        self.inspected.append(path)
        refused = self.refusals.get(path, "")
        return inspection(path, 0 if refused else ROWS, refused)

    def prompts(self, project: Project, seen: Inspection | None) -> list[PromptView]:
        own = PromptView(PromptPick(Path("p.json")), "p.json", ("Topic",), (("A", "B"),), HOSTILE, own=True)
        bad = PromptView(PromptPick(Path("bad.json")), "bad.json", problem="prompt file: is not an object")
        proposed = proposal(seen)
        return [own, bad, *([proposed] if proposed else [])]

    def prompt(self, text: str) -> PromptPick:
        if text != "p.json":
            raise Wrong("no such file")
        return PromptPick(Path(text))

    def models(self, project: Project) -> list[ModelOption]:
        return self.models_found

    def sizes(self, project: Project) -> list[SizeOption]:
        return [SizeOption(1, "Maximum accuracy", "slow"), SizeOption(5, "Balanced", "both")]

    def foretell(self, project: Project, choices: Choices, seen: Inspection, tell: Tell) -> Outlook:
        self.foretold += 1
        self.on_foretell(tell)
        return Outlook((("rows", "500"), ("calls", "about 101 (100 to 103)"), ("time", "about 2 min 10 s")))

    def places(self, project: Project, choices: Choices) -> list[tuple[str, str]]:
        return [("results", f"{project.outputs}/…")]

    def write(self, project: Project, choices: Choices, seen: Inspection) -> Path:
        if self.refuse_to_write is not None:
            raise self.refuse_to_write
        self.written.append(choices)
        return project.job

    def last(self, project: Project) -> LastTime:
        return self.last_time
