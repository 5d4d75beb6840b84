"""The four files of a run, in the places that PRISM v6 had for them in a project.

The merger writes them where the job says, below its own root; what does not lie in its place already is
copied there, each file whole or not at all.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prism.runs.project_settings import LogSettings
from prism_cli.board import RunView
from prism_cli.connection import Connection
from prism_cli.console import printable
from prism_cli.outputs import local_path
from prism_cli.places import run_folder
from prism_cli.runner.projects import Project
from prism_merger.volume import replace_file

_BLOCK_BYTES = 1 << 20
RESULTS = "results"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One file of a run. path: where it is now; None: it is not there, for the reason in `why`."""

    name: str
    path: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Leavings:
    """Where a run's files are, as far as they are known when it has ended."""

    run_id: str
    outputs: tuple[str, ...]
    folder: Path

    @classmethod
    def of(cls, connection: Connection, view: RunView, project: Project) -> "Leavings":
        """Return what an ended run left."""
        # A retry completes its parent's output.
        outputs = tuple(local_path(one, connection.data_dir) for one in view.progress.outputs)
        return cls(view.run_id, outputs, run_folder(connection, view, project.logs.as_posix()))


def deliver(project: Project, left: Leavings, wanted: LogSettings) -> list[Delivery]:
    """Bring a run's files to their places; return where each is."""
    found = [_results(project, one) for one in left.outputs]
    found = found or [Delivery(RESULTS, None, "no output was published")]
    found += [_report(left, name, target) for name, target in _places(project, left.run_id, wanted)]
    plots = left.folder / f"report_{left.run_id}.html"
    return [*found, Delivery("report", _told(plots))] if plots.is_file() else found


def _places(project: Project, run_id: str, wanted: LogSettings) -> Iterator[tuple[str, Path]]:
    if wanted.save_terminal_logs:
        yield "log", project.logs / "terminal_logs" / f"run_{run_id}.log"
    if wanted.create_summaries:
        yield "summary", project.logs / "summaries" / f"summary_{run_id}.md"
    if wanted.create_analytics:
        yield "analytics", project.folder / "analytics" / f"analytics_{run_id}.csv"


def _results(project: Project, place: str) -> Delivery:
    source = Path(place)
    if not source.is_file():
        return Delivery(RESULTS, place, "not on this machine: prism fetch brings it")
    return _delivered(RESULTS, source, project.outputs / source.name)


def _report(left: Leavings, name: str, target: Path) -> Delivery:
    source = left.folder / target.name
    if not source.is_file():
        return Delivery(name, None, f"not in {printable(str(left.folder))}")
    return _delivered(name, source, target)


def _delivered(name: str, source: Path, target: Path) -> Delivery:
    try:
        if source.resolve() != target.resolve():
            with source.open("rb") as stream:
                replace_file(target, iter(lambda: stream.read(_BLOCK_BYTES), b""))
    except OSError as error:
        return Delivery(name, str(source), f"cannot be copied to {target}: {error.strerror}")
    return Delivery(name, _told(target))


def _told(path: Path) -> str:
    """Return a path as somebody here would type it."""
    with suppress(ValueError):
        path = path.resolve().relative_to(Path.cwd().resolve())
    return str(path)
