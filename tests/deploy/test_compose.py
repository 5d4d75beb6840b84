"""docker-compose.yml by the real parser: every profile, every setting, what each container is held to."""

import json
import re
import subprocess
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from prism.service.lifecycle import DRAIN_S
from prism.service.settings import ServiceSettings, describe, load
from prism_embedded.broker_files import Ports, server_properties
from prism_embedded.kafka_jars import KAFKA_VERSION
from prism_ingestor.settings import IngestorSettings
from prism_merger.settings import MergerSettings
from prism_model_worker.settings import WorkerSettings
from tests.deploy.compose import EXAMPLE, FILE, ROOT, Compose, compose, environment, words  # noqa: F401
from tests.integration.ollama import Ollama, ollama_server  # noqa: F401
from tools.env_example import FIXED_IN_COMPOSE, LEFT_OUT_OF_COMPOSE

CORE = {"kafka", "topics", "ingestor", "model-worker", "merger"}
OF_PROFILE = {
    "cpu": {"ollama", "ollama-pull"},
    "gpu": {"ollama-gpu", "ollama-pull"},
    "cloud": set[str](),
    "observability": {"prometheus", "grafana"},
    "tools": {"cli"},
}
PROFILES = sorted(OF_PROFILE)
SUBSETS = [list(one) for size in range(1, len(PROFILES) + 1) for one in combinations(PROFILES, size)]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "ingestor": IngestorSettings,
    "model-worker": WorkerSettings,
    "merger": MergerSettings,
}
OURS = {*SETTINGS, "topics", "cli"}
ONE_SHOTS = {"topics", "ollama-pull", "cli"}
# OpenTelemetry's own name, read by its library.
NO_SETTINGS = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}


@pytest.fixture(scope="module")
def whole(compose: Compose) -> dict[str, Any]:  # noqa: F811
    """Return the services of all profiles at once."""
    services = compose.config(*PROFILES)["services"]
    assert set(services) == CORE.union(*OF_PROFILE.values())
    assert isinstance(services, dict)
    return services


@pytest.mark.parametrize("profiles", SUBSETS, ids="+".join)
def test_every_combination_of_profiles_is_accepted(compose: Compose, profiles: list[str]) -> None:  # noqa: F811
    services = compose.config(*profiles)["services"]
    assert set(services) == CORE.union(*(OF_PROFILE[one] for one in profiles))
    for name, service in services.items():
        waits = service.get("depends_on", {})
        assert {one for one, how in waits.items() if how["required"]} <= set(services), name


def test_the_example_brings_up_a_laptop_without_a_gpu(compose: Compose) -> None:  # noqa: F811
    services = compose.config()["services"]
    assert set(services) == CORE | OF_PROFILE["cpu"]
    assert "devices" not in json.dumps(services)


def test_cloud_leaves_ollama_out_and_hands_the_key_over_in_a_file(compose: Compose) -> None:  # noqa: F811
    found = compose.config(
        environ={
            "COMPOSE_PROFILES": "cloud",
            "OLLAMA_MODEL": "gpt-oss:20b-cloud",
            "OLLAMA_API_KEY_FILE": "./secrets/key",
            "OLLAMA_API_KEY": "sk-inline",
        }
    )
    worker = found["services"]["model-worker"]
    assert set(found["services"]) == CORE
    assert environment(worker)["OLLAMA_API_KEY_FILE"] == "/run/secrets/ollama_api_key"
    assert environment(worker)["OLLAMA_MODEL"] == "gpt-oss:20b-cloud"
    assert [one["source"] for one in worker["secrets"]] == ["ollama_api_key"]
    assert found["secrets"]["ollama_api_key"]["file"] == str(ROOT / "secrets" / "key")
    assert "sk-inline" not in json.dumps(found)


