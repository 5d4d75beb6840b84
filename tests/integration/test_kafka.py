"""Topics, tables, commits and deletions on a real broker."""

import json
import threading
import uuid

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from prism.kafka.admin import (
    committed_offsets,
    delete_below,
    ensure_topics,
    partition_count,
    topic_ends,
    topic_id,
)
from prism.kafka.clients import ErrorWatch, KafkaSettings, first_contact, receive
from prism.kafka.commit_note import CommitNote, Suspect
from prism.kafka.errors import BrokerAway, BrokerFatal
from prism.kafka.frontier import MAX_SPAN, OffsetFrontier
from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import Topics
from prism.messages.topics import TopicSpec
from tests.integration.stage import await_value


@pytest.fixture
def kafka(shared_broker: str) -> KafkaSettings:
    return KafkaSettings(shared_broker, "test", {"log_level": "0"})


@pytest.fixture
def admin(kafka: KafkaSettings) -> AdminClient:
    return kafka.admin()


@pytest.fixture
def topic(admin: AdminClient) -> str:
    name = f"k{uuid.uuid4().hex[:8]}"
    make(admin, name)
    return name


def make(admin: AdminClient, name: str, partitions: int = 2, **config: str) -> None:
    assert ensure_topics(admin, [TopicSpec(name, partitions, config)], partitions) == [name]


def put(kafka: KafkaSettings, topic: str, *keys: str, partition: int = 0) -> None:
    producer = kafka.producer(ErrorWatch())
    for key in keys:
        producer.produce(topic, key.encode(), key, partition=partition)
    assert producer.flush(10) == 0


def test_several_services_make_the_topics_at_once(kafka: KafkaSettings) -> None:
    specs = Topics(f"race{uuid.uuid4().hex[:6]}.").specs()
    failed: list[BaseException] = []
    made: list[str] = []

    def start() -> None:
        try:
            made.extend(ensure_topics(kafka.admin(), specs, 3))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert set(made) == {spec.name for spec in specs}
    assert [partition_count(kafka.admin(), spec.name) for spec in specs] == [
        spec.partitions or 3 for spec in specs
    ]
    assert ensure_topics(kafka.admin(), specs, 3) == []


def test_a_broker_that_is_not_there_is_away() -> None:
    nobody = KafkaSettings("127.0.0.1:1", "test", {"log_level": "0"})
    with pytest.raises(BrokerAway, match=r"127\.0\.0\.1:1"):
        first_contact(nobody, 1.0)


def test_tls_at_a_plain_port_says_which_setting_to_look_at(shared_broker: str) -> None:
    kafka = KafkaSettings(shared_broker, "test", {"log_level": "0", "security.protocol": "SSL"})
    with pytest.raises(BrokerAway, match=r"PLAINTEXT.*; does it speak TLS there\? KAFKA_SECURITY_PROTOCOL$"):
        first_contact(kafka, 1.0)


def test_the_cluster_has_a_name(kafka: KafkaSettings) -> None:
    assert first_contact(kafka, 10.0) == first_contact(kafka, 10.0) != ""


@pytest.mark.promise(6)
def test_a_topic_made_again_has_another_id(admin: AdminClient, topic: str) -> None:
    before = topic_id(admin, topic)
    assert before == topic_id(admin, topic) != ""
    for future in admin.delete_topics([topic]).values():
        future.result(10)
    await_value(lambda: topic_id(admin, topic) == "", "the topic is gone")
    assert partition_count(admin, topic) == 0
    make(admin, topic)
    assert topic_id(admin, topic) not in ("", before)


def test_ends_and_deletion(kafka: KafkaSettings, admin: AdminClient, topic: str) -> None:
    put(kafka, topic, *"abcde", partition=1)
    ends = topic_ends(admin, topic, range(2))
    assert (ends.low, ends.high) == ({0: 0, 1: 0}, {0: 0, 1: 5})
    delete_below(admin, topic, {1: 3})
    delete_below(admin, topic, {1: 2})  # it was more already
    delete_below(admin, topic, {1: 99})  # more than there is: no error of ours
    delete_below(admin, topic, {})
    ends = topic_ends(admin, topic, range(2))
    assert ends.low[1] == 3
    assert ends.high[1] == 5
    assert topic_ends(admin, topic, []).high == {}


def test_what_a_group_has_committed(kafka: KafkaSettings, topic: str) -> None:
    group = f"g{topic}"
    asker = kafka.reader(ErrorWatch(), **{"group.id": group})
    assert committed_offsets(asker, topic, range(2)) == {}
    assert committed_offsets(asker, topic, []) == {}
    put(kafka, topic, "a", "b")
    commit(kafka, group, TopicPartition(topic, 0, 1))
    assert committed_offsets(asker, topic, range(2)) == {0: 1}
    asker.close()


