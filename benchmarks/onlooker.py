"""`python -m benchmarks.onlooker BOOTSTRAP RUN NOTES`: the dashboard on a run, noting what it draws when.

It is the product's own, follower and screen, with the refresh rules of the run's job. A line of NOTES is
written once the terminal has a picture: the moment in seconds since 1970, and the rows that stand there.
"""

import sys
import time
from pathlib import Path
from typing import TextIO

from prism.kafka.clients import KafkaSettings
from prism.messages import Topics
from prism_cli.board import Board
from prism_cli.connection import Connection
from prism_cli.dashboard.follower import Follower
from prism_cli.dashboard.picture import Picture
from prism_cli.dashboard.screen import Dashboard

READY = "ready"


class NotingDashboard(Dashboard):
    """Draws, and notes it."""

    def __init__(self, run_id: str, notes: TextIO) -> None:
        super().__init__(run_id)
        self._notes = notes

    def on_dashboard_taken(self, message: Dashboard.Taken) -> None:
        """Note what is drawn now, when it is: textual calls the base class's handler itself."""
        self.call_after_refresh(self._note, message.picture)

    def _note(self, picture: Picture) -> None:
        rows = picture.view.rows_done if picture.view is not None else 0
        print(f"{time.time():.3f} {rows}", file=self._notes, flush=True)


def main(bootstrap: str, run_id: str, path: str) -> int:
    """Look on until the run has ended."""
    settings = KafkaSettings(bootstrap, "onlooker", {"log_level": "0"})
    board = Board(Connection(settings, Topics(), "benchmark", Path("data"), None))
    with open(path, "a", encoding="utf-8") as notes:
        board.catch_up()
        print(READY, file=notes, flush=True)
        app = NotingDashboard(run_id, notes)
        app.follower = follower = Follower(board, run_id, app.take, app.finish)
        app.run(mouse=False)
        follower.leave()
        follower.join()
    board.close()
    for failure in (follower.failure, app.crash):
        if failure is not None:
            raise failure
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
