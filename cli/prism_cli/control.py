"""`prism pause`, `resume` and `cancel`: a command on the control topic, then a look at what came of it."""

import time
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from getpass import getuser

from confluent_kafka import KafkaError, Message

from prism.kafka.clients import ErrorWatch
from prism.kafka.errors import BrokerAway, failure
from prism.kafka.records import event_headers
from prism.messages import Command, CommandName, RunState
from prism_cli import connection as connections
from prism_cli.arrival import known_run
from prism_cli.board import Board, RunView
from prism_cli.connection import Connection
from prism_cli.console import say, write_json
from prism_cli.exits import BAD_INPUT, DONE, FAILED, CommandFailed

_SEND_S = 10.0
_EFFECT_S = 10.0


def run(options: Namespace) -> int:
    """Ask for the command and wait until the run shows it."""
    wanted = CommandName(options.command)
    connection = connections.connect(options)
    board = Board(connection)
    try:
        board.catch_up()
        view = known_run(board, connection, options.run_id)
        if obeyed(wanted, view.state):
            return _report(view, wanted, "already", options.json)
        _refuse_ended(wanted, view)
        send(connection, options.run_id, wanted)
        done = _wait(board, lambda: _shows(board, options.run_id, wanted), _EFFECT_S)
        view = board.run(options.run_id) or view
        return _report(view, wanted, "done" if done else "asked", options.json)
    finally:
        board.close()


def obeyed(wanted: CommandName, state: RunState) -> bool:
    """Return whether a run in this state is what the command asks for."""
    match wanted:
        case CommandName.PAUSE:
            return state is RunState.PAUSED
        case CommandName.RESUME:
            return not state.ended and state is not RunState.PAUSED
        case CommandName.CANCEL:
            return state is RunState.CANCELLED
        case CommandName.MERGE:
            return state in (RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES)


def send(connection: Connection, run_id: str, wanted: CommandName) -> None:
    """Produce the command; raise BrokerAway if it is not acknowledged in time."""
    now = datetime.now(UTC)
    command = Command(command=wanted, issued_at=now.isoformat(timespec="milliseconds"), issued_by=_who())
    ce_id = f"{run_id}/{wanted.value}/{now:%Y%m%dT%H%M%S%f}"
    headers: list[tuple[str, str | bytes | None]] = [*event_headers("command", ce_id, "prism-cli", run_id)]
    reports: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        del message
        reports.append(error)

    producer = connection.kafka.producer(ErrorWatch())
    topic = connection.topics.control
    producer.produce(topic, command.to_bytes(), run_id.encode(), headers=headers, on_delivery=delivered)
    producer.flush(_SEND_S)
    what = f"{connection.bootstrap} did not take the command"
    if not reports:
        raise BrokerAway(f"{what}: no answer within {_SEND_S:.0f} s; try again")
    if reports[0] is not None:
        raise failure(what, reports[0])


def _refuse_ended(wanted: CommandName, view: RunView) -> None:
    if view.ended:
        raise CommandFailed(
            BAD_INPUT,
            f"{view.run_id} has ended ({view.state.value})",
            next=f"there is nothing to {wanted.value}",
        )


def _shows(board: Board, run_id: str, wanted: CommandName) -> bool:
    view = board.run(run_id)
    return view is not None and (view.ended or obeyed(wanted, view.state))


def _wait(board: Board, met: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not met():
        if time.monotonic() > deadline:
            return False
        board.poll(0.1)
    return True


def _report(view: RunView, wanted: CommandName, outcome: str, as_json: bool) -> int:
    applied = obeyed(wanted, view.state)
    if as_json:
        write_json(
            {"run_id": view.run_id, "command": wanted.value, "state": view.state.value, "applied": applied}
        )
    if outcome == "asked":
        say(
            f"prism: {view.run_id} is still {view.state.value}: asked to {wanted.value}, no answer within "
            f"{_EFFECT_S:.0f} s; is an ingestor running? prism doctor"
        )
        return FAILED
    say(f"{view.run_id} is {'already ' if outcome == 'already' else ''}{view.state.value}")
    return DONE if applied else FAILED


def _who() -> str:
    try:
        return getuser()
    except (KeyError, OSError):
        return ""
