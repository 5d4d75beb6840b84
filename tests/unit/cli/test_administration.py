"""`prism admin acls` without a broker: what it prints is what `access.py` grants."""

import json
from pathlib import Path

import pytest

from prism.messages.access import Names, Role, grants
from prism_cli.__main__ import main


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BOOTSTRAP_SERVER", "PRISM_TOPIC_PREFIX", "CONSUMER_GROUP", "PRISM_INGESTOR_GROUP"):
        monkeypatch.delenv(name, raising=False)


def test_every_grant_of_every_role_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "acls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [f"# {role}" for role in Role]
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == sum(len(grants(role, Names())) for role in Role)
    assert all(line.startswith("kafka-acls.sh --bootstrap-server localhost:9092 ") for line in commands)
    assert (
        "kafka-acls.sh --bootstrap-server localhost:9092 --command-config admin.properties --add "
        "--allow-principal User:merger --operation Read --operation Delete --topic prism.results"
    ) in commands
    assert [line for line in commands if "--cluster" in line and "User:admin" in line]
    assert [line for line in commands if line.endswith("--group client- --resource-pattern-type prefixed")]


def test_names_and_principals_are_those_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISM_TOPIC_PREFIX", "x.")
    monkeypatch.setenv("PRISM_INGESTOR_GROUP", "own")
    named = ["--principal", "ingestor=CN=prism-ingestor", "--principal", "scaler=User:keda"]
    assert main(["admin", "acls", "--json", *named]) == 0
    told = json.loads(capsys.readouterr().out)["acls"]
    assert {one["principal"] for one in told} == {"User:CN=prism-ingestor", "User:keda"}
    assert {"x.intake", "own", "own-intake"} < {one["name"] for one in told}


def test_a_host_stands_in_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "acls", "--principal", "merger", "--host", "10.0.0.7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert all("--allow-host 10.0.0.7" in line for line in lines if not line.startswith("#"))


def test_a_role_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "acls", "--principal", "boss"]) == 2
    assert "name one of ingestor, model-worker" in capsys.readouterr().err


def test_topics_need_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "topics"]) == 4
    assert capsys.readouterr().err.startswith("prism: no broker is known")
