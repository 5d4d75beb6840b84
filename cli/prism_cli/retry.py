"""`prism retry`: the failed rows of a run again, as a child run whose publication completes the run's output.

The rows come from the list that the merger left (`failed_rows.csv`), the job and the prompt from the run
itself, so that nothing but the answers can differ.
"""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import BadMessage, RequestedFile, RunFile, RunRecord, RunRequest, RunState
from prism.runs.job import Job, parse_job
from prism.runs.table import RunsTable
from prism.tables import render_line
from prism_cli import connection as connections
from prism_cli import own_fleet
from prism_cli.arrival import known_run
from prism_cli.board import CATCH_UP_S, Board, RunView, read_to_end
from prism_cli.connection import Connection
from prism_cli.console import count, printable, say
from prism_cli.exits import BAD_INPUT, CommandFailed
from prism_cli.idle import looking_on
from prism_cli.job_spec import merged
from prism_cli.places import run_folder
from prism_cli.run_request import FileEnvelope, send_run
from prism_cli.submission import Source, examine
from prism_cli.watching import attend, finish, leave_running

TAB = "\t"
_CHILD = re.compile(r"(?P<parent>.+)\.r(?P<number>[0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class FailedRows:
    """The failed rows of one file, as the merger left them. `filename` says how they are written."""

    label: str
    source: Source
    filename: str


def run(options: Namespace) -> int:
    """Retry a run's failed rows and follow the child to its end."""
    environ = connections.environment()
    folder = connections.data_dir(options, environ)
    with looking_on(folder):
        if own_fleet.is_there(options, environ):
            return _retry(connections.connect(options), options)
        plan = own_fleet.plan_again(options.run_id, options, environ)
        connection, own = own_fleet.bring_up(plan, options, environ)
        code = _retry(connection, options)
    if own and not options.detach and options.timeout is None:
        own_fleet.leave(connection)
    return code


def _retry(connection: Connection, options: Namespace) -> int:
    board = Board(connection)
    try:
        board.catch_up()
        view = known_run(board, connection, options.run_id)
        run_id = begin(connection, board, view, options.publish)
        if options.detach:
            return leave_running(board, run_id, options.json)
        return finish(attend(board, run_id, options.timeout), connection.data_dir, options.json)
    finally:
        board.close()


def begin(connection: Connection, board: Board, view: RunView, publish_only: bool) -> str:
    """Ask for the child run; return its id. Raises CommandFailed (3) if there is nothing to do again."""
    root = view.record.parent or view.run_id
    last = newest_of_family(board, root)
    if last.state is not RunState.COMPLETED_WITH_FAILURES:
        raise CommandFailed(
            BAD_INPUT, _nothing_to_retry(last), next=f"look at it: prism status {last.run_id}"
        )
    published = is_published(board, root)
    if publish_only and published:
        raise CommandFailed(BAD_INPUT, f"{root} is published already", next=f"prism status {root}")
    record = whole_record(connection, root)
    job = parse_job(record.job)
    found = failed_rows(connection, last, job)
    run_id = f"{root}.r{_next_number(board, root)}"
    with TemporaryDirectory(prefix="prism-retry-") as scratch:
        if not published:
            # The files without failed rows are withheld too, and wait to be published with the others.
            found = in_full(record, [] if publish_only else found, Path(scratch))
        request = _request(record, root, found, publish_only)
        send_run(connection, run_id, _addressed(found, run_id), request)
    rows = count(last.progress.rows_failed)
    say(f"{run_id} " + ("publishes it as it is" if publish_only else f"does {rows} failed rows again"))
    return run_id


def _addressed(found: list[FailedRows], run_id: str) -> Iterator[tuple[FileEnvelope, Source]]:
    for number, one in enumerate(found, 1):
        yield FileEnvelope(run_id, number, one.filename), one.source


def in_full(record: RunRecord, found: list[FailedRows], scratch: Path) -> list[FailedRows]:
    """Return every file of a run, those that are not among the found ones with the header alone."""
    by_label = {one.label: one for one in found}
    return [by_label.get(file.label) or _without_rows(file, scratch) for file in record.files]


def _without_rows(file: RunFile, scratch: Path) -> FailedRows:
    path = scratch / _filename(file)
    path.write_text(render_line(file.columns, file.delimiter), encoding="utf-8", newline="")
    return FailedRows(file.label, examine(path), path.name)


def _filename(file: RunFile) -> str:
    """Return the name of a file of rows as the merger writes them: its ending says what parts the cells."""
    return f"failed_rows_{file.label}.{'tsv' if file.delimiter == TAB else 'csv'}"


def newest_of_family(board: Board, root: str) -> RunView:
    """Return the last run that did something for a run's output: the run itself, or its newest retry."""
    family = [one for one in board.runs() if one.record.parent == root and one.state is not RunState.REFUSED]
    children = sorted(family, key=_number)
    if children and not children[-1].ended:
        raise CommandFailed(
            BAD_INPUT, f"{children[-1].run_id} is under way", next=f"prism watch {children[-1].run_id}"
        )
    # One without rows has only published what was withheld: what failed is what had failed before it.
    done = [
        one for one in children if one.record.rows and one.state not in (RunState.CANCELLED, RunState.FAILED)
    ]
    view = done[-1] if done else board.run(root)
    if view is None:
        raise CommandFailed(BAD_INPUT, f"no run {printable(root, 130)} here", next="list them: prism status")
    return view


def is_published(board: Board, root: str) -> bool:
    """Return whether a run's output is there, be it by one of its retries."""
    return any(one.progress.outputs for one in board.runs() if root in (one.run_id, one.record.parent))


def whole_record(connection: Connection, run_id: str, timeout_s: float = CATCH_UP_S) -> RunRecord:
    """Return a run with its prompt, which tables of runs leave out. Raises CommandFailed (3, 4)."""
    table, found = RunsTable(), list[RunRecord]()

    def take(record: Record) -> None:
        if record.key != run_id:
            return
        try:
            applied = table.apply(record.key, record.value)
        except BadMessage:
            return
        if isinstance(applied, RunRecord):
            found.append(applied)

    reader = TableReader(connection.kafka, {connection.topics.runs: take})
    try:
        read_to_end(reader, timeout_s)
    finally:
        reader.close()
    if not found or not found[-1].prompt:
        raise CommandFailed(
            BAD_INPUT, f"{printable(run_id, 130)} has no prompt any more: it cannot be retried"
        )
    return found[-1]


def failed_rows(connection: Connection, view: RunView, job: Job) -> list[FailedRows]:
    """Return the failed rows of each file that has some. Raises CommandFailed (3)."""
    folder = run_folder(connection, view, job.monitoring.logs_dir)
    several = len(view.record.files) > 1
    found = []
    for file in view.record.files:
        progress = view.progress.files.get(file.label)
        if progress is None or not progress.rows_failed:
            continue
        path = folder / (f"failed_rows_{file.label}.csv" if several else "failed_rows.csv")
        if not path.is_file():
            raise CommandFailed(
                BAD_INPUT,
                "the failed rows are not on this machine",
                printable(str(path)),
                f"bring them: prism fetch {view.run_id}",
            )
        found.append(FailedRows(file.label, examine(path), _filename(file)))
    if not found:
        raise CommandFailed(BAD_INPUT, _nothing_to_retry(view))
    return found


def _request(record: RunRecord, root: str, found: list[FailedRows], publish_only: bool) -> RunRequest:
    return RunRequest(
        job_name=record.job_name,
        job=_job(record.job, publish_only),
        prompt=record.prompt,
        model_entry=record.model_entry,
        model_entries=record.model_entries,
        files=[
            RequestedFile(
                label=one.label,
                filename=one.filename,
                sha256=one.source.sha256,
            )
            for one in found
        ],
        parent=root,
    )


def _job(job: Mapping[str, Any], publish_only: bool) -> dict[str, Any]:
    """Return the run's job for its failed rows: all of them, written as the merger writes CSVs."""
    changes: dict[str, Any] = {
        # Nothing, not an empty mapping: that would be laid over the names that are there.
        "table": {"format": "auto", "columns": None},
        "parallelization": {"split_strategy": "auto"},
    }
    if publish_only:
        changes["merge"] = {"condition": "all_success", "max_failed": None}
    return merged(job, changes)


def _next_number(board: Board, root: str) -> int:
    return 1 + max((_number(one) for one in board.runs() if one.record.parent == root), default=0)


def _number(view: RunView) -> int:
    match = _CHILD.fullmatch(view.run_id)
    return int(match["number"]) if match and view.record.parent else 0


def _nothing_to_retry(view: RunView) -> str:
    if view.state is RunState.COMPLETED:
        return f"{view.run_id} has no failed rows"
    if not view.ended:
        return f"{view.run_id} has not ended ({view.state.value})"
    return f"{view.run_id} was {view.state.value}: its rows were never all asked; run it again under a new id"
