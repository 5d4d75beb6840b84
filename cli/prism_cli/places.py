"""Where on this machine a run's files lie, if they lie here."""

from pathlib import Path

from prism_cli.board import RunView
from prism_cli.connection import Connection

# In the data folder: the folder that jobs' folders lie in, of a fleet that was given one.
_ROOT_NOTE = "output-root"


def note_root(data_dir: Path, root: Path) -> None:
    """Note where the outputs of a data folder's runs lie."""
    (data_dir / _ROOT_NOTE).write_text(f"{root}\n")


def noted_root(data_dir: Path) -> Path | None:
    """Return where the outputs of a data folder's runs lie, if they lie elsewhere.

    A later fleet must find them again, to complete them; and so must whoever looks at them without one.
    """
    try:
        known = Path((data_dir / _ROOT_NOTE).read_text().rstrip("\n"))
        return known if known.is_absolute() and known.is_dir() else None
    except (OSError, ValueError):
        return None


def output_root(connection: Connection, view: RunView) -> Path:
    """Return the folder below which the fleet writes what jobs name: by an output, or its fleet file."""
    for one in view.progress.outputs:
        if one.uri.startswith("file://") and one.uri.endswith(one.path):
            return Path(one.uri.removeprefix("file://").removesuffix(one.path))
    fleet = connection.fleet
    if fleet is not None:
        return fleet.output_root or fleet.data_dir
    return connection.data_dir


def run_folder(connection: Connection, view: RunView, logs_dir: str) -> Path:
    """Return the folder of a run's manifest, failures and reports."""
    return output_root(connection, view) / logs_dir / view.run_id
