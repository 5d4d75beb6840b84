"""What manifests name is there: settings that a service knows, and objects that somebody makes."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from confluent_kafka import KafkaException, Producer

from prism.service.settings import ServiceSettings, load
from prism_ingestor.settings import IngestorSettings
from prism_merger.settings import MergerSettings
from prism_model_worker.settings import WorkerSettings
from tests.deploy.kubernetes import (
    K8S,
    NAMESPACE,
    OVERLAYS,
    WORKLOADS,
    Manifest,
    compose,
    containers,
    named,
    of_kind,
    overlay,
    selects,
)
from tests.deploy.network import End, Network, policies_of

SERVICES: dict[str, type[ServiceSettings]] = {
    "prism-ingestor": IngestorSettings,
    "prism-model-worker": WorkerSettings,
    "prism-merger": MergerSettings,
}
# Of `ollama serve` and its client (envconfig of Ollama 0.17).
OLLAMA = {
    "HOME",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_HOST",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MODELS",
    "OLLAMA_NOPRUNE",
    "OLLAMA_NO_CLOUD",
    "OLLAMA_NUM_PARALLEL",
}
# In the pull's own argument.
OLLAMA_ARGUMENTS = {"OLLAMA_MODEL"}
# What an operator of the cluster brings, with its keys; all of it optional, or of a component that says so.
BROUGHT = {("Secret", "prism-files"), ("PersistentVolumeClaim", "prism-sources")}
# What Strimzi makes for a cluster and for a user who comes with a certificate.
CLUSTER_KEYS = {"ca.crt"}
USER_KEYS = {"ca.crt", "user.crt", "user.key", "user.p12", "user.password"}

every_service = pytest.mark.parametrize(
    ("name", "service"), [(name, service) for name in OVERLAYS for service in SERVICES]
)


def _service(manifests: list[Manifest], name: str) -> tuple[Manifest, Any]:
    workload = next(one for one in of_kind(manifests, *WORKLOADS) if one["metadata"]["name"] == name)
    return workload, workload["spec"]["template"]["spec"]["containers"][0]


def _environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Return a container's variables as its process would see them; a secret's value is made up."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for one in container.get("env", []):
        found[one["name"]] = one["value"] if "value" in one else _value(manifests, one["valueFrom"])
    return found


def _value(manifests: list[Manifest], source: Manifest) -> str:
    if "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        return str(named(manifests, "ConfigMap", reference["name"])["data"][reference["key"]])
    if "fieldRef" in source:
        return "0"
    assert "secretKeyRef" in source, source
    return "a-secret-that-is-long-enough"


@every_service
def test_every_variable_is_a_setting_of_its_service(name: str, service: str) -> None:
    manifests = overlay(name)
    given = _environment(manifests, _service(manifests, service)[1])
    known = {field.validation_alias for field in SERVICES[service].model_fields.values()}

    unknown = {one for one in given if one not in known and not one.startswith("KAFKA_")}

    assert unknown == set()


@every_service
def test_a_service_takes_its_settings(name: str, service: str) -> None:
    manifests = overlay(name)
    container = _service(manifests, service)[1]

    settings = load(SERVICES[service], _environment(manifests, container))

    writable = [one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")]
    assert str(settings.data_dir) in writable
    assert settings.create_topics is False
    assert settings.bootstrap_server == "prism-kafka-bootstrap:9093"


@every_service
def test_every_kafka_property_is_one_of_librdkafka(name: str, service: str) -> None:
    manifests = overlay(name)
    container = _service(manifests, service)[1]
    settings = load(SERVICES[service], _environment(manifests, container))

    properties = settings.kafka_properties()

    assert properties["security.protocol"] == "SSL"
    files = {key: value for key, value in properties.items() if key.endswith(".location")}
    assert set(files.values()) == set(_mounted_files(_service(manifests, service)[0], container))
    # The names first: the files are not here.
    with pytest.raises(KafkaException, match=r"ssl\.(ca|certificate|key)\.location|No such file|failed"):
        Producer(properties)
    with pytest.raises(KafkaException, match="No such configuration property"):
        Producer({**properties, "ssl.key.place": "x"})


def _mounted_files(workload: Manifest, container: Manifest) -> Iterator[str]:
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "kafka"]
    for source in _sources_of(workload, "kafka"):
        for item in source["secret"]["items"]:
            yield f"{mount['mountPath']}/{item['path']}"


def _sources_of(workload: Manifest, volume: str) -> list[Manifest]:
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    (found,) = [one for one in volumes if one["name"] == volume]
    return list(found["projected"]["sources"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_of_a_model_server_is_one_of_ollama(name: str) -> None:
    for workload in of_kind(overlay(name), *WORKLOADS):
        for container in containers(workload):
            if container["image"].startswith("ollama/"):
                given = {one["name"] for one in container.get("env", [])}
                assert given <= OLLAMA | OLLAMA_ARGUMENTS


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_service_comes_to_the_broker_as_itself(name: str) -> None:
    manifests = overlay(name)

    for service in SERVICES:
        user, cluster = _sources_of(_service(manifests, service)[0], "kafka")
        assert [user["secret"]["name"], cluster["secret"]["name"]] == [service, "prism-cluster-ca-cert"]


@pytest.mark.parametrize("name", [*OVERLAYS, "others"])
def test_every_object_that_is_named_is_there(name: str, tmp_path: Any) -> None:
    manifests = compose(tmp_path, "hpa", "sources", "tracing") if name == "others" else overlay(name)
    there = _made(manifests)

    missing = [
        (what, optional)
        for what, optional in _named(manifests)
        if what not in there and not (what[:2] in BROUGHT and (optional or what[0] != "Secret"))
    ]

    assert missing == []


def _made(manifests: list[Manifest]) -> set[tuple[str, ...]]:
    """Return what there will be: kind, name and, of maps and secrets, each key."""
    found: set[tuple[str, ...]] = set()
    for one in manifests:
        kind, name = one["kind"], one["metadata"]["name"]
        found.add((kind, name))
        found |= {(kind, name, key) for key in one.get("data", {})}
        found |= {("Secret", *key) for key in _secret_keys(kind, name, one)}
    return found


def _secret_keys(kind: str, name: str, manifest: Manifest) -> Iterator[tuple[str, ...]]:
    """Yield the secrets that an operator makes of a manifest, with their keys."""
    keys: dict[str, set[str]] = {
        "Kafka": CLUSTER_KEYS,
        "KafkaUser": USER_KEYS,
        "ExternalSecret": {one["secretKey"] for one in manifest["spec"].get("data", [])}
        if kind == "ExternalSecret"
        else set(),
    }
    secret = {"Kafka": f"{name}-cluster-ca-cert"}.get(kind, name)
    if kind == "ExternalSecret":
        secret = manifest["spec"]["target"]["name"]
    for key in keys.get(kind, set()):
        yield secret, key


def _named(manifests: list[Manifest]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield what manifests refer to, and whether they can do without it."""
    for workload in of_kind(manifests, *WORKLOADS):
        spec = workload["spec"]["template"]["spec"]
        yield ("ServiceAccount", spec["serviceAccountName"]), False
        for volume in spec["volumes"]:
            yield from _of_volume(volume)
        for container in containers(workload):
            yield from _of_container(container)
    for one in of_kind(manifests, "StatefulSet"):
        yield ("Service", one["spec"]["serviceName"]), False
    for one in of_kind(manifests, "ScaledObject", "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        yield (target.get("kind", "Deployment"), target["name"]), False
        for trigger in one["spec"].get("triggers", []):
            yield ("TriggerAuthentication", trigger["authenticationRef"]["name"]), False
    for one in of_kind(manifests, "TriggerAuthentication"):
        for secret in one["spec"]["secretTargetRef"]:
            yield ("Secret", secret["name"], secret["key"]), False
    for one in of_kind(manifests, "KafkaTopic", "KafkaUser", "KafkaNodePool"):
        yield ("Kafka", one["metadata"]["labels"]["strimzi.io/cluster"]), False


def _of_volume(volume: Manifest) -> Iterator[tuple[tuple[str, ...], bool]]:
    if "configMap" in volume:
        yield ("ConfigMap", volume["configMap"]["name"]), False
    if "persistentVolumeClaim" in volume:
        yield ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]), False
    for source in volume.get("projected", {}).get("sources", []):
        for item in source["secret"]["items"]:
            yield ("Secret", source["secret"]["name"], item["key"]), False
    known = {"name", "configMap", "persistentVolumeClaim", "projected", "emptyDir", "ephemeral"}
    assert volume.keys() <= known, volume


