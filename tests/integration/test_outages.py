"""The broker goes away under a worker and an ingestor: they say so, wait, go on, and can be stopped."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism.messages import RunState
from prism_embedded.broker import EmbeddedBroker
from tests.harness.model_server import ModelControl
from tests.integration.stage import Service, Stage, await_value

CSV = ("RowID,Message\n" + "".join(f"{n},I love it {n}\n" for n in range(40))).encode()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    made = EmbeddedBroker(tmp_path / "broker", heap_mb=256)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def own_stage(broker: EmbeddedBroker, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(broker.bootstrap, tmp_path, "o.")
    yield made
    made.close()


def start(stage: Stage, model: ModelControl, session: str = "6000") -> list[Service]:
    return [
        stage.ingestor(KAFKA_SESSION_TIMEOUT_MS=session),
        stage.worker(model.url, KAFKA_SESSION_TIMEOUT_MS=session),
    ]


@pytest.mark.chaos
@pytest.mark.promise(10)
def test_an_outage_is_said_waited_for_and_over(
    broker: EmbeddedBroker, own_stage: Stage, model: ModelControl
) -> None:
    stage = own_stage
    services = start(stage, model)
    stage.put(stage.topics.intake, CSV, "march", {"run-id": "a"})
    stage.results(20)
    broker.kill()
    for service in services:
        assert "broker" in service.await_ready(503, seconds=10)["reason"]
    broker.start()
    for service in services:
        service.await_ready(200)
    stage.put(stage.topics.intake, CSV, "march", {"run-id": "b"})
    await_value(lambda: sum(r.run_id == "b" for r in stage.results(0)) >= 20, "the second run")
    assert {result.id for result in stage.results(0)} == {f"{r}/march/{n}" for r in "ab" for n in range(20)}
    assert stage.await_state("b", RunState.RUNNING).rows == 40

    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)  # connected, and silent
    for service in services:
        service.await_ready(503, seconds=12)
    os.kill(broker.pid, signal.SIGCONT)
    for service in services:
        service.await_ready(200)
        assert service.lines("crashed") == []
    for service in services:
        assert len(service.lines("library")) < 60, "an outage floods the log"


@pytest.mark.chaos
def test_services_can_be_stopped_while_the_broker_is_away(
    broker: EmbeddedBroker, own_stage: Stage, model: ModelControl
) -> None:
    stage = own_stage
    services = start(stage, model)
    stage.put(stage.topics.intake, CSV, "march", {"run-id": "a"})
    stage.results(20)
    broker.kill()
    for service in services:
        service.await_ready(503, seconds=10)
    for service in services:
        service.process.send_signal(signal.SIGTERM)
    assert [service.process.wait(31) for service in services] == [0, 0]


@pytest.mark.chaos
@pytest.mark.promise(5)
def test_what_was_fed_and_answered_before_an_outage_is_not_paid_for_again(
    broker: EmbeddedBroker, own_stage: Stage, model: ModelControl
) -> None:
    stage = own_stage
    model.set(latency_ms=300)
    # A session that surely survives the outage: what is tested here is waiting, not rebalancing.
    services = start(stage, model, session="30000")
    stage.put(stage.topics.intake, CSV, "march", {"run-id": "a"})
    await_value(lambda: model.stats()["in_flight"] >= 4, "calls in flight")
    broker.kill()
    broker.start()
    results = stage.results(20, 40)
    assert Counter(result.sequence for result in results) == Counter(range(20))
    asked = Counter(model.stats()["calls_by_rows"].values())
    assert asked == {1: 40}
    assert all(service.process.poll() is None for service in services)
