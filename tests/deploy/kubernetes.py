"""A real Kubernetes API server (etcd, no nodes), and the manifests of deploy/k8s as kustomize renders them.

    from tests.deploy.kubernetes import Cluster, cluster  # noqa: F401

    def test_it(cluster: Cluster) -> None: ...

The server's start script is found by PRISM_TEST_KUBE_SERVER, then ../shared/tools/kube-server, then on PATH.
Without it, kubectl or etcd tests are skipped, in CI they fail.
"""

import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = ("dev", "production-gpu", "production-cloud")
WORKLOADS = ("Deployment", "StatefulSet", "Job")
NAMESPACE = "prism"
START_SECONDS = 90.0

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What kubectl said: `errors` holds refusals and warnings."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running API server, reached with `kubeconfig`; the namespace of the overlays is there."""

    kubeconfig: Path

    def admit(self, manifests: Iterable[Manifest]) -> Answer:
        """Have the server say whether it would take all of them; nothing is kept."""
        strictly = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"]
        return self.kubectl(*strictly, stdin=yaml.safe_dump_all(list(manifests), sort_keys=False))

    def kubectl(self, *arguments: str, stdin: str = "") -> Answer:
        # The cache is the server's own: another one had the same address a while ago.
        mine = ["--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.parent / "cache")]
        return kubectl(*mine, *arguments, stdin=stdin)


@pytest.fixture(scope="module", name="cluster")
def cluster_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("kube")
    command = [*_server(), str(folder), str(_three_free_ports())]
    with (folder / "errors.log").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        _await_ready(process, folder / "errors.log")
        running = Cluster(folder / "kubeconfig")
        made = running.kubectl("apply", "-f", str(K8S / "base" / "namespace.yaml"))
        assert made.code == 0, made.errors
        yield running
    finally:
        process.terminate()
        process.wait(timeout=20)


def kubectl(*arguments: str, stdin: str = "") -> Answer:
    """Run kubectl to its end."""
    done = subprocess.run(
        [_program("kubectl"), *arguments], input=stdin, capture_output=True, text=True, timeout=60
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@cache
def _rendered(folder: Path) -> str:
    answer = kubectl("kustomize", str(folder))
    assert answer.code == 0, answer.errors
    return json.dumps(list(yaml.safe_load_all(answer.output)))


def render(folder: Path) -> list[Manifest]:
    """Return what `kubectl apply -k` would send, each time anew."""
    return list(json.loads(_rendered(folder)))


def overlay(name: str) -> list[Manifest]:
    """Return an overlay, rendered."""
    return render(K8S / "overlays" / name)


def compose(folder: Path, *components: str) -> list[Manifest]:
    """Return the base with some components, put together in an empty folder."""
    here = os.path.relpath(K8S, folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [f"{here}/base"],
        "components": [f"{here}/components/{name}" for name in components],
        "images": [{"name": f"prism-{one}", "newTag": "0"} for one in ("ingestor", "model-worker", "merger")],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """Return the manifests of these kinds."""
    return [one for one in manifests if one["kind"] in kinds]


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    """Return the one manifest of that kind and name."""
    (found,) = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return found


def pod_of(workload: Manifest) -> Manifest:
    """Return the pod that a workload's controller would make first."""
    name, template = workload["metadata"]["name"], workload["spec"]["template"]
    spec = {**template["spec"]}
    claims = [
        {"name": one["metadata"]["name"], "persistentVolumeClaim": {"claimName": f"{name}-0"}}
        for one in workload["spec"].get("volumeClaimTemplates", [])
    ]
    spec["volumes"] = [*spec.get("volumes", []), *claims]
    labels = {**template["metadata"]["labels"]}
    if claims:
        labels["apps.kubernetes.io/pod-index"] = "0"
    metadata = {"name": f"{name}-0", "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def containers(workload: Manifest) -> list[Manifest]:
    """Return every container of a workload's pods, those that come first first."""
    spec = workload["spec"]["template"]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects; an empty one selects everything."""
    given = selector or {}
    assert given.keys() <= {"matchLabels", "matchExpressions"}, given
    return all(labels.get(key) == value for key, value in given.get("matchLabels", {}).items()) and all(
        _meets(one, labels) for one in given.get("matchExpressions", [])
    )


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", [])
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise AssertionError(expression)


def _server() -> Sequence[str]:
    for program in ("kubectl", "etcd", "xz", "openssl"):
        _program(program)
    beside = ROOT.parent / "shared" / "tools" / "kube-server"
    candidates = [os.environ.get("PRISM_TEST_KUBE_SERVER"), str(beside), shutil.which("kube-server")]
    found = [one for one in candidates if one and os.access(one, os.X_OK)]
    return found[:1] or _missing(
        f"no kube-server: not in PRISM_TEST_KUBE_SERVER ({candidates[0]}), {beside} or PATH"
    )


@cache
def _program(name: str) -> str:
    return shutil.which(name) or _missing(f"no {name} on PATH")


def _missing(message: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message, allow_module_level=True)


def _three_free_ports() -> int:
    """Return the first of three ports in a row that nobody has: etcd takes the second and the third."""
    return next(port for port in range(21_000, 31_000, 3) if all(map(_is_free, range(port, port + 3))))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if readable else b""
    assert line.startswith(b"ready"), f"kube-server did not start: {log.read_text(errors='replace')[-500:]}"
