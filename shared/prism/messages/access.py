"""Who may do what on the broker: the one table from which ACLs are made and against which they are tested.

Least privilege: each service has what it uses and nothing else. A grant's operations are Kafka's own; Read,
Write, Delete and Alter imply Describe there (and AlterConfigs DescribeConfigs), so that it stands only where
it is all that is granted. An idempotent producer needs nothing beside Write (Kafka 2.8 and later). No service
may create topics: `prism admin topics` makes them, and services run with PRISM_CREATE_TOPICS=false.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from prism.messages.intake import INGESTOR_GROUP, reading_group
from prism.messages.topics import (
    PHOTO_REPLY_TOPIC,
    READER_GROUP,
    REQUEST_GROUP,
    REQUEST_TOPIC,
    TEXT_REPLY_TOPIC,
    WORKER_GROUP,
    Topics,
)

CLUSTER = "kafka-cluster"


class Role(StrEnum):
    """Who comes to the broker; the name of its principal unless an operator chooses another."""

    INGESTOR = "ingestor"
    MODEL_WORKER = "model-worker"
    MERGER = "merger"
    # A person with the `prism` command: looks on, commands runs, sends files, reads the dead letters.
    OPERATOR = "operator"
    # `prism admin`: makes and changes topics and ACLs.
    ADMIN = "admin"
    # A client that drops files and hears of what was published.
    SENDER = "sender"
    # A client that sends photo and text requests and reads the replies.
    REQUESTER = "requester"
    # An autoscaler that reads the lag of the two worker groups.
    SCALER = "scaler"


class Resource(StrEnum):
    """What an ACL is about."""

    TOPIC = "topic"
    GROUP = "group"
    CLUSTER = "cluster"


class Operation(StrEnum):
    """Kafka's operations, as `kafka-acls.sh` and Strimzi spell them."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DELETE = "Delete"
    ALTER = "Alter"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"
    ALTER_CONFIGS = "AlterConfigs"


_IMPLY_DESCRIBE = {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER}