def commit(kafka: KafkaSettings, group: str, place: TopicPartition) -> None:
    consumer = kafka.reader(ErrorWatch(), **{"group.id": group})
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()


def test_the_largest_note_comes_back_from_the_broker(kafka: KafkaSettings, topic: str) -> None:
    frontier = OffsetFrontier(0)
    for offset in range(MAX_SPAN):
        frontier.take(offset)
    for offset in range(1, MAX_SPAN, 2):
        frontier.finish(offset)
    note = CommitNote(
        "A" * 22, "b" * 12, 2, 99, Suspect(0, 1, 2, tuple(range(200))), tuple(frontier.finished_above())
    )
    commit(kafka, f"g{topic}", TopicPartition(topic, 0, 0, note.encode(0)))
    reader = kafka.reader(ErrorWatch(), **{"group.id": f"g{topic}"})
    (place,) = reader.committed([TopicPartition(topic, 0)], timeout=10)
    assert CommitNote.decode(place.metadata, place.offset) == note
    reader.close()


def test_a_note_above_the_limit_would_be_refused(kafka: KafkaSettings, topic: str) -> None:
    with pytest.raises(KafkaException) as refused:
        commit(kafka, f"g{topic}", TopicPartition(topic, 0, 0, "x" * 4097))
    assert refused.value.args[0].code() == KafkaError.OFFSET_METADATA_TOO_LARGE


class Table:
    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.keys: list[str] = []
        self.reader = TableReader(kafka, {topic: lambda record: self.keys.append(record.key)})

    def catch_up(self) -> list[str]:
        await_value(
            lambda: self.reader.poll(0.1) is not None and self.reader.caught_up, "the end of the table"
        )
        return self.keys


def test_a_table_of_nothing_is_caught_up_at_once(kafka: KafkaSettings, topic: str) -> None:
    table = Table(kafka, topic)
    assert table.reader.caught_up
    table.reader.expect_end()
    assert table.reader.caught_up
    table.reader.close()


def test_a_table_is_read_to_its_end_and_again(kafka: KafkaSettings, topic: str) -> None:
    put(kafka, topic, "a", "b")
    put(kafka, topic, "c", partition=1)
    table = Table(kafka, topic)
    assert not table.reader.caught_up
    assert sorted(table.catch_up()) == ["a", "b", "c"]
    put(kafka, topic, "d")
    assert table.reader.caught_up  # of what was there at the start
    table.reader.expect_end()
    assert not table.reader.caught_up
    assert table.catch_up()[-1] == "d"
    assert not table.reader.broker_away
    table.reader.close()


def test_a_table_that_is_not_there_is_away(kafka: KafkaSettings) -> None:
    with pytest.raises(BrokerAway, match="not there"):
        Table(kafka, f"none{uuid.uuid4().hex}")


def test_a_table_whose_beginning_is_gone(kafka: KafkaSettings, admin: AdminClient, topic: str) -> None:
    put(kafka, topic, *"abc")
    delete_below(admin, topic, {0: 2})
    assert Table(kafka, topic).catch_up() == ["c"]
    delete_below(admin, topic, {0: 3})
    assert Table(kafka, topic).catch_up() == []


def test_a_table_whose_end_is_no_record(kafka: KafkaSettings, shared_broker: str, topic: str) -> None:
    """As after compaction or a foreign transaction: the last offsets hold nothing that a reader gets."""
    put(kafka, topic, "a")
    foreign = Producer({"bootstrap.servers": shared_broker, "transactional.id": topic, "log_level": 0})
    foreign.init_transactions(10)
    foreign.begin_transaction()
    foreign.produce(topic, b"x", "never", partition=0)
    foreign.flush(10)
    foreign.abort_transaction(10)
    table = Table(kafka, topic)
    assert table.catch_up() == ["a"]
    table.reader.expect_end()
    assert table.catch_up() == ["a"]
    table.reader.close()


def test_receiving_waits_for_the_first_and_takes_what_is_there(kafka: KafkaSettings, topic: str) -> None:
    put(kafka, topic, *"abcde")
    consumer: Consumer = kafka.reader(ErrorWatch())
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[str] = []
    while len(found) < 5:
        found += [Record.of(message).key for message in receive(consumer, 3, 10.0)]
    assert found == list("abcde")
    assert receive(consumer, 3, 0.0) == []
    consumer.close()


def test_what_a_delivery_report_raises_reaches_the_owner(kafka: KafkaSettings, topic: str) -> None:
    """The services rely on it: a record that cannot be written ends the process."""

    def told(*_: object) -> None:
        raise BrokerFatal("as told")

    producer = kafka.producer(ErrorWatch())
    producer.produce(topic, json.dumps("x"), on_delivery=told)
    with pytest.raises(BrokerFatal, match="as told"):
        producer.flush(10)
