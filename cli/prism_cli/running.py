"""`prism run`: a job file's run from start to end, with the flags of PRISM v6's orchestrator.

A fleet that is there is used; without one the command brings its own up, and down when nothing is under
way any more. The run belongs to the fleet: it goes on when this command is gone, and is found again by its
id, with its job and files compared.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from prism.messages import CommandName, RunState
from prism_cli import connection as connections
from prism_cli import control, fleet_file, own_fleet
from prism_cli.aftermath import Aftermath, Tell, tell_run
from prism_cli.arrival import known_run
from prism_cli.board import Board, RunView
from prism_cli.connection import Connection
from prism_cli.console import count, printable, say
from prism_cli.exits import BAD_INPUT, BROKER_AWAY, USAGE, CommandFailed
from prism_cli.idle import looking_on
from prism_cli.job_spec import JobSpec, new_run_id, read_spec
from prism_cli.model_choice import EMBEDDED_MODEL
from prism_cli.run_request import request_run
from prism_cli.watching import attend, finish, leave_running

_NEED_RUN_ID = ("resume", "summary", "pause-run", "resume-run")


def run(options: Namespace) -> int:
    """Do what the flags say; without one run the job."""
    if options.deed in _NEED_RUN_ID and options.run_id is None:
        raise CommandFailed(USAGE, f"--{options.deed} needs --run-id", next="list the runs: prism status")
    deeds: Mapping[str | None, Callable[[Namespace], int]] = {
        "dry-run": _dry_run,
        "monitor-only": _monitor,
        "pause-run": _pause,
        "resume-run": _resume_and_leave,
        "summary": _summary,
    }
    return deeds.get(options.deed, _run)(options)


# Running


def _run(options: Namespace) -> int:
    return run_spec(read_spec(options.config, options), options)


def run_spec(spec: JobSpec, options: Namespace, tell: Tell = tell_run) -> int:
    """Run a job and follow it to its end; return the exit code of what `tell` says of it."""
    environ = connections.environment()
    with looking_on(connections.data_dir(options, environ)):
        connection, spec, own = _fleet(spec, options, environ)
        code = _on_fleet(connection, spec, own, options, tell)
    if own and not options.detach and options.timeout is None:
        own_fleet.leave(connection)
    return code


def _fleet(spec: JobSpec, options: Namespace, environ: Mapping[str, str]) -> tuple[Connection, JobSpec, bool]:
    """Return the fleet to use, the job as it will run there, and whether the fleet is our own."""
    if own_fleet.is_there(options, environ):
        connection = connections.connect(options)
        _say_what_does_not_hold(connection, options)
        return connection, _for_fleet(connection, spec, options), False
    plan, spec = own_fleet.plan_for(spec, options, environ)
    connection, own = own_fleet.bring_up(plan, options, environ)
    return connection, spec, own


def _for_fleet(connection: Connection, spec: JobSpec, options: Namespace) -> JobSpec:
    """Return the job with the embedded model where the fleet was made for that."""
    fleet = connection.fleet
    if fleet is None:
        return spec
    # A job without a model was given the embedded one's name when its fleet was brought up for it.
    wanted = spec.job.model.only is None or options.model_server == "embedded"
    return spec.with_model(fleet.model) if wanted and fleet.model == EMBEDDED_MODEL else spec


def _say_what_does_not_hold(connection: Connection, options: Namespace) -> None:
    said = {"--workers": options.workers, "--concurrency": options.concurrency}
    fleet = connection.fleet
    if options.model_server != "auto" and (fleet is None or fleet.model != EMBEDDED_MODEL):
        said["--model-server"] = options.model_server
    names = [name for name, value in said.items() if value is not None]
    if names:
        changes = f"{' and '.join(names)} {'changes' if len(names) == 1 else 'change'} nothing"
        say(f"prism: the fleet at {connection.bootstrap} is there already: {changes}")


def _on_fleet(connection: Connection, spec: JobSpec, own: bool, options: Namespace, tell: Tell) -> int:
    board = Board(connection)
    try:
        board.catch_up()
        run_id = options.run_id or _free_id(board, spec)
        view = _known(board, connection, run_id, options)
        if view is not None:
            _take_up(connection, view, spec)
        else:
            size = request_run(connection, spec, run_id, options)
            say(printable(f"{run_id} sent: {_files(spec)}, {size:,} bytes through the broker"))
        if options.detach:
            return leave_running(board, run_id, options.json)
        if own:
            board.guard = partial(own_fleet.assert_up, connection.data_dir, run_id)
        ended = attend(board, run_id, options.timeout, plain=options.plain, parting=_parting(run_id, own))
        return Aftermath(connection, board, spec, options, tell).after(ended)
    finally:
        board.close()


def _parting(run_id: str, own: bool) -> str:
    told = f"{run_id} goes on; follow it again: prism watch {run_id}"
    return f"{told}\nits fleet stays up for it and goes down by itself; at once: prism down" if own else told


def _known(board: Board, connection: Connection, run_id: str, options: Namespace) -> RunView | None:
    if options.deed == "resume":
        return known_run(board, connection, run_id)
    return board.run(run_id)


def _take_up(connection: Connection, view: RunView, spec: JobSpec) -> None:
    """Go on with a run that is there already; raise CommandFailed (3) if it is another job's or file's."""
    differs = spec.difference(view.record)
    if differs is not None:
        raise CommandFailed(
            BAD_INPUT,
            f"{view.run_id} is another run: {printable(differs, 300)}",
            spec.path.name,
            "take the job and files that it was begun with, or another --run-id",
        )
    if view.state is RunState.PAUSED:
        control.send(connection, view.run_id, CommandName.RESUME)
    done = f"{count(view.rows_done)} of {count(view.record.rows)} rows are merged"
    say(f"{view.run_id} is there already ({view.state.value}); {done}")


def _free_id(board: Board, spec: JobSpec) -> str:
    """Return an id of job, model and time that no other run has."""
    made = new_run_id(spec, datetime.now())
    number, run_id = 1, made
    while board.run(run_id) is not None:
        number += 1
        run_id = f"{made}_{number}"
    return run_id


def _files(spec: JobSpec) -> str:
    if len(spec.files) == 1:
        return spec.files[0].source.path.name
    return f"{count(len(spec.files))} files"


# Looking at a run that is there


def _monitor(options: Namespace) -> int:
    connection = connections.connect(options)
    with looking_on(connection.data_dir):
        board = Board(connection)
        try:
            board.catch_up()
            run_id = options.run_id or _under_way(board, options)
            known = known_run(board, connection, run_id)
            view = attend(board, known.run_id, options.timeout, plain=options.plain)
            return finish(view, connection.data_dir, options.json)
        finally:
            board.close()


def _under_way(board: Board, options: Namespace) -> str:
    """Return the newest run of this job that has not ended, or any other."""
    open_runs = [one for one in board.runs() if not one.ended]
    of_job = [one for one in open_runs if one.record.job_name == options.config.stem]
    if not open_runs:
        raise CommandFailed(BAD_INPUT, "no run is under way", next="name one that has ended: --run-id ID")
    return (of_job or open_runs)[0].run_id


def _summary(options: Namespace) -> int:
    from prism_cli import summary

    return summary.run(options)


def _pause(options: Namespace) -> int:
    environ = connections.environment()
    folder = connections.data_dir(options, environ)
    if not own_fleet.is_there(options, environ) and fleet_file.read(folder) is None:
        raise CommandFailed(BROKER_AWAY, "no fleet is up: nothing runs that could be paused", str(folder))
    options.command = CommandName.PAUSE.value
    return control.run(options)


def _resume_and_leave(options: Namespace) -> int:
    """Go on with a paused run; a fleet that is down is brought up for it."""
    environ = connections.environment()
    with looking_on(connections.data_dir(options, environ)):
        if not own_fleet.is_there(options, environ):
            plan, _ = own_fleet.plan_for(read_spec(options.config, options), options, environ)
            own_fleet.bring_up(plan, options, environ)
        options.command = CommandName.RESUME.value
        return control.run(options)


def _dry_run(options: Namespace) -> int:
    # Imports the services' parts: nothing that a run should wait for.
    from prism_cli import job_forecast

    return job_forecast.run(options)
