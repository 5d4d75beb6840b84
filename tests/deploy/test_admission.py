"""A real API server admits every overlay whole, under `enforce: restricted`, and refuses faults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes import (
    K8S,
    NAMESPACE,
    OVERLAYS,
    WORKLOADS,
    Cluster,
    Manifest,
    cluster_running,  # noqa: F401
    compose,
    named,
    of_kind,
    overlay,
    pod_of,
)

# Components that no overlay takes, with what they need.
APART = (["hpa", "sources", "tracing"],)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_admitted_whole_and_each_of_its_pods_without_a_warning(
    cluster: Cluster, name: str
) -> None:
    manifests = overlay(name)
    pods = [pod_of(one) for one in of_kind(manifests, *WORKLOADS)]

    answer = cluster.admit([*manifests, *pods, *_pods_of_strimzi(manifests)])

    assert (answer.code, answer.errors) == (0, "")
    lines = answer.output.splitlines()
    assert len(lines) == len(manifests) + len(pods) + len(_pods_of_strimzi(manifests))
    assert sum(line.startswith("pod/prism-") for line in lines) == len(pods) >= 3


def _pods_of_strimzi(manifests: list[Manifest]) -> list[Manifest]:
    """Return pods as Strimzi would make them, with the security contexts that its resources name."""
    entity = named(manifests, "Kafka", "prism")["spec"]["entityOperator"]["template"]
    pods = [
        _pod(
            one["metadata"]["name"], one["spec"]["template"]["pod"], one["spec"]["template"]["kafkaContainer"]
        )
        for one in of_kind(manifests, "KafkaNodePool")
    ]
    operators = ("topicOperatorContainer", "userOperatorContainer")
    return [*pods, *(_pod(each.lower(), entity["pod"], entity[each]) for each in operators)]


def _pod(name: str, pod: Manifest, container: Manifest) -> Manifest:
    inside = {"name": "one", "image": "kafka:1", "securityContext": container["securityContext"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"securityContext": pod["securityContext"], "containers": [inside]},
    }


@pytest.mark.parametrize("components", APART, ids="+".join)
def test_other_components_fit_the_base(cluster: Cluster, components: list[str], tmp_path: Path) -> None:
    manifests = compose(tmp_path, *components)

    answer = cluster.admit([*manifests, *map(pod_of, of_kind(manifests, *WORKLOADS))])

    assert (answer.code, answer.errors) == (0, "")


def test_the_command_beside_a_fleet_is_admitted(cluster: Cluster) -> None:
    namespace, pod = yaml.safe_load_all((K8S / "cli.yaml").read_text())
    # Its own namespace would have to be there already; this one enforces the same.
    pod["metadata"]["namespace"] = NAMESPACE

    answer = cluster.admit([namespace, pod])

    assert (answer.code, answer.errors) == (0, "")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_component_is_tried() -> None:
    taken = {one for name in OVERLAYS for one in _components_of(name)} | {
        one for some in APART for one in some
    }

    assert taken == {one.name for one in (K8S / "components").iterdir()}


def _components_of(name: str) -> list[str]:
    kustomization = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())
    return [Path(one).name for one in kustomization["components"]]


def _worker(manifests: list[Manifest]) -> Manifest:
    return named(manifests, "Deployment", "prism-model-worker")


def _sidecar(manifests: list[Manifest]) -> Any:
    return _worker(manifests)["spec"]["template"]["spec"]["initContainers"][1]


def _trigger(manifests: list[Manifest]) -> Any:
    return named(manifests, "ScaledObject", "prism-model-worker")["spec"]["triggers"][0]


def _unknown_field(manifests: list[Manifest]) -> None:
    _worker(manifests)["spec"]["template"]["spec"]["terminationGraceSeconds"] = 60


def _unknown_field_of_a_sidecar(manifests: list[Manifest]) -> None:
    _sidecar(manifests)["startProbe"] = {}


def _trigger_without_a_type(manifests: list[Manifest]) -> None:
    del _trigger(manifests)["type"]


def _trigger_with_a_number(manifests: list[Manifest]) -> None:
    _trigger(manifests)["metadata"]["lagThreshold"] = 10


def _fallback_that_is_none(manifests: list[Manifest]) -> None:
    named(manifests, "ScaledObject", "prism-model-worker")["spec"]["fallback"]["behavior"] = "sometimes"


def _acl_with_a_wrong_operation(manifests: list[Manifest]) -> None:
    user = named(manifests, "KafkaUser", "prism-merger")
    user["spec"]["authorization"]["acls"][0]["operations"] = ["Readd"]


def _topic_that_is_no_list(manifests: list[Manifest]) -> None:
    named(manifests, "KafkaTopic", "prism.batches")["spec"]["partitions"] = "many"


def _selector_of_others(manifests: list[Manifest]) -> None:
    _worker(manifests)["spec"]["selector"]["matchLabels"] = {"app.kubernetes.io/name": "another"}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_unknown_field, "unknown field"),
        (_unknown_field_of_a_sidecar, "unknown field"),
        (_trigger_without_a_type, "triggers[0].type: Required value"),
        (_trigger_with_a_number, "lagThreshold"),
        (_fallback_that_is_none, "Unsupported value"),
        (_acl_with_a_wrong_operation, "Unsupported value"),
        (_topic_that_is_no_list, "partitions"),
        (_selector_of_others, "does not match"),
    ],
)
def test_a_broken_overlay_is_refused(
    cluster: Cluster, spoil: Callable[[list[Manifest]], None], why: str
) -> None:
    manifests, sound = overlay("production-gpu"), overlay("production-gpu")
    spoil(manifests)

    # One that is refused is enough: `kubectl apply` ends with an error then.
    answer = cluster.admit(one for one in manifests if one not in sound)

    assert answer.code != 0
    assert why in answer.errors


def test_a_privileged_container_is_refused(cluster: Cluster) -> None:
    worker = _worker(overlay("production-gpu"))
    worker["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}

    answer = cluster.admit([worker, pod_of(worker)])

    assert answer.code != 0
    # Here the server itself says no, before pod security is asked.
    assert answer.errors.count("securityContext.privileged: Forbidden") == 2


def _escalation(spec: Any) -> None:
    spec["containers"][0]["securityContext"] = {}


def _root(spec: Any) -> None:
    spec["securityContext"]["runAsUser"] = 0


def _a_capability(spec: Any) -> None:
    spec["initContainers"][1]["securityContext"]["capabilities"]["drop"] = []


def _the_nodes_network(spec: Any) -> None:
    spec["hostNetwork"] = True


def _the_nodes_disk(spec: Any) -> None:
    spec["volumes"].append({"name": "node", "hostPath": {"path": "/var"}})


def _no_seccomp(spec: Any) -> None:
    del spec["securityContext"]["seccompProfile"]


@pytest.mark.parametrize(
    "loosen", [_escalation, _root, _a_capability, _the_nodes_network, _the_nodes_disk, _no_seccomp]
)
def test_a_loosened_pod_is_refused_and_its_template_warned_of(
    cluster: Cluster, loosen: Callable[[Any], None]
) -> None:
    worker = _worker(overlay("production-gpu"))
    loosen(worker["spec"]["template"]["spec"])

    answer = cluster.admit([worker, pod_of(worker)])

    assert answer.code != 0
    assert "Warning: would violate PodSecurity" in answer.errors
    assert 'is forbidden: violates PodSecurity "restricted' in answer.errors
