"""What an operator asks of topics: how they are, more partitions, other settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from prism.kafka.errors import failure

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it; `replication`: the least of its partitions."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def topic_states(admin: AdminClient, names: Sequence[str]) -> dict[str, TopicState]:
    """Return the topics that are there, by name. Raises BrokerAway or BrokerRefused."""
    found: dict[str, tuple[int, int]] = {}
    answers = admin.describe_topics(TopicCollection(list(names)), request_timeout=_TIMEOUT_S)
    for name, answer in answers.items():
        try:
            partitions = answer.result().partitions
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise failure(f"describe {name}", error.args[0]) from None
        found[name] = (len(partitions), min((len(one.replicas) for one in partitions), default=0))
    return {name: TopicState(name, *shape, _config(admin, name)) for name, shape in found.items()}


def _config(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    answer = admin.describe_configs([resource], request_timeout=_TIMEOUT_S)[resource]
    return {
        key: str(entry.value) for key, entry in _result(f"ask for the settings of {name}", answer).items()
    }


def change_settings(admin: AdminClient, name: str, settings: Mapping[str, str]) -> None:
    """Set some of a topic's settings and leave the others. Raises BrokerAway or BrokerRefused."""
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    answer = admin.incremental_alter_configs([resource], request_timeout=_TIMEOUT_S)[resource]
    _result(f"change the settings of {name}", answer)


def grow(admin: AdminClient, name: str, partitions: int) -> None:
    """Give a topic so many partitions in all. Raises BrokerAway or BrokerRefused."""
    answer = admin.create_partitions([NewPartitions(name, partitions)], request_timeout=_TIMEOUT_S)[name]
    _result(f"add partitions to {name}", answer)


def _result(what: str, answer: Any) -> Any:
    try:
        return answer.result()
    except KafkaException as error:
        raise failure(what, error.args[0]) from None
