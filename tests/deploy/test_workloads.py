"""What every workload of every overlay must have: probes, limits, a budget, spread, time to drain, locks."""

import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from prism.service.lifecycle import DRAIN_S
from tests.deploy.kubernetes import (
    K8S,
    NAMESPACE,
    OVERLAYS,
    ROOT,
    WORKLOADS,
    Manifest,
    containers,
    named,
    of_kind,
    overlay,
    render,
    selects,
)

# What a sidecar may need to end after the worker has.
SIDECAR_S = 10.0
SECONDS_TO_NOTICE = 10


SERVICES = [
    ("Deployment", "prism-ingestor"),
    ("Deployment", "prism-model-worker"),
    ("StatefulSet", "prism-merger"),
]
PULL = ("Job", "prism-model-pull")
THERE = {name: [*SERVICES, *([] if name == "production-cloud" else [PULL])] for name in OVERLAYS}


def _each(wanted: dict[str, list[tuple[str, str]]]) -> pytest.MarkDecorator:
    cases = [(name, (name, *one)) for name, some in wanted.items() for one in some]
    ids = [f"{name}-{one[2]}" for name, one in cases]
    return pytest.mark.parametrize(("name", "workload"), cases, ids=ids, indirect=["workload"])


every_workload = _each(THERE)
every_service = _each(dict.fromkeys(OVERLAYS, SERVICES))


@pytest.fixture
def workload(request: pytest.FixtureRequest) -> Manifest:
    """One workload of a rendered overlay, by overlay, kind and name."""
    name, kind, own = request.param
    return named(overlay(name), kind, own)


@pytest.mark.parametrize("name", OVERLAYS)
def test_these_are_all_workloads(name: str) -> None:
    made = [(one["kind"], one["metadata"]["name"]) for one in of_kind(overlay(name), *WORKLOADS)]

    assert sorted(made) == sorted(THERE[name])


def _pod_spec(workload: Manifest) -> Any:
    return workload["spec"]["template"]["spec"]


def _sidecars(workload: Manifest) -> list[Manifest]:
    return [one for one in _pod_spec(workload).get("initContainers", []) if one.get("restartPolicy")]


@every_service
def test_a_service_is_probed_where_it_answers(name: str, workload: Manifest) -> None:
    (container,) = _pod_spec(workload)["containers"]
    (port,) = container["ports"]

    pages = {
        probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert [pages["startupProbe"]["path"], pages["livenessProbe"]["path"]] == ["/health", "/health"]
    assert pages["readinessProbe"]["path"] == "/ready"
    assert {page["port"] for page in pages.values()} == {port["name"]} == {"http"}
    own = {one["name"]: one.get("value") for one in container["env"]}
    assert own["PORT"] == str(port["containerPort"])
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] <= SECONDS_TO_NOTICE


@every_workload
def test_a_sidecar_is_probed_by_a_command(name: str, workload: Manifest) -> None:
    """It binds the loopback, where a kubelet does not reach it."""
    for sidecar in _sidecars(workload):
        for probe in ("startupProbe", "livenessProbe"):
            assert sidecar[probe]["exec"]["command"] == ["ollama", "list"]
        assert {"name": "OLLAMA_HOST", "value": "127.0.0.1:11434"} in sidecar["env"]
        assert "ports" not in sidecar


@every_workload
def test_every_container_has_requests_and_limits(name: str, workload: Manifest) -> None:
    for container in containers(workload):
        resources = container["resources"]
        assert resources["requests"].keys() >= {"cpu", "memory"}, container["name"]
        assert resources["limits"].keys() >= {"cpu", "memory"}, container["name"]


@every_workload
def test_every_pod_is_locked(name: str, workload: Manifest) -> None:
    spec = _pod_spec(workload)

    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == workload["metadata"]["name"]
    # A Service's variables (PRISM_MERGER_PORT, KAFKA_PORT) would stand among the settings.
    assert spec["enableServiceLinks"] is False
    for container in containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@every_workload
def test_what_is_written_has_a_limit(name: str, workload: Manifest) -> None:
    for volume in _pod_spec(workload)["volumes"]:
        assert "hostPath" not in volume
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]


