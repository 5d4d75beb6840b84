"""The folders of projects: `projects/NAME`, made as `settings.json` says."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prism.runs.config_files import find_settings
from prism.runs.job import Job, JobRefused, read_job
from prism.runs.project_settings import ProjectSettings, read_settings
from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, CommandFailed
from prism_cli.proposal import project_name

FOLDER = Path("projects")
JOB_FILE = "job.yaml"
PROMPT_FILE = "prompt.json"
_LONGEST_NAME = 100
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-")


@dataclass(frozen=True, slots=True)
class Project:
    """One project. All paths are relative to the working directory, as a fleet of one's own has them."""

    name: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def job(self) -> Path:
        """The job file that the runner writes."""
        return self.folder / JOB_FILE

    @property
    def prompt(self) -> Path:
        """The project's own prompt file."""
        return self.folder / PROMPT_FILE

    @property
    def inputs(self) -> Path:
        return self.folder / "data" / "inputs"

    @property
    def outputs(self) -> Path:
        return self.folder / "data" / "outputs"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def id(self) -> str:
        """The project as run ids name it."""
        return project_name(self.name)

    def settings(self) -> ProjectSettings:
        """Return what `settings.json` says for it. Raises SettingsRefused."""
        return read_settings(find_settings(self.job))

    def last_job(self) -> Job | None:
        """Return the job of its last run by the runner, if there is one that can be read."""
        try:
            return read_job(self.job)[0] if self.job.is_file() else None
        except (JobRefused, OSError):
            return None

    def create(self) -> list[Path]:
        """Make its folders, those that are there left as they are. Raises CommandFailed (3)."""
        made = [self.folder / path for path in structure(self.settings())]
        try:
            for path in made:
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot make the project's folders: {error.strerror or error}"
            raise CommandFailed(BAD_INPUT, what, printable(str(self.folder)), "check its rights") from None
        return made


def structure(settings: ProjectSettings) -> Iterator[Path]:
    """Yield the folders of a project."""
    for name, inner in settings.project_structure.items():
        yield Path(name)
        yield from (Path(name) / one for one in inner)


def listed() -> list[str]:
    """Return the projects that are there, by name."""
    try:
        return sorted(one.name for one in FOLDER.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []


def unusable(name: str) -> str:
    """Return why a folder cannot be a project; nothing if it can."""
    if len(name) > _LONGEST_NAME or not set(name) <= _PLAIN or ".." in name or name != name.strip():
        return "rename it: letters, digits, spaces, '.', '_' and '-' only"
    if not name[0].isalnum():
        return "rename it: begin with a letter or a digit"
    return ""
