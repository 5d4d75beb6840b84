"""What `prism run` does when a run has ended: waits for its reports, asks about failed rows, tells it."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable

from prism.messages import RunState
from prism_cli.board import Board, RunView
from prism_cli.connection import Connection
from prism_cli.console import count, printable, say
from prism_cli.idle import reported
from prism_cli.job_spec import JobSpec
from prism_cli.places import output_root
from prism_cli.watching import attend, finish

# A summary of a million rows takes half a minute; nobody waits for it longer than for rows.
_REPORTS_S = 45.0
_POLL_S = 0.2
_CHOICES = {"r": "retry", "p": "publish", "l": "leave"}

# Says what came of an ended run, and returns the exit code that says the same.
Tell = Callable[[Connection, RunView, Namespace], int]


def tell_run(connection: Connection, view: RunView, options: Namespace) -> int:
    """Print an ended run as `prism run` does."""
    code = finish(view, connection.data_dir, options.json)
    root = output_root(connection, view)
    for one in view.progress.reports or ():
        if one.endswith((".md", ".html")):
            say(f"{'summary' if one.endswith('.md') else 'report'}: {printable(str(root / one))}")
    return code


class Aftermath:
    """The end of a followed run."""

    def __init__(
        self, connection: Connection, board: Board, spec: JobSpec, options: Namespace, tell: Tell = tell_run
    ) -> None:
        self._connection = connection
        self._board = board
        self._spec = spec
        self._options = options
        self._tell = tell

    def after(self, view: RunView) -> int:
        """Return the exit code of an ended run; a retry's, if its rows are done again.

        Raises KeyboardInterrupt when somebody leaves; the run has been told then.
        """
        try:
            view = self._await_reports(view)
        except KeyboardInterrupt:
            self._tell(self._connection, view, self._options)
            say(f"its summary comes by itself; see it: prism summary {view.run_id}")
            raise
        code = self._tell(self._connection, view, self._options)
        choice = self._choice(view)
        if choice == "leave":
            return code
        return self._again(view, choice)

    def _await_reports(self, view: RunView) -> RunView:
        deadline = time.monotonic() + _REPORTS_S
        while not reported(view) and time.monotonic() < deadline:
            self._board.poll(_POLL_S)
            view = self._board.run(view.run_id) or view
        return view

    def _choice(self, view: RunView) -> str:
        """Return what becomes of the failed rows: as asked, as the flag says, else they are left."""
        if not view.progress.rows_failed or not _retryable(view):
            return "leave"
        if self._options.on_failure not in (None, "ask"):
            return self._as_told(view)
        wanted = self._spec.job.error_handling.prompt_on_failure or self._options.on_failure == "ask"
        if not wanted or self._options.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return "leave"
        return _asked(view)

    def _as_told(self, view: RunView) -> str:
        """Return what the flag says, once: what fails again would be asked for ever, and may cost money."""
        told = str(self._options.on_failure)
        done = view.record.parent or (told == "publish" and view.progress.outputs)
        return "leave" if done else told

    def _again(self, view: RunView, choice: str) -> int:
        from prism_cli import retry

        run_id = retry.begin(self._connection, self._board, view, publish_only=choice == "publish")
        ended = attend(self._board, run_id, self._options.timeout, plain=self._options.plain)
        return self.after(ended)


def _retryable(view: RunView) -> bool:
    return view.state is RunState.COMPLETED_WITH_FAILURES


def _asked(view: RunView) -> str:
    failed = count(view.progress.rows_failed)
    published = bool(view.progress.outputs)
    say(f"{failed} rows failed. [r] retry them now" + ("" if published else ", [p] publish as it is"))
    while True:
        sys.stderr.write("[r/l] " if published else "[r/p/l] ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        choice = _CHOICES.get(line.strip().lower()[:1], "leave" if not line.strip() else "")
        if choice and not (published and choice == "publish"):
            return choice
