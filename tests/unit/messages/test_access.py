"""The table of who may do what: least privilege, by names that settings give."""

import pytest

from prism.messages import Topics
from prism.messages.access import (
    CLUSTER,
    Grant,
    Names,
    Operation,
    Resource,
    Role,
    allowed,
    grants,
)

SERVICES = (Role.INGESTOR, Role.MODEL_WORKER, Role.MERGER)
NAMES = Names(
    Topics("x."), "x-workers", "x-ingestors", "x-requests", "x-photos", "x-photo-replies", "x-replies"
)


@pytest.mark.parametrize("role", Role)
def test_nothing_is_granted_by_wildcard_or_twice(role: Role) -> None:
    given = grants(role, NAMES)
    assert given
    assert all(one.name not in ("", "*") and "All" not in one.operations for one in given)
    assert len({(one.resource, one.name, one.prefixed) for one in given}) == len(given)
    assert [one for one in given if one.prefixed] == (
        [Grant(Resource.GROUP, "client-", (Operation.READ,), True)]
        if role in (Role.SENDER, Role.REQUESTER)
        else []
    )


@pytest.mark.parametrize("role", SERVICES)
def test_no_service_makes_or_changes_anything_but_records(role: Role) -> None:
    powers = {operation for one in grants(role, NAMES) for operation in one.operations}
    assert powers <= {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.DESCRIBE}
    assert not [one for one in grants(role, NAMES) if one.resource is Resource.CLUSTER]


def test_each_topic_has_the_writers_of_the_design() -> None:
    topics = NAMES.topics
    writers = {
        spec.name: {
            role for role in Role if allowed(grants(role, NAMES), Resource.TOPIC, spec.name, Operation.WRITE)
        }
        for spec in topics.specs()
    }
    assert writers == {
        topics.intake: {Role.OPERATOR, Role.SENDER},
        topics.control: {Role.OPERATOR},
        topics.runs: {Role.INGESTOR},
        topics.batches: {Role.INGESTOR},
        topics.results: {Role.MODEL_WORKER},
        topics.progress: {Role.MERGER},
        topics.workers: {Role.MODEL_WORKER},
        topics.dead_letter: set(SERVICES),
        topics.outputs: {Role.MERGER},
    }


def test_names_follow_the_settings() -> None:
    for role in Role:
        for one in grants(role, NAMES):
            assert one.name.startswith("x") or one.name in ("prism-reader", "client-", CLUSTER), one


def test_without_requests_nobody_may_touch_their_topics() -> None:
    names = Names(request_topic="")
    for role in Role:
        for topic in ("eater-send-photo", "photo-analysis-response", "gemini-response"):
            assert not allowed(grants(role, names), Resource.TOPIC, topic, Operation.DESCRIBE)
    assert grants(Role.REQUESTER, names) == []


def test_one_group_for_both_lanes_is_granted_once() -> None:
    names = Names(worker_group="one", request_group="one")
    for role in (Role.MODEL_WORKER, Role.SCALER):
        assert [one.name for one in grants(role, names)].count("one") == 1


@pytest.mark.parametrize("role", Role)
def test_one_topic_for_both_kinds_of_replies_is_granted_once(role: Role) -> None:
    given = [one.name for one in grants(role, Names(photo_reply_topic="replies", text_reply_topic="replies"))]
    assert given.count("replies") == (1 if role in (Role.MODEL_WORKER, Role.ADMIN, Role.REQUESTER) else 0)


def test_describe_is_implied_as_kafka_implies_it() -> None:
    grant = Grant(Resource.TOPIC, "t", (Operation.READ,))
    assert grant.allows(Resource.TOPIC, "t", Operation.DESCRIBE)
    assert not grant.allows(Resource.TOPIC, "t", Operation.WRITE)
    assert not grant.allows(Resource.TOPIC, "t2", Operation.READ)
    assert not grant.allows(Resource.GROUP, "t", Operation.READ)
    create = Grant(Resource.TOPIC, "t", (Operation.CREATE,), prefixed=True)
    assert create.allows(Resource.TOPIC, "tt", Operation.CREATE)
    assert not create.allows(Resource.TOPIC, "t", Operation.DESCRIBE)
