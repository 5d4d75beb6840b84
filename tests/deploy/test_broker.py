"""Strimzi's resources and KEDA's triggers say what the code says: topics, rights, groups, lag."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from prism.messages import access
from prism.messages.access import Grant, Operation, Resource, Role
from prism.messages.topics import Topics
from prism_model_worker.settings import WorkerSettings, request_topics
from tests.deploy.kubernetes import OVERLAYS, Manifest, compose, named, of_kind, overlay

TOPICS = Topics()
WORKER = WorkerSettings(bootstrap_server="kafka:9092")
REQUESTS, PHOTOS, TEXTS = WORKER.request_topic, WORKER.photo_reply_topic, WORKER.text_reply_topic
# Topics are the Topic Operator's here, and rights the User Operator's.
ROLES = [role for role in Role if role is not Role.ADMIN]

# Who writes and who reads what, as in DESIGN.md's section 2; a person at the `prism` command looks on.
WRITERS = {
    TOPICS.intake: {"sender", "operator"},
    TOPICS.control: {"operator"},
    TOPICS.runs: {"ingestor"},
    TOPICS.batches: {"ingestor"},
    TOPICS.results: {"model-worker"},
    TOPICS.progress: {"merger"},
    TOPICS.workers: {"model-worker"},
    TOPICS.dead_letter: {"ingestor", "model-worker", "merger"},
    TOPICS.outputs: {"merger"},
    REQUESTS: {"requester"},
    PHOTOS: {"model-worker"},
    TEXTS: {"model-worker"},
}
READERS = {
    TOPICS.intake: {"ingestor"},
    TOPICS.control: {"ingestor"},
    TOPICS.runs: {"ingestor", "model-worker", "merger", "operator"},
    # An ingestor that takes over looks what was fed.
    TOPICS.batches: {"model-worker", "ingestor"},
    TOPICS.results: {"merger"},
    TOPICS.progress: {"ingestor", "operator"},
    TOPICS.workers: {"ingestor", "merger", "operator"},
    TOPICS.dead_letter: {"operator"},
    TOPICS.outputs: {"merger", "sender", "operator"},
    REQUESTS: {"model-worker"},
    PHOTOS: {"requester"},
    TEXTS: {"requester"},
}
# Whoever forgets what nobody needs any more.
DELETERS = {TOPICS.intake: {"ingestor"}, TOPICS.batches: {"ingestor"}, TOPICS.results: {"merger"}}


def _rights(user: Manifest) -> list[Grant]:
    return [
        Grant(
            Resource(acl["resource"]["type"]),
            acl["resource"]["name"],
            tuple(map(Operation, acl["operations"])),
            acl["resource"]["patternType"] == "prefix",
        )
        for acl in user["spec"]["authorization"]["acls"]
    ]


@pytest.mark.parametrize("name", OVERLAYS)
def test_topics_are_as_the_services_want_them(name: str) -> None:
    partitions = named(overlay(name), "ConfigMap", _settings_name(name))["data"]["PRISM_TOPIC_PARTITIONS"]

    made = {
        one["metadata"]["name"]: (
            one["spec"]["partitions"],
            {key: str(value) for key, value in one["spec"].get("config", {}).items()},
        )
        for one in of_kind(overlay(name), "KafkaTopic")
    }

    assert made == {
        spec.name: (spec.partitions or int(partitions), dict(spec.config))
        for spec in [*TOPICS.specs(), *request_topics(WORKER)]
    }


def _settings_name(name: str) -> str:
    (found,) = [
        one["metadata"]["name"]
        for one in of_kind(overlay(name), "ConfigMap")
        if one["metadata"]["name"].startswith("prism-settings-")
    ]
    return str(found)


@pytest.mark.parametrize("name", OVERLAYS)
def test_users_have_the_rights_of_the_one_table(name: str) -> None:
    made = {one["metadata"]["name"]: _rights(one) for one in of_kind(overlay(name), "KafkaUser")}

    assert made == {f"prism-{role}": access.grants(role, access.Names()) for role in ROLES}


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_user_may_do_to_a_topic_what_the_table_says_and_no_more(name: str) -> None:
    table = {Operation.READ: READERS, Operation.WRITE: WRITERS, Operation.DELETE: DELETERS}
    users = of_kind(overlay(name), "KafkaUser")

    assert WRITERS.keys() == READERS.keys() == {
        one["metadata"]["name"] for one in of_kind(overlay(name), "KafkaTopic")
    }  # fmt: skip
    for user, topic, operation in product(users, [*WRITERS, "prism.else", "else"], Operation):
        if operation is Operation.DESCRIBE:
            continue
        wanted = user["metadata"]["name"].removeprefix("prism-") in table.get(operation, {}).get(topic, set())
        may = access.allowed(_rights(user), Resource.TOPIC, topic, operation)
        assert may is wanted, (user["metadata"]["name"], operation, topic)


@pytest.mark.parametrize("name", OVERLAYS)
def test_nobody_may_anything_to_the_cluster(name: str) -> None:
    for user in of_kind(overlay(name), "KafkaUser"):
        assert user["spec"]["authentication"] == {"type": "tls"}
        assert {one.resource for one in _rights(user)} <= {Resource.TOPIC, Resource.GROUP}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_broker_lets_nobody_in_unknown(name: str) -> None:
    kafka = named(overlay(name), "Kafka", "prism")["spec"]["kafka"]

    (listener,) = kafka["listeners"]
    assert [listener["tls"], listener["authentication"]] == [True, {"type": "tls"}]
    assert kafka["authorization"] == {"type": "simple"}
    assert kafka["config"]["auto.create.topics.enable"] is False


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_broker_copies_to_as_many_nodes_as_there_are(name: str) -> None:
    config = named(overlay(name), "Kafka", "prism")["spec"]["kafka"]["config"]
    pools = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay(name), "KafkaNodePool")}

    copies = min(3, pools["brokers"]["replicas"])
    assert {value for key, value in config.items() if key.endswith("replication.factor")} == {copies}
    assert config["min.insync.replicas"] == max(1, copies - 1)
    roles = {role for pool in pools.values() for role in pool["roles"]}
    assert roles == {"broker", "controller"}


@pytest.mark.parametrize("name", ["production-gpu", "production-cloud"])
def test_lag_is_that_of_the_workers_groups_and_can_ask_for_every_pod(name: str) -> None:
    manifests = overlay(name)
    scaled = named(manifests, "ScaledObject", "prism-model-worker")["spec"]
    batches, requests = (one["metadata"] for one in scaled["triggers"])

    assert {one["type"] for one in scaled["triggers"]} == {"kafka"}
    assert (batches["topic"], batches["consumerGroup"]) == (TOPICS.batches, WORKER.consumer_group)
    assert (requests["topic"], requests["consumerGroup"]) == (REQUESTS, WORKER.request_group)
    for trigger in (batches, requests):
        assert trigger["excludePersistentLag"] == "false"
        assert trigger["offsetResetPolicy"] == "earliest"
        assert trigger["bootstrapServers"] == "prism-kafka-bootstrap.prism.svc:9093"
    assert int(batches["lagThreshold"]) * scaled["maxReplicaCount"] <= _window_floor(manifests)
    _check_bounds(manifests, scaled["minReplicaCount"], scaled["maxReplicaCount"])
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300
    assert scaled["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_without_keda_the_same_lag_scales(tmp_path: Path) -> None:
    manifests = compose(tmp_path, "hpa")
    spec = named(manifests, "HorizontalPodAutoscaler", "prism-model-worker")["spec"]
    batches, requests = (one["external"] for one in spec["metrics"])

    assert int(batches["target"]["averageValue"]) * spec["maxReplicas"] <= _window_floor(manifests)
    _check_bounds(manifests, spec["minReplicas"], spec["maxReplicas"])
    assert requests["metric"]["selector"]["matchLabels"] == {"topic": REQUESTS}


def _window_floor(manifests: list[Manifest]) -> int:
    ingestor = named(manifests, "Deployment", "prism-ingestor")["spec"]["template"]["spec"]["containers"][0]
    return int(next(one["value"] for one in ingestor["env"] if one["name"] == "PRISM_WINDOW_FLOOR"))


def _check_bounds(manifests: list[Manifest], least: int, most: int) -> None:
    settings: Any = next(
        one["data"] for one in of_kind(manifests, "ConfigMap") if "PRISM_TOPIC_PARTITIONS" in one["data"]
    )
    assert 1 <= least < most <= int(settings["PRISM_TOPIC_PARTITIONS"])
