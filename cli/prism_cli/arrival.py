"""Runs that were sent a moment ago: whoever asks for one waits for the ingestor, and gets no error."""

import time
from collections.abc import Callable

from confluent_kafka import Consumer

from prism.kafka.admin import committed_offsets, partition_count, topic_ends
from prism.kafka.clients import ErrorWatch
from prism.messages.intake import INGESTOR_GROUP, reading_group
from prism_cli.board import Board, RunView
from prism_cli.connection import Connection, environment
from prism_cli.console import printable, say
from prism_cli.exits import BAD_INPUT, CommandFailed

# A stand-by takes over within 6 s, and a fleet that was killed goes on within 10.
WAIT_S = 20.0
# After this a person wants to know why nothing is shown.
_SILENCE_S = 1.0
_PAUSE_S = 0.1


def known_run(board: Board, connection: Connection, run_id: str) -> RunView:
    """Return a run, waiting for it while files lie in intake that nobody has taken up.

    Raises CommandFailed (3) if there is none of that id.
    """
    view = board.run(run_id)
    if view is None:
        intake = IntakeBacklog(connection)
        try:
            view = await_run(board, run_id, intake.waiting)
        finally:
            intake.close()
    if view is None:
        raise CommandFailed(
            BAD_INPUT, f"no run {printable(run_id, 130)} here", next="list them: prism status"
        )
    return view


def await_run(
    board: Board,
    run_id: str,
    waiting: Callable[[], bool],
    wait_s: float = WAIT_S,
    clock: Callable[[], float] = time.monotonic,
) -> RunView | None:
    """Return the run as soon as it is known; None once no file is left that could become it.

    Raises CommandFailed (3) when files wait that are not taken up in time.
    """
    began = clock()
    told = False
    while True:
        # In this order: a file counts as taken up only after its run was written.
        last = not waiting()
        board.refresh()
        view = board.run(run_id)
        if view is not None or last:
            return view
        if clock() - began > wait_s:
            raise CommandFailed(
                BAD_INPUT,
                f"no run {printable(run_id, 130)} here",
                "files wait in intake and nobody takes them up",
                "is an ingestor running? prism doctor",
            )
        if not told and clock() - began > _SILENCE_S:
            told = True
            say(f"{printable(run_id, 130)} is not yet taken up; waiting")
        board.poll(_PAUSE_S)


class IntakeBacklog:
    """Whether intake holds files that no ingestor has taken up."""

    def __init__(self, connection: Connection) -> None:
        self._topic = connection.topics.intake
        self._admin = connection.kafka.admin()
        group = environment().get("PRISM_INGESTOR_GROUP") or INGESTOR_GROUP
        self._asker: Consumer = connection.kafka.reader(ErrorWatch(), **{"group.id": reading_group(group)})

    def waiting(self) -> bool:
        """Return whether any do now. Raises BrokerAway."""
        partitions = range(partition_count(self._admin, self._topic))
        ends = topic_ends(self._admin, self._topic, partitions)
        taken = committed_offsets(self._asker, self._topic, partitions)
        return any(ends.high[one] > max(taken.get(one, 0), ends.low[one]) for one in partitions)

    def close(self) -> None:
        """Leave the broker."""
        self._asker.close()
