"""Where on this machine a run's files lie, if they lie here."""

from pathlib import Path

from prism_cli.board import RunView
from prism_cli.connection import Connection


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
