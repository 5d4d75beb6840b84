"""`prism summary`: what a run left, in words; the file that the merger wrote, if it is on this machine."""

from argparse import Namespace
from pathlib import Path

from prism_cli import connection as connections
from prism_cli import fleet_file, status
from prism_cli.connection import data_dir
from prism_cli.console import printable, say, write_json, write_line
from prism_cli.exits import BAD_INPUT, DONE, CommandFailed

_MOST_BYTES = 10_000_000


def run(options: Namespace) -> int:
    """Print a run's summary; without one what the fleet knows of it."""
    environ = connections.environment()
    folder = data_dir(options, environ)
    found = next((one for one in _candidates(options.run_id, folder) if one.is_file()), None)
    if found is not None:
        if options.json:
            write_json({"run_id": options.run_id, "path": str(found), "summary": _text(found)})
        else:
            write_line(_text(found).rstrip("\n"))
        return DONE
    if options.bootstrap or environ.get("BOOTSTRAP_SERVER") or fleet_file.alive(folder):
        say(f"no summary of {options.run_id} on this machine (prism fetch brings it); the fleet says:")
        return status.run(options)
    raise CommandFailed(
        BAD_INPUT,
        f"no summary of {printable(options.run_id)}",
        f"{Path.cwd()} and {folder}",
        "is it another folder's run? prism status lists runs while a fleet is up",
    )


def _candidates(run_id: str, folder: Path) -> list[Path]:
    """Return where the summary may lie: below the folders that a fleet writes to, whatever its name."""
    name = f"summary_{run_id}.md"
    usual = [root / "logs" / run_id / name for root in (Path.cwd(), folder)]
    others = [one for root in (Path.cwd(), folder) for one in root.glob(f"*/{run_id}/{name}")]
    return [*usual, *others]


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_MOST_BYTES).decode("utf-8", "replace")