def test_without_a_key_the_secret_is_an_empty_file(compose: Compose) -> None:  # noqa: F811
    found = compose.config()
    assert {one["file"] for one in found["secrets"].values()} == {"/dev/null"}
    assert environment(found["services"]["model-worker"])["OLLAMA_API_KEY_FILE"] == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    restart: on-failure:3\n", "    restarts: on-failure:3\n", "restarts"),
        ("networks: [broker, metrics, models]", "networks: [broker, metrics, model]", "model"),
        ("      - merger-data:/data", "      - merged-data:/data", "merged-data"),
        ("    secrets: [files_token]", "    secrets: [file_token]", "file_token"),
        ("kafka: {condition: service_healthy}", "broker: {condition: service_healthy}", "broker"),
        (
            "condition: service_completed_successfully",
            "condition: service_done",
            "condition value must be one of",
        ),
        ("${KAFKA_HOST_PORT:-19092}:19092", "port:19092", "port"),
        ("limits: {memory: 1536m, pids: 1024}", "limits: {memory: much, pids: 1024}", "much"),
        ("  metrics: {internal: true}", "  broker: {internal: true}", "broker"),
    ],
)
def test_what_is_broken_is_refused(
    compose: Compose,  # noqa: F811
    tmp_path: Path,
    old: str,
    new: str,
    said: str,
) -> None:
    broken = tmp_path / "docker-compose.yml"
    text = FILE.read_text()
    assert old in text
    broken.write_text(text.replace(old, new))
    done = compose.run(*PROFILES, file=broken)
    assert done.returncode != 0
    assert said in done.stderr


def test_without_an_env_file_it_says_what_to_do(compose: Compose) -> None:  # noqa: F811
    done = compose.run(env_file=Path("/dev/null"))
    assert done.returncode != 0
    assert "OLLAMA_MODEL" in done.stderr
    assert "copy .env.example to .env" in done.stderr


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_every_name_is_a_setting_of_its_service_and_every_setting_is_there(
    whole: dict[str, Any], service: str
) -> None:
    known = {row.name for row in describe(SETTINGS[service])}
    secrets = {row.name for row in describe(SETTINGS[service]) if row.type == "secret"} - {"KAFKA_…"}
    named = {name.removesuffix("_FILE") if name.removesuffix("_FILE") in secrets else name: value
             for name, value in whole[service]["environment"].items()}  # fmt: skip
    assert set(named) - known == NO_SETTINGS
    assert known - set(named) == (set(LEFT_OUT_OF_COMPOSE) & known) - secrets
    fixed = {name for name, value in named.items() if value is not None and name not in secrets}
    assert fixed - {"OLLAMA_MODEL"} == set(FIXED_IN_COMPOSE) & known


def test_topics_are_made_as_the_services_want_them(whole: dict[str, Any]) -> None:
    names = set(whole["topics"]["environment"])
    assert names <= {row.name for row in describe(WorkerSettings)}
    assert names >= {name for name in whole["model-worker"]["environment"] if "TOPIC" in name} - {
        "PRISM_CREATE_TOPICS"
    }
    for service in SETTINGS:
        assert environment(whole[service])["PRISM_CREATE_TOPICS"] == "false"


@pytest.mark.parametrize("name", ["PRISM_TOPIC_PREFIX", "CONCURRENT_REQUESTS", "LOG_LEVEL"])
def test_a_line_of_env_reaches_the_service(compose: Compose, tmp_path: Path, name: str) -> None:  # noqa: F811
    env = tmp_path / "env"
    env.write_text(f"{EXAMPLE.read_text()}\n{name}=7\n")
    done = compose.run(env_file=env)
    assert json.loads(done.stdout)["services"]["model-worker"]["environment"][name] == "7"


