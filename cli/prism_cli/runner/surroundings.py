"""What the runner asks of the world: projects, files, models, predictions. Tests put another in its place."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prism.runs.project_settings import ProjectSettings
from prism_cli import connection as connections
from prism_cli.job_spec import JobSpec, catalogue_of
from prism_cli.runner import draft, inspection, model_list, outlook, projects, prompts
from prism_cli.runner.choices import Choices, PromptPick
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.model_list import ModelOption, SizeOption
from prism_cli.runner.outlook import Outlook
from prism_cli.runner.projects import Project
from prism_cli.runner.prompts import PromptView

# What a folder may hold that can be an input.
_TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_MOST = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of the file picker."""

    path: Path
    folder: bool
    size: int = 0


@dataclass(frozen=True, slots=True)
class LastTime:
    """What a project's last job had chosen, as far as it is still there."""

    input: Path | None = None
    prompt: Path | None = None
    model: str | None = None
    batch_size: int | None = None
    rows: str = ""


class Surroundings:
    """The working directory, its servers and its fleet."""

    def __init__(self, options: Namespace, environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ

    def projects(self) -> list[tuple[str, str]]:
        """Return each project with why it cannot be taken, or nothing."""
        return [(name, projects.unusable(name)) for name in projects.listed()]

    def create(self, name: str) -> Project:
        """Make a project's folders. Raises CommandFailed (3)."""
        made = Project(name)
        made.create()
        return made

    def settings(self, project: Project) -> ProjectSettings:
        """Return what `settings.json` says. Raises SettingsRefused."""
        return project.settings()

    def usual_input(self, project: Project) -> Path:
        """Return where a project's input is looked for."""
        return project.inputs / project.settings().input_filename

    def tables(self, project: Project) -> list[Path]:
        """Return the tables that are at hand: in the project, in `data/`, here; the usual one first."""
        usual = self.usual_input(project)
        found = [one.path for one in self.folder(project.inputs) if not one.folder and one.path != usual]
        for folder in (Path("data"), Path()):
            found += [one.path for one in self.folder(folder) if not one.folder]
        return [*([usual] if usual.is_file() else []), *found]

    def folder(self, folder: Path) -> list[Entry]:
        """Return the folders and tables in a folder."""
        try:
            inner = sorted(folder.iterdir(), key=lambda one: one.name.casefold())
        except OSError:
            return []
        entries = [made for one in inner if (made := _entry(one)) is not None]
        return sorted(entries, key=lambda one: not one.folder)[:_MOST]

    def stamp(self, path: Path) -> object:
        """Return what changes when a file does."""
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino

    def inspect(self, project: Project, path: Path) -> Inspection:
        """Return what a file holds."""
        data_dir = connections.data_dir(self._options, self._environ)
        return inspection.inspect(path, project.settings(), data_dir, self._environ)

    def prompts(self, project: Project, seen: Inspection | None) -> list[PromptView]:
        """Return the prompt files that can be taken."""
        return prompts.found(project, seen)

    def prompt(self, text: str) -> PromptPick:
        """Return the prompt file of a typed path. Raises Wrong."""
        return prompts.named(text)

    def models(self, project: Project) -> list[ModelOption]:
        """Return the models; asks the servers."""
        return model_list.options(project.job, self._options, self._environ)

    def sizes(self, project: Project) -> list[SizeOption]:
        """Return the batch sizes to choose from."""
        return model_list.sizes(catalogue_of(project.job))

    def spec(self, project: Project, choices: Choices, seen: Inspection) -> JobSpec:
        """Return the job that the choices make."""
        return draft.spec(project, choices, seen, self.run_options(project, choices))

    def foretell(
        self, project: Project, choices: Choices, seen: Inspection, tell: Callable[[str], None]
    ) -> Outlook:
        """Ask a small sample and return what the run will take. Raises CommandFailed and the like."""
        options = self.run_options(project, choices)
        return outlook.foretell(draft.spec(project, choices, seen, options), options, tell)

    def places(self, project: Project, choices: Choices) -> list[tuple[str, str]]:
        """Return where a run's files will be."""
        label = choices.rows.label if choices.rows else ""
        return [
            ("results", f"{project.outputs}/…_{label}.csv"),
            ("reports", f"{project.logs}/, …/analytics/"),
            ("job file", f"{project.job}: prism run repeats it"),
        ]

    def write(self, project: Project, choices: Choices, seen: Inspection) -> Path:
        """Write the job into the project; return its path. Raises CommandFailed (3)."""
        return draft.write(project, choices, seen, datetime.now())

    def last(self, project: Project) -> LastTime:
        """Return what the project's last job had chosen, as far as it is still there."""
        return _of_last_job(project)

    def run_options(self, project: Project, choices: Choices) -> Namespace:
        """Return the options that `prism run` would have."""
        given = self._options
        server = (
            choices.model.server if choices.model and given.model_server == "auto" else given.model_server
        )
        return Namespace(
            command="run", deed=None, config=project.job, run_id=None, version=None, workers=given.workers,
            model=None, rows=None, priority=None, reference=False, detach=False, on_failure=given.on_failure,
            timeout=None, sample=outlook.SAMPLE, concurrency=None, model_server=server, json=given.json,
            data_dir=given.data_dir, bootstrap=given.bootstrap, plain=False,
        )  # fmt: skip


def _entry(path: Path) -> Entry | None:
    if path.name.startswith("."):
        return None
    try:
        if path.is_dir():
            return Entry(path, True)
        if path.name.lower().endswith(_TABLES) and path.is_file():
            return Entry(path, False, path.stat().st_size)
    except OSError:
        return None
    return None


def _of_last_job(project: Project) -> LastTime:
    job = project.last_job()
    if job is None:
        return LastTime()
    prompt = project.folder / job.prompts.config_file
    inputs = [project.folder / one.path for one in job.input_queue]
    ranges = job.parallelization.manual_ranges
    return LastTime(
        input=_plain(inputs[0]) if inputs and inputs[0].is_file() else None,
        prompt=_plain(prompt) if prompt.is_file() else None,
        model=job.model.name,
        batch_size=job.model.batch_size,
        rows=f"{ranges[0].start}-{ranges[0].end}" if ranges else "all",
    )


def _plain(path: Path) -> Path:
    """Return a path below here without its detours."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve())
    except ValueError:
        return path.resolve()