@every_service
def test_a_pod_has_longer_than_its_drain(name: str, workload: Manifest) -> None:
    wanted = DRAIN_S + (SIDECAR_S if _sidecars(workload) else 0)

    assert _pod_spec(workload)["terminationGracePeriodSeconds"] > wanted


@every_service
def test_a_service_has_one_budget_that_never_blocks_a_drain(name: str, workload: Manifest) -> None:
    labels = workload["spec"]["template"]["metadata"]["labels"]

    (budget,) = [
        one
        for one in of_kind(overlay(name), "PodDisruptionBudget")
        if selects(one["spec"]["selector"], labels)
    ]

    # A share is rounded up: at least one may always go.
    assert budget["spec"]["maxUnavailable"] in (1, "25%")
    assert "minAvailable" not in budget["spec"]
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@every_service
def test_pods_are_spread_over_nodes(name: str, workload: Manifest) -> None:
    spread = _pod_spec(workload)["topologySpreadConstraints"]

    assert "kubernetes.io/hostname" in [one["topologyKey"] for one in spread]
    for one in spread:
        assert selects(one["labelSelector"], workload["spec"]["template"]["metadata"]["labels"])
        assert selects(one["labelSelector"], {"app.kubernetes.io/name": "another"}) is False


@every_workload
def test_a_pod_can_do_nothing_that_no_policy_allows(name: str, workload: Manifest) -> None:
    labels = workload["spec"]["template"]["metadata"]["labels"]

    closing = [
        one["spec"]["policyTypes"]
        for one in of_kind(overlay(name), "NetworkPolicy")
        if selects(one["spec"]["podSelector"], labels) and not one["spec"].keys() & {"ingress", "egress"}
    ]

    assert ["Ingress", "Egress"] in closing


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_lies_in_the_one_namespace_that_enforces(name: str) -> None:
    (namespace, *rest) = overlay(name)

    assert namespace["kind"] == "Namespace"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"]["namespace"] for one in rest} == {namespace["metadata"]["name"]} == {NAMESPACE}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_image_has_a_version(name: str) -> None:
    images = {one["image"] for workload in of_kind(overlay(name), *WORKLOADS) for one in containers(workload)}

    assert all(re.fullmatch(r"[a-z/-]+:(dev|\d+\.\d+\.\d+)", image) for image in images), images


def test_the_model_servers_version_stands_in_one_place() -> None:
    texts = "".join(path.read_text() for path in K8S.rglob("*.y*ml"))
    tags = set(
        chain.from_iterable(
            [one["image"] for one in containers(workload) if "ollama" in one["image"]]
            for name in OVERLAYS
            for workload in of_kind(overlay(name), *WORKLOADS)
        )
    )

    (image,) = tags
    assert texts.count(image.rpartition(":")[2]) == 1


@pytest.mark.parametrize("name", ["dev", "production-gpu"])
def test_the_model_server_is_a_sidecar_that_waits_for_its_models(name: str) -> None:
    worker = named(overlay(name), "Deployment", "prism-model-worker")
    waiter, sidecar = _pod_spec(worker)["initContainers"]

    # A patch must not have changed their order: a sidecar on an empty volume would end again and again.
    assert [waiter["name"], sidecar["name"], sidecar["restartPolicy"]] == ["await-models", "ollama", "Always"]
    assert "restartPolicy" not in waiter
    # As long as the README lets the pull take: else its next line, `rollout status`, fails at once.
    (minutes,) = re.findall(r"prism-model-pull .*--timeout=(\d+)m", (K8S / "README.md").read_text())
    assert worker["spec"]["progressDeadlineSeconds"] >= 60 * int(minutes)
    told = {one["name"]: one["value"] for one in sidecar["env"]}
    assert told["OLLAMA_KEEP_ALIVE"] == "-1"
    assert told.keys() >= {"OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_MAX_LOADED_MODELS"}
    assert told["OLLAMA_NOPRUNE"] == "true"
    assert all(one["readOnly"] for one in _mounts(worker, "models"))


def _mounts(workload: Manifest, volume: str) -> Iterator[Any]:
    for container in containers(workload):
        for mount in container["volumeMounts"]:
            if mount["name"] == volume:
                yield mount


