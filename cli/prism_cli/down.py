"""`prism down`: stop the fleet of this folder. What is under way goes on at the next start."""

from argparse import Namespace

from prism_cli import connection as connections
from prism_cli import fleet_file
from prism_cli.console import printable, say, write_json
from prism_cli.exits import DONE
from prism_cli.own_fleet import take_down


def run(options: Namespace) -> int:
    """Ask the fleet to stop and wait for its end."""
    folder = connections.data_dir(options, connections.environment())
    alive = fleet_file.alive(folder)
    if alive:
        say("stopping: running calls end first")
        take_down(folder)
    if options.json:
        write_json({"data_dir": str(folder), "was_up": alive})
    else:
        say("stopped" if alive else f"no fleet runs in {printable(str(folder))}")
    return DONE