@pytest.mark.parametrize("service", sorted(SETTINGS))
def test_a_commented_line_of_the_example_is_the_default(tmp_path: Path, service: str) -> None:
    plain = tmp_path / "env"
    plain.write_text(re.sub(r"(?m)^# (?!KAFKA_…)([A-Z][A-Z_]+=)", r"\1", EXAMPLE.read_text()))
    given = {name: value or "" for name, value in dotenv_values(plain, interpolate=False).items()}
    rows = {row.name for one in SETTINGS.values() for row in describe(one)}
    assert rows - set(given) == {"KAFKA_…"}
    known = {row.name for row in describe(SETTINGS[service])} - {"PORT", "OLLAMA_MODEL"}
    broker = {"BOOTSTRAP_SERVER": "kafka:9092"}
    uncommented = load(SETTINGS[service], {name: given[name] for name in known & set(given)} | broker)
    chance = {"worker_id", "instance"}
    assert uncommented.model_dump(exclude=chance) == load(SETTINGS[service], broker).model_dump(
        exclude=chance
    )


def test_every_container_is_held_to_little(whole: dict[str, Any]) -> None:
    for name, service in whole.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["logging"]["options"]["max-size"], name
        assert not {"privileged", "container_name", "network_mode", "pid", "ipc", "cap_add"} & set(service), (
            name
        )
        assert "docker.sock" not in json.dumps(service), name
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"]), f"{name}: pin {service['image']}"
        assert {one["host_ip"] for one in service.get("ports", [])} <= {"127.0.0.1"}, name
        assert ("healthcheck" in service) == (name not in ONE_SHOTS), name
        assert service["restart"] in (["no", "on-failure:3"] if name in ONE_SHOTS else ["unless-stopped"]), (
            name
        )
    version = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text())["project"]["version"]
    for name in OURS:
        image = "prism-cli" if name == "topics" else f"prism-{name}"
        assert whole[name]["image"] == f"{image}:{version}"
        assert (ROOT / whole[name]["build"]["dockerfile"]).is_file()
        assert whole[name]["read_only"], name
        assert whole[name]["tmpfs"], name
        assert float(whole[name]["stop_grace_period"].removesuffix("s")) > DRAIN_S, name
        writable = [one["target"] for one in whole[name].get("volumes", []) if not one.get("read_only")]
        assert writable == {"ingestor": ["/data"], "merger": ["/data", "/outputs"]}.get(name, []), name


def test_workers_scale(whole: dict[str, Any]) -> None:
    """Nothing of a worker is there but once: no port of this machine, no name, no volume, no id."""
    worker = whole["model-worker"]
    assert "ports" not in worker
    assert all(one["type"] == "bind" and one["read_only"] for one in worker["volumes"])
    assert "PRISM_WORKER_ID" not in worker["environment"]


def pairs(names: set[str]) -> set[frozenset[str]]:
    return {frozenset(two) for two in combinations(names, 2)}


def test_who_can_reach_whom(whole: dict[str, Any], compose: Compose) -> None:  # noqa: F811
    """The table of networks: what is not in it has no way. Who shares a network can reach each other."""
    ours, broker = {"topics", "ingestor", "model-worker", "merger"}, {"kafka", "cli"}
    ollamas = {"ollama", "ollama-gpu", "ollama-pull"}
    table = {
        # The broker and who talks with it; the services see one another there, and `cli` the merger's files.
        *pairs(ours | broker),
        # Models: who asks them and who pulls them.
        *pairs({"model-worker", "cli"} | ollamas),
        # What Prometheus asks, and who asks Prometheus.
        *pairs({"prometheus", *ours} - {"topics"}),
        *pairs({"grafana", "prometheus"}),
    }
    joint = {
        frozenset(two)
        for two in combinations(whole, 2)
        if set(whole[two[0]]["networks"]) & set(whole[two[1]]["networks"])
    }
    assert joint == table
    networks = compose.config()["networks"]
    assert {name for name in networks if networks[name].get("internal")} == {"broker", "metrics"}
    # A way out of the machine have the worker and `cli` (models in a cloud) and the merger (stores).
    closed = {name for name in OURS if set(whole[name]["networks"]) <= {"broker", "metrics"}}
    assert closed == {"topics", "ingestor"}


