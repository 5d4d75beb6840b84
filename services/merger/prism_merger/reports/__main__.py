"""`python -m prism_merger.reports FACTS.json`: write one run's summary, analytics and report.

Argument. Each file appears by a rename, and what it holds follows from the facts and the rows alone: a death
at any instruction is mended by doing it all again. Two processes never write at once: the lock beside the
facts is the kernel's, and one that was left by a merger that died gives it back, because it dies too, when
its standard input (a pipe that only the merger holds) ends.
"""

import fcntl
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from prism_merger.reports.analytics import analytics
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import figures
from prism_merger.reports.page import page
from prism_merger.reports.summary import summary
from prism_merger.reports.tally import count_rows
from prism_merger.volume import replace_file

WITH_PARENT = "--with-parent"
_NICE = 10
_EXIT_FAILED = 1
_EXIT_USAGE = 2


def write_reports(facts: Facts) -> None:
    """Write the wanted files. Raises OSError, sqlite3.Error, and ValueError where rows do not add up."""
    found, findings = figures(facts), count_rows(facts)
    texts: tuple[tuple[str | None, Callable[[], Iterable[bytes]]], ...] = (
        (facts.analytics, lambda: analytics(facts, found, findings)),
        (facts.summary, lambda: [summary(facts, found, findings).encode()]),
        (facts.report, lambda: page(facts, found, findings)),
    )
    for path, content in texts:
        if path is not None:
            replace_file(Path(path), content())


def main(arguments: list[str]) -> int:
    """Return the exit status; what went wrong is one line on stderr."""
    if WITH_PARENT in arguments:
        arguments = [one for one in arguments if one != WITH_PARENT]
        threading.Thread(target=_die_with_parent, daemon=True).start()
        os.nice(_NICE)
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m prism_merger.reports FACTS.json\n")
        return _EXIT_USAGE
    path = Path(arguments[0])
    try:
        with path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_reports(Facts.model_validate_json(path.read_bytes()))
    except (OSError, sqlite3.Error, ValidationError, ValueError) as error:
        sys.stderr.write(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}\n")
        return _EXIT_FAILED
    return 0


def _die_with_parent() -> None:
    """End at once when nobody holds the other end of standard input."""
    while os.read(0, 4096):
        pass
    os._exit(_EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