def test_only_the_pull_writes_models() -> None:
    pull = named(overlay("production-gpu"), "Job", "prism-model-pull")

    assert [mount.get("readOnly", False) for mount in _mounts(pull, "models")] == [False]
    # A Job cannot be changed: it goes away, so that the next apply makes it anew.
    assert pull["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_the_cloud_has_no_trace_of_a_model_server() -> None:
    manifests = overlay("production-cloud")
    worker = named(manifests, "Deployment", "prism-model-worker")

    assert not of_kind(manifests, "Job", "PersistentVolumeClaim")
    assert not _pod_spec(worker)["initContainers"]
    assert "ollama/ollama" not in str(manifests)


def test_a_gpu_is_asked_for_by_the_sidecar_alone() -> None:
    worker = named(overlay("production-gpu"), "Deployment", "prism-model-worker")

    asking = [
        one["name"] for one in containers(worker) if "nvidia.com/gpu" in one["resources"].get("limits", {})
    ]

    assert asking == ["ollama"]
    assert worker["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


@pytest.mark.parametrize("name", OVERLAYS)
def test_mergers_know_how_many_they_are_and_which(name: str) -> None:
    merger = named(overlay(name), "StatefulSet", "prism-merger")
    (container,) = _pod_spec(merger)["containers"]
    told = {one["name"]: one for one in container["env"]}

    assert told["PRISM_MERGER_REPLICAS"]["value"] == str(merger["spec"]["replicas"])
    path = told["PRISM_MERGER_ORDINAL"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert merger["spec"]["podManagementPolicy"] == "Parallel"
    assert [one["metadata"]["name"] for one in merger["spec"]["volumeClaimTemplates"]] == ["data"]
    assert merger["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }


def test_some_overlay_has_more_than_one_merger() -> None:
    """Else the number that is written into the base would do, and the replacement would prove nothing."""
    assert any(
        named(overlay(name), "StatefulSet", "prism-merger")["spec"]["replicas"] > 1 for name in OVERLAYS
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_worker_has_no_number_of_replicas_that_an_apply_would_restore(name: str) -> None:
    assert "replicas" not in named(overlay(name), "Deployment", "prism-model-worker")["spec"]


@pytest.mark.parametrize("name", ["production-gpu", "production-cloud"])
def test_production_is_watched(name: str) -> None:
    manifests = overlay(name)
    dashboards = [
        one
        for one in of_kind(manifests, "ConfigMap")
        if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]

    # The rules tell services apart by `job`, which is their name.
    assert named(manifests, "PodMonitor", "prism")["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert named(manifests, "PrometheusRule", "prism")["spec"]["groups"]
    (endpoint,) = named(manifests, "PodMonitor", "prism")["spec"]["podMetricsEndpoints"]
    (rule,) = endpoint["relabelings"]
    seen = ("label_app_kubernetes_io_name", "phase")
    assert rule["sourceLabels"] == [f"__meta_kubernetes_pod_{one}" for one in seen]
    pods = [f"{name};{phase}" for _, name in SERVICES for phase in ("Pending", "Running")]
    dropped = [one for one in pods if re.fullmatch(rule["regex"], one)]
    assert (rule["action"], dropped) == ("drop", ["prism-model-worker;Pending"])
    assert len(dashboards) == len(list((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))) > 0


def test_the_jobs_are_those_of_the_example() -> None:
    for one in ("feedback.yaml", "feedback_prompt.json"):
        assert (K8S / "base" / "jobs" / one).read_text() == (ROOT / "examples" / "feedback" / one).read_text()


def test_the_overlay_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    below = os.path.relpath(K8S / "overlays", tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(text.replace("[../", f"[{below}/"))
    for one in ("tickets.yaml", "tickets_prompt.json"):
        (tmp_path / one).write_text("{}")

    manifests = render(tmp_path)

    assert named(manifests, "ConfigMap", "prism-jobs")["data"].keys() == {
        "tickets.yaml",
        "tickets_prompt.json",
    }
    models = [one["data"] for one in of_kind(manifests, "ConfigMap") if "OLLAMA_MODEL" in one["data"]]
    assert models == [{"OLLAMA_MODEL": "gemma3:27b"}]
    merger = named(manifests, "StatefulSet", "prism-merger")
    (container,) = _pod_spec(merger)["containers"]
    assert container["image"] == "YOURS/prism-merger:0.1.0"
    assert {"name": "PRISM_MERGER_REPLICAS", "value": "3"} in container["env"]
    assert merger["spec"]["replicas"] == 3
