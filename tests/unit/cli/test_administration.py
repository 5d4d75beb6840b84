"""`prism admin` without a broker: ACLs are what `access.py` grants; stale answers are waited out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prism.kafka.topic_admin import TopicState
from prism.messages import Topics, TopicSpec
from prism.messages.access import Names, Role, grants
from prism_cli import administration
from prism_cli.__main__ import main
from prism_cli.topic_audit import wanted_topics


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


def test_a_change_is_shown_once_the_broker_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The controller has confirmed it, and the broker that is asked knows only the topic of before."""
    wanted = wanted_topics(Topics("x."), [TopicSpec("in", None, {}), TopicSpec("out", None, {})], 3, 1)
    as_wanted = {
        one.spec.name: TopicState(one.spec.name, one.partitions, 1, dict(one.spec.config)) for one in wanted
    }
    before = as_wanted | {"x.batches": replace(as_wanted["x.batches"], partitions=2)}
    answers = [before, before, before, as_wanted]
    monkeypatch.setattr(administration, "topic_states", lambda *_: answers.pop(0))
    monkeypatch.setattr(administration, "grow", lambda *_: None)
    monkeypatch.setattr(administration, "first_contact", lambda *_: "")
    monkeypatch.setattr(administration, "_wanted", lambda *_: wanted)
    assert main(["admin", "topics", "--apply", "--bootstrap", "127.0.0.1:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == ["x.batches: partitions is 2, wanted 3"]
    assert answers == []
