"""A worker's share of a topic on a real broker: what it pauses, it goes on with at once."""

import time
import uuid

import pytest

from prism.kafka.admin import ensure_topics, topic_id
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.records import Record
from prism.messages.topics import TopicSpec
from prism_model_worker import membership
from prism_model_worker.membership import Hooks, Membership
from tests.integration.stage import await_value

# librdkafka's fetcher sees a resumed partition by itself within a second.
TURN_S = 1.0


@pytest.fixture
def member(shared_broker: str, monkeypatch: pytest.MonkeyPatch) -> Membership:
    """A member of a group of one, with 100 records to read."""
    monkeypatch.setattr(membership, "PAUSE_AFTER_S", 0.0)
    kafka = KafkaSettings(shared_broker, "test", {"log_level": "0"})
    admin, topic = kafka.admin(), f"m{uuid.uuid4().hex[:8]}"
    ensure_topics(admin, [TopicSpec(topic, 1, {})], 1)
    producer = kafka.producer(ErrorWatch())
    for number in range(100):
        producer.produce(topic, str(number).encode())
    assert producer.flush(10) == 0
    hooks = Hooks(drain=lambda _: None, lost=lambda _: None, topic_id=lambda: topic_id(admin, topic))
    return Membership(kafka, topic, topic, "session", span=lambda: 1000, hooks=hooks, clock=time.monotonic)


def test_what_was_paused_goes_on_at_once_and_misses_nothing(member: Membership) -> None:
    member.join()
    read: list[Record] = []
    waits: list[float] = []

    def more() -> list[Record]:
        found = member.fetch(10, 0.1)
        read.extend(found)
        return found

    await_value(more, "the first records")
    for _ in range(5):
        for _ in range(2):  # the second sees that it lasts
            member.fetch(0, 0.0)
        time.sleep(TURN_S / 4)  # until the fetcher has gone to rest, which nobody can see
        begun = time.monotonic()
        await_value(more, "records after the pause")
        waits.append(time.monotonic() - begun)
    member.close()
    assert sorted(waits)[2] < TURN_S / 4
    assert [one.offset for one in read] == list(range(len(read)))
