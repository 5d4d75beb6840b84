"""`prism.control`: membership of its group decides who is active; its records are the commands.

A command for a run that is not there yet waits; until it is carried out its offset is not committed, so
that a takeover in the meantime does not lose it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from confluent_kafka import Consumer, KafkaException, TopicPartition

from prism.kafka.admin import patiently
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.dead_letters import DeadLetters
from prism.kafka.errors import raise_if_fatal
from prism.kafka.frontier import OffsetFrontier
from prism.kafka.records import Record
from prism.messages import BadMessage, Command, CommandName, MessageReason
from prism.service.logs import get_logger

log = get_logger(__name__)

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A command that has not been carried out."""

    run_id: str
    command: CommandName
    offset: int
    since: float


class ControlTopic:
    """The one partition of control: whether it is ours, and what was asked."""

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        topic: str,
        clock: Callable[[], float],
        dead_letters: DeadLetters,
    ) -> None:
        self.errors = ErrorWatch()
        self.owned = False
        self.waiting: list[Waiting] = []
        self._topic = topic
        self._clock = clock
        self._dead_letters = dead_letters
        self._frontier = OffsetFrontier(0)
        self._committed = -1
        self._leaving = False
        self._consumer: Consumer = kafka.group_consumer(group, self.errors)
        self._consumer.subscribe(
            [topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def poll(self) -> None:
        """Take in what has come: ownership first, for the callbacks run in here."""
        for message in self._consumer.consume(50, 0):
            error = message.error()
            if error is not None:
                raise_if_fatal(error)
                continue
            self._take(Record.of(message))
        self.errors.check()

    def _take(self, record: Record) -> None:
        if not self.owned or record.offset < self._frontier.position:
            return
        self._frontier.take(record.offset)
        try:
            command = Command.parse(record.value)
        except BadMessage as error:
            # Of this frontier: after a new assignment the record is read again.
            done = partial(self._frontier.finish, record.offset)
            self._dead_letters.send(record, MessageReason.UNKNOWN_COMMAND, str(error), done)
            return
        self.waiting.append(Waiting(record.key, command.command, record.offset, self._clock()))

    def done(self, command: Waiting) -> None:
        """Note that a command was carried out (durably) or given up."""
        self.waiting.remove(command)
        self._frontier.finish(command.offset)

    def commit(self) -> None:
        """Commit what is carried out. A refusal means that another ingestor is active."""
        offset = self._frontier.committable
        if not self.owned or offset == self._committed:
            return
        try:
            self._consumer.commit(offsets=[TopicPartition(self._topic, 0, offset)], asynchronous=False)
            self._committed = offset
        except KafkaException as error:
            raise_if_fatal(error.args[0])
            log.warning("control_commit_refused", error=error.args[0].str())

    def close(self) -> None:
        """Leave the group at once, so that a stand-by takes over without waiting."""
        self._leaving = True
        self._consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # One that is leaving takes nothing more: asking for offsets would wait for a client that is closing.
        if not partitions or self._leaving:
            return
        place = patiently(lambda: consumer.committed(partitions, timeout=_TIMEOUT_S))[0]
        low, high = patiently(lambda: consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S))
        # Beyond the end: the topic was made again.
        start = place.offset if low <= place.offset <= high else low
        self._frontier = OffsetFrontier(start)
        self._committed = place.offset
        self.waiting = []
        consumer.incremental_assign([TopicPartition(self._topic, place.partition, start)])
        self.owned = True

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.owned = False
        self.waiting = []
        if partitions:
            consumer.incremental_unassign(partitions)