def _of_container(container: Manifest) -> Iterator[tuple[tuple[str, ...], bool]]:
    for source in container.get("envFrom", []):
        yield ("ConfigMap", source["configMapRef"]["name"]), False
    for one in container.get("env", []):
        for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            reference = one.get("valueFrom", {}).get(key)
            if reference:
                yield (kind, reference["name"], reference["key"]), reference.get("optional", False)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_selector_selects_one_workload(name: str) -> None:
    manifests = overlay(name)
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(manifests, *WORKLOADS)]

    for one in of_kind(manifests, "PodDisruptionBudget"):
        assert sum(selects(one["spec"]["selector"], each) for each in labels) == 1
    for one in of_kind(manifests, "Service"):
        assert sum(selects({"matchLabels": one["spec"]["selector"]}, each) for each in labels) == 1
    for one in of_kind(manifests, "PodMonitor"):
        assert sum(selects(one["spec"]["selector"], each) for each in labels) == len(SERVICES)


def test_the_command_beside_a_fleet_reaches_the_broker_with_the_keys_of_the_readme() -> None:
    namespace, pod = yaml.safe_load_all((K8S / "cli.yaml").read_text())
    readme = (K8S / "README.md").read_text()
    manifests = overlay("production-gpu")
    (container,) = pod["spec"]["containers"]
    (secret, _) = pod["spec"]["volumes"]
    settings = load(ServiceSettings, {one["name"]: one["value"] for one in container["env"]})
    own, space = namespace["metadata"]["name"], namespace["metadata"]["labels"]
    command = End("prism", "10.1.0.9", own, pod["metadata"]["labels"], space)
    broker_labels = {"strimzi.io/cluster": "prism", "strimzi.io/name": "prism-kafka"}
    broker = End("kafka", "10.1.0.21", NAMESPACE, broker_labels)

    assert Network(policies_of(manifests)).allows(command, broker, "TCP", 9093)
    trigger = named(manifests, "ScaledObject", "prism-model-worker")["spec"]["triggers"][0]
    assert settings.bootstrap_server == trigger["metadata"]["bootstrapServers"]
    files = {value for key, value in settings.kafka_properties().items() if key.endswith(".location")}
    assert named(manifests, "KafkaUser", secret["secret"]["secretName"])
    (made,) = re.findall(rf"kubectl -n {own} create secret generic prism-operator (.*)", readme)
    brought = re.findall(r"--from-file=(\S+)", made)
    assert files == {f"/etc/prism/kafka/{one}" for one in brought}
    assert f"{container['image']}|YOURS/prism-cli" in readme
