"""What a Kafka error asks of the caller: wait, or stop the process."""

from confluent_kafka import KafkaError

# librdkafka reported `_FATAL` with `fatal()` false (DESIGN.md section 7): test the code too.
_FATAL_CODES = {KafkaError._FATAL, KafkaError._FENCED}
_STALE_MEMBER_CODES = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._NO_OFFSET,
    KafkaError._STATE,
}


class BrokerFatal(Exception):
    """The client cannot go on: stop the process, its supervisor starts a new one."""


class BrokerAway(Exception):
    """The broker did not answer in time: try again later."""


def is_fatal(error: KafkaError) -> bool:
    """Return whether a client that reported this error is beyond repair."""
    return bool(error.fatal()) or error.code() in _FATAL_CODES


def is_stale_member(error: KafkaError) -> bool:
    """Return whether a commit was refused because the partition moved on: routine, the new owner decides."""
    return error.code() in _STALE_MEMBER_CODES


def raise_if_fatal(error: KafkaError | None) -> None:
    """Raise BrokerFatal for an error that only a new process can cure."""
    if error is not None and is_fatal(error):
        raise BrokerFatal(f"Kafka client: {error.str()}")
