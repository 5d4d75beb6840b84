"""What `prism doctor` says of a broker that does not let us in, or does not show us a topic."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prism.kafka.errors import BrokerRefused
from prism.messages import Topics
from prism_cli import connection as connections
from prism_cli import doctor
from prism_cli.exits import BROKER_AWAY


def findings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[doctor.Finding]:
    kafka = SimpleNamespace(bootstrap="b:9092", admin=lambda: None)
    found: Any = SimpleNamespace(kafka=kafka, bootstrap="b:9092", origin="--bootstrap", topics=Topics("x."))
    monkeypatch.setattr(connections, "find", lambda _options: found)
    return list(doctor.broker(doctor.Patient(Namespace(bootstrap="b:9092"), {}, data_dir=folder)))


def refuse(*_: object) -> str:
    raise BrokerRefused("the broker does not take our credentials")


def test_a_broker_that_refuses_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "check_answer", refuse)
    (found,) = findings(tmp_path, monkeypatch)
    assert (found.name, found.code) == ("broker", BROKER_AWAY)
    assert found.detail == "the broker does not take our credentials"


def test_topics_that_may_not_be_seen_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "check_answer", lambda *_: "c1")
    monkeypatch.setattr(doctor, "partition_count", refuse)
    broker, topics = findings(tmp_path, monkeypatch)
    assert broker.ok
    assert (topics.name, topics.code) == ("topics", BROKER_AWAY)