@dataclass(frozen=True, slots=True)
class Grant:
    """What one role may do with one resource; `prefixed`: with each whose name begins so."""

    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False

    def allows(self, resource: Resource, name: str, operation: Operation) -> bool:
        """Return whether the broker would allow the operation because of this grant."""
        if resource is not self.resource or not (name == self.name or self._begins(name)):
            return False
        if operation is Operation.DESCRIBE and _IMPLY_DESCRIBE.intersection(self.operations):
            return True
        return operation in self.operations or (
            operation is Operation.DESCRIBE_CONFIGS and Operation.ALTER_CONFIGS in self.operations
        )

    def _begins(self, name: str) -> bool:
        return self.prefixed and name.startswith(self.name)


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a fleet's settings give: PRISM_TOPIC_PREFIX, CONSUMER_GROUP, PRISM_INGESTOR_GROUP, …

    `request_topic` empty: no requests are answered. `client_groups`: how the groups of requesters begin.
    """

    topics: Topics = field(default_factory=Topics)
    worker_group: str = WORKER_GROUP
    ingestor_group: str = INGESTOR_GROUP
    request_group: str = REQUEST_GROUP
    request_topic: str = REQUEST_TOPIC
    photo_reply_topic: str = PHOTO_REPLY_TOPIC
    text_reply_topic: str = TEXT_REPLY_TOPIC
    client_groups: str = "client-"

    @property
    def request_topics(self) -> list[str]:
        """The topics of requests and replies; none where no requests are answered."""
        if not self.request_topic:
            return []
        return [self.request_topic, self.photo_reply_topic, self.text_reply_topic]


def grants(role: Role, names: Names) -> list[Grant]:
    """Return all that a role may do, each grant once: one topic may take both kinds of replies."""
    return list(dict.fromkeys(_TABLE[role](names)))


def allowed(given: Iterable[Grant], resource: Resource, name: str, operation: Operation) -> bool:
    """Return whether any of the grants allows the operation."""
    return any(one.allows(resource, name, operation) for one in given)


_R, _W, _DESCRIBE, _DELETE = Operation.READ, Operation.WRITE, Operation.DESCRIBE, Operation.DELETE


def _topic(name: str, *operations: Operation) -> Grant:
    return Grant(Resource.TOPIC, name, operations)


def _group(name: str, *operations: Operation, prefixed: bool = False) -> Grant:
    return Grant(Resource.GROUP, name, operations, prefixed)


# librdkafka asks for the coordinator of the group of every consumer, also of one that joins none.
_READER = _group(READER_GROUP, _DESCRIBE)


def _ingestor(names: Names) -> list[Grant]:
    topics = names.topics
    return [
        # Delete is for delete_records: what no unended run needs is forgotten.
        _topic(topics.intake, _R, _DELETE),
        _topic(topics.control, _R),
        _topic(topics.runs, _R, _W),
        _topic(topics.batches, _R, _W, _DELETE),
        # Where the results end, never what they say.
        _topic(topics.results, _DESCRIBE),
        _topic(topics.progress, _R),
        _topic(topics.workers, _R),
        _topic(topics.dead_letter, _W),
        _group(names.ingestor_group, _R),
        _group(reading_group(names.ingestor_group), _R),
        # What the workers have committed; it cannot commit there.
        _group(names.worker_group, _DESCRIBE),
        _READER,
    ]


def _model_worker(names: Names) -> list[Grant]:
    topics = names.topics
    found = [
        _topic(topics.runs, _R),
        _topic(topics.batches, _R),
        _topic(topics.results, _W),
        _topic(topics.workers, _W),
        _topic(topics.dead_letter, _W),
        _group(names.worker_group, _R),
        _READER,
    ]
    if names.request_topic:
        found += [
            _topic(names.request_topic, _R),
            _topic(names.photo_reply_topic, _W),
            _topic(names.text_reply_topic, _W),
        ]
        if names.request_group != names.worker_group:
            found.append(_group(names.request_group, _R))
    return found


def _merger(names: Names) -> list[Grant]:
    topics = names.topics
    return [
        _topic(topics.runs, _R),
        _topic(topics.results, _R, _DELETE),
        _topic(topics.workers, _R),
        _topic(topics.progress, _W),
        _topic(topics.outputs, _R, _W),
        _topic(topics.dead_letter, _W),
        _READER,
    ]


def _operator(names: Names) -> list[Grant]:
    topics = names.topics
    return [
        _topic(topics.intake, _W),
        _topic(topics.control, _W),
        _topic(topics.runs, _R),
        _topic(topics.progress, _R),
        _topic(topics.workers, _R),
        _topic(topics.outputs, _R),
        _topic(topics.dead_letter, _R),
        # `prism doctor` looks whether all topics are there.
        _topic(topics.batches, _DESCRIBE),
        _topic(topics.results, _DESCRIBE),
        # Whether a file that was sent a moment ago has been taken up.
        _group(reading_group(names.ingestor_group), _DESCRIBE),
        _READER,
    ]


def _admin(names: Names) -> list[Grant]:
    managed = (Operation.CREATE, Operation.ALTER, Operation.ALTER_CONFIGS)
    found = [_topic(spec.name, *managed) for spec in names.topics.specs()]
    found += [_topic(name, *managed) for name in names.request_topics]
    # Alter of the cluster is what CreateAcls asks for.
    return [*found, Grant(Resource.CLUSTER, CLUSTER, (Operation.ALTER,))]


def _sender(names: Names) -> list[Grant]:
    topics = names.topics
    return [
        _topic(topics.intake, _W),
        _topic(topics.outputs, _R),
        _group(names.client_groups, _R, prefixed=True),
    ]


def _requester(names: Names) -> list[Grant]:
    if not names.request_topic:
        return []
    return [
        _topic(names.request_topic, _W),
        _topic(names.photo_reply_topic, _R),
        _topic(names.text_reply_topic, _R),
        _group(names.client_groups, _R, prefixed=True),
    ]


def _scaler(names: Names) -> list[Grant]:
    found = [_topic(names.topics.batches, _DESCRIBE), _group(names.worker_group, _DESCRIBE)]
    if names.request_topic:
        found.append(_topic(names.request_topic, _DESCRIBE))
        if names.request_group != names.worker_group:
            found.append(_group(names.request_group, _DESCRIBE))
    return found


_TABLE = {
    Role.INGESTOR: _ingestor,
    Role.MODEL_WORKER: _model_worker,
    Role.MERGER: _merger,
    Role.OPERATOR: _operator,
    Role.ADMIN: _admin,
    Role.SENDER: _sender,
    Role.REQUESTER: _requester,
    Role.SCALER: _scaler,
}
