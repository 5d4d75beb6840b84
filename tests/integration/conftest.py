"""One real broker and one model server for all tests of this folder; each test has topics of its own."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_embedded.broker import EmbeddedBroker
from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.model_state import Behaviour
from tests.harness.model_server import ModelControl
from tests.integration.desk import JOBS, Desk
from tests.integration.stage import Stage


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that nobody may stop."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), heap_mb=256)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def model_server() -> Iterator[str]:
    with EmbeddedModelServer(Behaviour(count_rows=True)) as server:
        yield server.url


@pytest.fixture
def model(model_server: str) -> ModelControl:
    """The shared model server, well and forgetful."""
    control = ModelControl(model_server)
    control.set(reset=True, down=False, latency_ms=0, slots=0, faults="")
    return control


@pytest.fixture
def stage(shared_broker: str, tmp_path: Path) -> Iterator[Stage]:
    """Topics of its own on the shared broker, and processes that end with the test."""
    made = Stage(shared_broker, tmp_path, f"t{uuid.uuid4().hex[:8]}.")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def desk(shared_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One active ingestor that no test may disturb: each uses runs of its own."""
    stage = Stage(shared_broker, tmp_path_factory.mktemp("desk"), f"d{uuid.uuid4().hex[:8]}.")
    for name, text in JOBS.items():
        (stage.jobs / name).write_text(text)
    try:
        made = Desk(stage)
        yield made
        assert made.ingestor.process.poll() is None, made.ingestor.lines()[-5:]
        assert made.ingestor.lines("thread_died") == []
    finally:
        stage.close()
