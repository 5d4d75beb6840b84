"""What differs between wanted topics and those that are there, and what `--apply` may do about it."""

from dataclasses import replace

import pytest

from prism.kafka.topic_admin import TopicState
from prism.messages import Topics, TopicSpec
from prism.messages.topics import as_wanted
from prism_cli.topic_audit import (
    Wanted,
    differences,
    settings_to_change,
    topics_to_grow,
    wanted_topics,
)

TOPICS = Topics("x.")
REQUESTS = [TopicSpec("in", None, {"max.message.bytes": "100"}), TopicSpec("out", None, {})]


def wanted(partitions: int = 8, replication: int | None = None) -> list[Wanted]:
    return wanted_topics(TOPICS, REQUESTS, partitions, replication)


def as_they_should_be(partitions: int = 8, replication: int = 1) -> dict[str, TopicState]:
    return {
        one.spec.name: TopicState(one.spec.name, one.partitions, replication, dict(one.spec.config))
        for one in wanted(partitions)
    }


def with_config(name: str, **settings: str) -> dict[str, TopicState]:
    there = as_they_should_be()
    named = {key.replace("_", "."): value for key, value in settings.items()}
    there[name] = replace(there[name], config={**there[name].config, **named})
    return there


def with_partitions(name: str, partitions: int) -> dict[str, TopicState]:
    there = as_they_should_be()
    there[name] = replace(there[name], partitions=partitions)
    return there


def test_nothing_differs_where_all_is_as_wanted() -> None:
    assert differences(wanted(), as_they_should_be()) == []
    assert len(wanted()) == 11


def test_what_is_missing_is_said_and_nothing_else_of_it() -> None:
    found = differences(wanted(), {})
    assert [str(one) for one in found][:2] == ["x.intake is not there", "x.control is not there"]
    assert len(found) == 11
    assert settings_to_change(found) == {}
    assert topics_to_grow(found) == {}


@pytest.mark.parametrize("name", ["x.batches", "x.results"])
def test_partitions_are_added_where_readers_find_them(name: str) -> None:
    found = differences(wanted(), with_partitions(name, 4))
    assert [str(one) for one in found] == [f"{name}: partitions is 4, wanted 8"]
    assert topics_to_grow(found) == {name: 8}
    assert differences(wanted(), with_partitions(name, 9)) == [], "more are no fault"


def test_the_senders_topic_gets_more_only_for_who_names_a_number() -> None:
    there = with_partitions("in", 4)
    assert differences(wanted(), there) == []
    found = differences(wanted_topics(TOPICS, REQUESTS, 8, 1, more_for_requests=True), there)
    assert topics_to_grow(found) == {"in": 8}


@pytest.mark.parametrize(
    ("name", "there"), [("x.intake", 2), ("x.control", 2), ("x.runs", 3), ("x.dead-letter", 2)]
)
def test_no_others_are_touched_under_a_fleet(name: str, there: int) -> None:
    (found,) = differences(wanted(), with_partitions(name, there))
    assert str(found).endswith("it cannot be changed under a fleet: stop it, and make the topic again")
    assert topics_to_grow([found]) == {}


def test_how_many_partitions_replies_have_is_their_readers_affair() -> None:
    assert differences(wanted(), with_partitions("out", 1)) == []


def test_copies_are_compared_only_where_somebody_says_how_many() -> None:
    assert differences(wanted(replication=None), as_they_should_be(replication=1)) == []
    found = differences(wanted(replication=3), as_they_should_be(replication=1))
    assert len(found) == 11
    assert "kafka-reassign-partitions.sh" in str(found[0])
    assert settings_to_change(found) == {}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("x.batches", {"retention_ms": "604800000"}),
        ("x.results", {"retention_bytes": "1000000000"}),
        ("x.runs", {"cleanup_policy": "delete"}),
        ("x.workers", {"cleanup_policy": "compact"}),
        ("x.intake", {"max_message_bytes": "1048588"}),
        ("x.batches", {"segment_ms": "604800000"}),
        ("x.dead-letter", {"retention_ms": "1000"}),
    ],
)
def test_a_setting_that_would_lose_or_refuse_something_is_changed(
    name: str, settings: dict[str, str]
) -> None:
    found = differences(wanted(), with_config(name, **settings))
    ((key, value),) = settings_to_change(found)[name].items()
    assert value == dict(next(one.spec for one in wanted() if one.spec.name == name).config)[key]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("x.dead-letter", {"retention_ms": "-1"}),
        ("x.control", {"retention_ms": "2592000000"}),
        ("x.workers", {"cleanup_policy": "delete,compact"}),
        ("x.intake", {"max_message_bytes": "52428800"}),
        ("x.batches", {"segment_bytes": "16777216"}),
        ("x.runs", {"min_insync_replicas": "2"}),
    ],
)
def test_what_an_operator_has_made_safer_is_no_difference(name: str, settings: dict[str, str]) -> None:
    assert differences(wanted(), with_config(name, **settings)) == []


def test_without_end_is_longer_than_any_time() -> None:
    assert as_wanted("retention.ms", "-1", "1000")
    assert not as_wanted("retention.ms", "1000", "-1")
    assert not as_wanted("retention.ms", None, "-1")
    assert not as_wanted("segment.ms", "-1", "1000")
