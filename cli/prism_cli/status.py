"""`prism status`: one run, or all of them and the workers."""

from argparse import Namespace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from prism.messages import RunState
from prism.runs.models import inputs
from prism_cli import connection as connections
from prism_cli.arrival import known_run
from prism_cli.board import Board, RunView, WorkerView
from prism_cli.console import count, duration, output, printable, say, table, write_json
from prism_cli.exits import DONE
from prism_cli.outputs import local_path

_STYLES = {
    RunState.COMPLETED: "green",
    RunState.COMPLETED_WITH_FAILURES: "yellow",
    RunState.PAUSED: "yellow",
    RunState.CANCELLED: "yellow",
    RunState.REFUSED: "red",
    RunState.FAILED: "red",
}


def run(options: Namespace) -> int:
    """Print a run, or the runs and the workers."""
    connection = connections.connect(options)
    board = Board(connection)
    try:
        board.catch_up()
        if options.run_id:
            _show_run(known_run(board, connection, options.run_id), connection.data_dir, options.json)
        else:
            _show_all(board, connection.data_dir, options.json)
    finally:
        board.close()
    return DONE


def state_text(view: RunView) -> Text:
    """Return the run's state in its colour, with `stalled` beside it."""
    text = Text(view.state.value, style=_STYLES.get(view.state, "cyan"))
    if view.record.stalled and not view.ended:
        text.append(" stalled", style="bold red")
    return text


def run_screen(view: RunView, data_dir: Path | None) -> RenderableType:
    """Return all that is known of one run, a fact a line."""
    facts: list[tuple[str, str | Text]] = [("run", printable(view.run_id)), ("state", state_text(view))]
    facts += [(name, value) for name, value in _reasons(view) if value]
    facts.append(("rows", rows_text(view)))
    facts += [(name, value) for name, value in _work(view) if value]
    for one in view.progress.outputs:
        facts.append(("output", f"{local_path(one, data_dir)} ({count(one.rows)} rows)"))
    lines = Text(overflow="fold")
    for name, fact in facts:
        lines.append(f"{name:<9}", style="bold")
        lines.append(fact if isinstance(fact, Text) else Text(fact))
        lines.append("\n")
    lines.right_crop(1)
    return lines


def rows_text(view: RunView) -> str:
    """Return `120 of 500, 3 failed (not_json 3)`."""
    text = f"{count(view.rows_done)} of {count(view.record.rows)}"
    failed = view.progress.failed_by_reason
    if failed:
        reasons = ", ".join(f"{printable(name)} {count(number)}" for name, number in sorted(failed.items()))
        return f"{text}, {count(view.progress.rows_failed)} failed ({reasons})"
    return f"{text}, {count(view.progress.rows_failed)} failed"


def explanation(view: RunView) -> str:
    """Return why a run is not what one hoped for: detail, reason, line and column."""
    record = view.record
    words = record.detail or view.progress.detail or record.reason or record.stalled or ""
    place = [
        f"{name} {number}" for name, number in (("line", record.line), ("column", record.column)) if number
    ]
    reason = f"{record.reason}: " if record.reason and record.reason not in words else ""
    # The detail may name the place itself.
    missing = [one for one in place if one not in words]
    return printable(reason + words + (f" ({', '.join(missing)})" if missing else ""))


def _reasons(view: RunView) -> list[tuple[str, str]]:
    stalled = view.record.stalled if not view.ended else None
    why = explanation(view)
    return [("stalled", printable(stalled or "")), ("because", "" if why == stalled else why)]


def _work(view: RunView) -> list[tuple[str, str]]:
    progress, record = view.progress, view.record
    calls = f"{count(progress.calls)}, {count(progress.extra_calls)} of them extra" if progress.calls else ""
    if progress.reused_rows:
        calls += f"; {count(progress.reused_rows)} rows needed none"
    tokens = (
        f"{count(progress.prompt_tokens)} in, {count(progress.completion_tokens)} out" if view.tokens else ""
    )
    speed = f"{view.rows_per_s:.1f} rows/s" if view.rows_per_s else ""
    if progress.eta_s is not None and not view.ended:
        speed += f", about {duration(progress.eta_s)} left"
    files = ", ".join(one.filename or one.label for one in inputs(record))
    job = f"{record.job_name}, {files}" if files else record.job_name
    return [
        ("calls", calls),
        ("tokens", tokens),
        ("speed", speed),
        ("job", printable(job)),
        ("accepted", printable(record.created_at)),
    ]


def _show_run(view: RunView, data_dir: Path, as_json: bool) -> None:
    if as_json:
        write_json(view.as_json(data_dir))
    else:
        output().print(run_screen(view, data_dir), soft_wrap=True)


def _show_all(board: Board, data_dir: Path, as_json: bool) -> None:
    runs, workers = board.runs(), board.workers()
    if as_json:
        listed = [view.as_json(data_dir) for view in runs]
        write_json({"runs": listed, "workers": [worker.as_json() for worker in workers]})
        return
    screen: list[RenderableType] = []
    if runs:
        screen.append(_runs_table(runs))
    else:
        say("no runs yet; send one: prism submit FILE --job NAME")
    if workers:
        screen += ([Text("")] if runs else []) + [_workers_table(workers)]
    else:
        say("no model worker is running")
    if screen:
        output().print(Group(*screen))


def _runs_table(runs: list[RunView]) -> RenderableType:
    columns = [("run", "fold"), ("state", "fold"), ("rows", "right"), ("done", "right"), ("failed", "right")]
    rows: list[list[str | Text]] = [
        [
            printable(view.run_id),
            state_text(view),
            count(view.record.rows),
            count(view.rows_done),
            count(view.progress.rows_failed),
            f"{view.rows_per_s:.1f}",
        ]
        for view in runs
    ]
    return table([*columns, ("rows/s", "right")], rows)


def _workers_table(workers: list[WorkerView]) -> RenderableType:
    columns = [("worker", "fold"), ("state", "fold"), ("model", "left"), ("calls now", "right")]
    return table([*columns, ("rows/s", "right")], [_worker_row(worker) for worker in workers])


def _worker_row(worker: WorkerView) -> list[str | Text]:
    one = worker.heartbeat
    state = Text(one.state.value)
    if worker.lost:
        state = Text(f"silent for {duration(worker.silent_s)}", style="red")
    elif one.reason:
        state.append(f": {printable(one.reason, 60)}", style="yellow")
    calls = f"{len(one.in_flight)} of {one.limit}"
    return [printable(one.worker_id), state, printable(one.model, 30), calls, f"{one.rows_per_sec:.1f}"]