def test_every_service_reaches_the_collector_of_the_guide(compose: Compose, tmp_path: Path) -> None:  # noqa: F811
    guide = (ROOT / "docs" / "compose.md").read_text()
    (text,) = [one for one in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "jaeger:" in one]
    env = tmp_path / "env"
    env.write_text(f"{EXAMPLE.read_text()}\nOTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318\n")
    both = tmp_path / "both.yml"
    both.write_text(FILE.read_text().replace("services:\n", text, 1))
    done = compose.run(file=both, env_file=env)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    for one in SETTINGS:
        assert environment(services[one])["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4318"
        assert set(services[one]["networks"]) & set(services["jaeger"]["networks"]), one


def test_the_pull_fetches_nothing_that_is_there(whole: dict[str, Any], ollama: Ollama) -> None:
    """The one-shot and the health check by the real Ollama: a laptop without a network starts, too."""

    def run(command: list[str], environ: dict[str, str]) -> int:
        path = f"{Path(f'/proc/{ollama.pid}/exe').resolve().parent}:/usr/bin:/bin"
        done = subprocess.run(
            command, env={"PATH": path, "HOME": "/tmp", **environ}, capture_output=True, timeout=60
        )
        return done.returncode

    one_shot = whole["ollama-pull"]
    for model, status in (("tiny", 0), ("127.0.0.1:1/none/none", 1)):
        environ = environment(one_shot) | {"OLLAMA_HOST": ollama.url, "OLLAMA_MODEL": model}
        assert run([one.replace("$$", "$") for one in one_shot["entrypoint"]], environ) == status
    for name in ("ollama", "ollama-gpu"):
        bound = environment(whole[name])["OLLAMA_HOST"]
        here = bound.replace("11434", ollama.url.rpartition(":")[2])
        assert here != bound
        assert run(words(whole[name]["healthcheck"]["test"]), {"OLLAMA_HOST": here}) == 0
    assert run(words(whole["ollama"]["healthcheck"]["test"]), {"OLLAMA_HOST": "127.0.0.1:1"}) != 0


def test_nobody_waits_for_less_than_it_needs(whole: dict[str, Any]) -> None:
    for name in SETTINGS:
        waits = {other: one["condition"] for other, one in whole[name]["depends_on"].items()}
        assert (
            waits.items() >= {"kafka": "service_healthy", "topics": "service_completed_successfully"}.items()
        )
    worker = whole["model-worker"]["depends_on"]
    assert worker["ollama-pull"]["condition"] == "service_completed_successfully"
    assert not any(one["required"] for other, one in worker.items() if other.startswith("ollama"))


def test_kafka_is_set_up_as_the_broker_that_everything_is_tested_on(whole: dict[str, Any]) -> None:
    assert whole["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment(whole["kafka"]).items()
        if name.startswith("KAFKA_")
    }
    lines = [line for line in server_properties(Path("/x"), Ports(1, 2)).splitlines() if "=" in line]
    tested = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    # Addresses, names of listeners and folders are a container's; the others are a laptop's thrift, or one
    # JVM's that is killed and comes back at once.
    apart = re.compile(
        r"(advertised\.)?listeners|log\.dirs|listener\.security.*|inter\.broker.*|controller\.quorum\.voters"
        r"|num\..*threads.*|background\.threads|broker\.(heartbeat|session).*|metadata\.log.*"
        r"|log\.initial.*|log\.cleaner\.(threads|backoff.*)"
    )
    assert {
        name: value
        for name, value in tested.items()
        if given.get(name) != value and not apart.fullmatch(name)
    } == {}
    limit = int(whole["kafka"]["deploy"]["resources"]["limits"]["memory"])
    heap = int(re.search(r"-Xmx(\d+)m", environment(whole["kafka"])["KAFKA_HEAP_OPTS"])[1])  # type: ignore[index]
    assert limit >= 2 * heap * 2**20


def test_what_is_mounted_is_there(whole: dict[str, Any]) -> None:
    mounted = {
        Path(one["source"])
        for service in whole.values()
        for one in service.get("volumes", [])
        if one["type"] == "bind"
    }
    assert mounted
    assert [one for one in mounted if not one.exists()] == []
