"""What a service asks the broker at its start: whether it may do all that it will have to."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

from prism.kafka.admin import assert_allowed
from prism.kafka.errors import BrokerRefused
from prism.messages.access import Grant, Operation, Resource

READ, WRITE = (Grant(Resource.TOPIC, "both", (one,)) for one in (Operation.READ, Operation.WRITE))


class Admin:
    """Describes topics as a broker does that lets us read them; librdkafka refuses a name given twice."""

    def describe_topics(self, topics: TopicCollection, **_: object) -> dict[str, Future[Any]]:
        names: list[str] = topics.topic_names
        assert len(set(names)) == len(names), "Duplicate topics not allowed"
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(authorized_operations=[AclOperation.READ, AclOperation.DESCRIBE]))
        return dict.fromkeys(names, answer)


def test_a_topic_that_is_granted_twice_is_asked_about_once() -> None:
    admin: Any = Admin()
    assert_allowed(admin, [READ, READ])
    with pytest.raises(BrokerRefused, match="Write of both; grant it"):
        assert_allowed(admin, [WRITE, READ])
