"""Topics made and asked about: creation, ids, ends, a group's commits, deletion by need."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from prism.kafka.errors import BrokerAway, BrokerRefused, TopicAbsent, failure, is_fatal, raise_if_fatal
from prism.messages.access import Grant, Operation, Resource
from prism.messages.topics import TopicSpec

_TIMEOUT_S = 10.0
_LEADERS_S = 30.0
_PATIENCE_S = 60.0
_REFUSED_S = 15.0
_EARLIEST: Any = OffsetSpec.earliest()
_LATEST: Any = OffsetSpec.latest()

_AS_KAFKA = {one: AclOperation[one.name] for one in Operation}

T = TypeVar("T")


def _ask(what: str, call: Callable[[], Any]) -> Any:
    """Run an admin call; turn its failure into BrokerAway or BrokerRefused."""
    try:
        return call()
    except KafkaException as error:
        raise failure(what, error.args[0]) from None


def patiently(ask: Callable[[], T]) -> T:
    """Ask until the broker answers: for a rebalance's callbacks, which have no later.

    For 60 s at most; what it does not allow may be allowed again for 15 s.
    """
    began = time.monotonic()
    while True:
        try:
            return ask()
        except (KafkaException, BrokerAway, BrokerRefused) as error:
            found = failure("ask", error.args[0]) if isinstance(error, KafkaException) else error
            waited_s = time.monotonic() - began
            if isinstance(found, BrokerRefused) and waited_s > _REFUSED_S:
                raise found from None
            if isinstance(error, KafkaException) and is_fatal(error.args[0]):
                raise_if_fatal(error.args[0])
            if waited_s > _PATIENCE_S:
                raise
            time.sleep(0.2)


def ensure_topics(
    admin: AdminClient, specs: Iterable[TopicSpec], partitions: int, replicas: int = -1
) -> list[str]:
    """Make the topics that are not there, wait until all can be used, return the names of the new ones.

    Several services start at once: a topic that another made meanwhile is there all the same.
    """
    wanted = list(specs)
    there = _ask("list topics", lambda: admin.list_topics(timeout=_TIMEOUT_S)).topics
    missing = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions or partitions,
            replication_factor=replicas,
            config=spec.config,
        )
        for spec in wanted
        if spec.name not in there
    ]
    for name, future in _create(admin, missing).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _not_made(name, error.args[0]) from None
    _await_leaders(admin, wanted)
    return [topic.topic for topic in missing]


def _not_made(name: str, error: KafkaError) -> BrokerAway | BrokerRefused:
    found = failure(f"make topic {name}", error)
    if not isinstance(found, BrokerRefused):
        return found
    # A service should not be granted this.
    return BrokerRefused(
        f"make topic {name}: the broker does not allow it ({error.str()}); have prism admin topics --create "
        "make it, as a user who may, and run services with PRISM_CREATE_TOPICS=false"
    )


def _create(admin: AdminClient, topics: list[Any]) -> dict[str, Any]:
    if not topics:
        return {}  # librdkafka refuses an empty request
    return dict(admin.create_topics(topics, request_timeout=_TIMEOUT_S))


def _await_leaders(admin: AdminClient, specs: Iterable[TopicSpec]) -> None:
    """Wait until every partition answers: a topic that was just made has no leaders for a moment."""
    deadline = time.monotonic() + _LEADERS_S
    for spec in specs:
        while True:
            try:
                topic_ends(admin, spec.name, range(max(1, partition_count(admin, spec.name))))
                break
            except BrokerAway:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def partition_count(admin: AdminClient, topic: str) -> int:
    """Return how many partitions a topic has; 0 when it is not there."""
    what = f"look up {topic}"
    metadata = _ask(what, lambda: admin.list_topics(topic, timeout=_TIMEOUT_S)).topics.get(topic)
    if metadata is None or metadata.error is not None:
        # One that we may not see is not one that is not there.
        raise_if_fatal(metadata.error if metadata is not None else None, what)
        return 0
    return len(metadata.partitions)


def assert_allowed(admin: AdminClient, grants: Iterable[Grant]) -> None:
    """Raise BrokerRefused naming what we may not do with which topics, TopicAbsent for one that is not there.

    Asked at the start, so that what is missing is said at once and by its name, and not when the first record
    of its kind is due. (Groups are not asked about: see `committed_offsets`; a member hears of it itself.)
    """
    wanted = [one for one in grants if one.resource is Resource.TOPIC]
    names = TopicCollection(list(dict.fromkeys(one.name for one in wanted)))
    answers = admin.describe_topics(names, include_authorized_operations=True, request_timeout=_TIMEOUT_S)
    missing = [(one.name, _not_allowed(one, answers[one.name])) for one in wanted]
    told = "; ".join(f"{', '.join(operations)} of {name}" for name, operations in missing if operations)
    if told:
        raise BrokerRefused(
            f"the broker does not allow us {told}; grant it: prism admin acls says what is needed"
        )


def _not_allowed(grant: Grant, answer: Any) -> list[str]:
    try:
        told = answer.result().authorized_operations
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return [one.value for one in grant.operations]
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicAbsent(f"topic {grant.name} is not there") from None
        raise failure(f"describe {grant.name}", error.args[0]) from None
    # A broker that tells nothing here is not asked: what it refuses later is said then.
    given = {AclOperation(one) for one in told or ()}
    return [one.value for one in grant.operations if given and _AS_KAFKA[one] not in given]


def topic_id(admin: AdminClient, topic: str) -> str:
    """Return the id that the cluster gave a topic; empty when it is not there.

    A topic that was deleted and made again has another id: offsets noted before mean nothing then.
    """

    def describe() -> str:
        future = admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_S)[topic]
        return str(future.result().topic_id)

    try:
        return describe()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return ""
        raise failure(f"describe {topic}", error.args[0]) from None


@dataclass(frozen=True, slots=True)
class Ends:
    """First offset kept and next offset to come, by partition."""

    low: dict[int, int]
    high: dict[int, int]


def topic_ends(admin: AdminClient, topic: str, partitions: Iterable[int]) -> Ends:
    """Return where each partition begins and ends now."""
    wanted = list(partitions)

    def ask(spec: Any) -> dict[int, int]:
        futures = admin.list_offsets(
            {TopicPartition(topic, one): spec for one in wanted}, request_timeout=_TIMEOUT_S
        )
        return {place.partition: future.result().offset for place, future in futures.items()}

    return Ends(
        low=_ask(f"ask where {topic} begins", lambda: ask(_EARLIEST)),
        high=_ask(f"ask where {topic} ends", lambda: ask(_LATEST)),
    )


def committed_offsets(asker: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the committed offset by partition of `asker`'s group; a partition without one is left out.

    `asker` is a consumer that never subscribes, so it is no member. The admin client's own question is of
    no use: after a broker's restart it is never answered again, and at the next one it aborts the process
    (librdkafka 2.16.0, issues 3663 and 4605: `eonce->refcnt > 0`).
    """
    wanted = [TopicPartition(topic, one) for one in partitions]
    found = _ask(f"ask what is committed in {topic}", lambda: asker.committed(wanted, timeout=_TIMEOUT_S))
    for one in found:
        if one.error is not None:
            raise failure(f"ask what is committed in {topic}", one.error)
    return {one.partition: one.offset for one in found if one.offset >= 0}


def delete_below(admin: AdminClient, topic: str, offsets: Mapping[int, int]) -> None:
    """Let the broker forget what lies below the offsets. A partition that is gone is no error."""
    if not offsets:
        return
    wanted = [TopicPartition(topic, one, offset) for one, offset in offsets.items()]
    for place, future in admin.delete_records(wanted, request_timeout=_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_OR_PART):
                raise failure(f"delete below {place}", error.args[0]) from None
