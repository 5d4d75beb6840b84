"""What differs between the topics that are wanted and those that are there, and what can be done about it.

Partitions are added only where every part of the fleet takes it well: batches go to the partition of least
lag, results to one that is fixed in their run, and their readers find new partitions by themselves. Requests
have keys of their senders', who may count on their places: more only for who names a number. Of the intake
the active ingestor reads what was there when it became active, and the parts of one file must stay in one
partition; one partition alone is what makes one ingestor active, and what keeps the records of the compacted
topics in their order. How many the reply topics have is their readers' affair.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prism.kafka.topic_admin import TopicState
from prism.messages.topics import Topics, TopicSpec, as_wanted

MISSING = "topic"
PARTITIONS = "partitions"
REPLICATION = "replication"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it should be; `replication` None: as the cluster likes. `grows`: may get more partitions."""

    spec: TopicSpec
    partitions: int
    replication: int | None
    grows: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as wanted; `advice`: what to do where `--apply` does nothing about it."""

    topic: str
    what: str
    is_: str
    wanted: str
    advice: str = ""

    def __str__(self) -> str:
        if self.what == MISSING:
            return f"{self.topic} is not there"
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.topic}: {self.what} is {self.is_}, wanted {self.wanted}{advice}"


def wanted_topics(
    topics: Topics,
    requests: Iterable[TopicSpec],
    partitions: int,
    replication: int | None,
    more_for_requests: bool = False,
) -> list[Wanted]:
    """Return every topic of a fleet as it should be; the first of `requests` is that of the requests.

    `more_for_requests`: whether that one gets so many partitions too, if it is there with fewer.
    """
    others = list(requests)
    growing = {topics.batches, topics.results}
    if more_for_requests:
        growing.update(one.name for one in others[:1])
    return [
        Wanted(spec, spec.partitions or partitions, replication, spec.name in growing)
        for spec in (*topics.specs(), *others)
    ]


def differences(wanted: Iterable[Wanted], there: Mapping[str, TopicState]) -> list[Difference]:
    """Return all that is not as wanted, topic by topic."""
    return [one for topic in wanted for one in _of_one(topic, there.get(topic.spec.name))]


def _of_one(wanted: Wanted, state: TopicState | None) -> list[Difference]:
    name = wanted.spec.name
    if state is None:
        return [Difference(name, MISSING, "missing", "there")]
    found = _shape(wanted, state)
    for key, value in wanted.spec.config.items():
        if not as_wanted(key, state.config.get(key), value):
            found.append(Difference(name, key, state.config.get(key, "not told"), value))
    return found


def _shape(wanted: Wanted, state: TopicState) -> list[Difference]:
    name, found = wanted.spec.name, []
    only_one = wanted.spec.partitions == 1
    compared = wanted.grows or wanted.spec.partitions is not None
    if compared and (state.partitions < wanted.partitions or (only_one and state.partitions != 1)):
        advice = (
            "" if wanted.grows else "it cannot be changed under a fleet: stop it, and make the topic again"
        )
        found.append(Difference(name, PARTITIONS, str(state.partitions), str(wanted.partitions), advice))
    if wanted.replication is not None and state.replication < wanted.replication:
        advice = "kafka-reassign-partitions.sh changes it"
        found.append(Difference(name, REPLICATION, str(state.replication), str(wanted.replication), advice))
    return found


def settings_to_change(found: Iterable[Difference]) -> dict[str, dict[str, str]]:
    """Return topic → setting → value of what `--apply` changes; partitions are not settings."""
    changes: dict[str, dict[str, str]] = {}
    for one in found:
        if one.what not in (MISSING, PARTITIONS, REPLICATION):
            changes.setdefault(one.topic, {})[one.what] = one.wanted
    return changes


def topics_to_grow(found: Iterable[Difference]) -> dict[str, int]:
    """Return topic → partitions of what `--apply` gives more of."""
    return {one.topic: int(one.wanted) for one in found if one.what == PARTITIONS and not one.advice}
