"""SIGTERM to each service in the middle of its work, as a cluster does that rolls or moves pods.

It ends what it has in hand within the grace period and exits 0; nothing is lost, and nothing paid twice.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from prism.kafka.clients import ErrorWatch
from prism_embedded.model_state import Behaviour
from tests.harness.cases import Case, run_calmly
from tests.harness.fleet import Fleet, Plan
from tests.harness.process import await_true
from tests.harness.rows import write_csv
from tests.harness.topics import TopicReaders

# What the deployment grants is longer (deploy/k8s, docker-compose.yml): the drain itself ends within 30 s.
GRACE_S = 30.0
# At 40 rows/s, longer than five restarts take on a busy machine; when all are done the rest goes fast.
ROWS, BETWEEN = 2000, 100
REQUESTS = 6
REQUEST_TOPIC, REPLY_TOPIC = "eater-send-photo", "gemini-response"
# A merger is replaced on its own volume; of ingestors and workers others go on meanwhile.
VICTIMS = ("ingestor-1", "worker-1", "merger-0", "worker-2", "ingestor-2")
CALM, BUSY_MS = Behaviour(count_rows=True), 1000.0
PLAN = Plan(ingestors=2, workers=2, behaviour=CALM)


def ask(fleet: Fleet, count: int) -> None:
    """Send text requests, each under a key of its own."""
    producer = fleet.kafka.producer(ErrorWatch())
    for number in range(count):
        value = {"user_email": "a@example.com", "prompt": f"Is this good news? ({number})"}
        document = json.dumps({"key": f"k{number}", "value": value})
        producer.produce(REQUEST_TOPIC, document.encode())
    assert producer.flush(30.0) == 0


def replies(readers: TopicReaders) -> Counter[str]:
    return Counter(one.key or "" for one in readers.records(REPLY_TOPIC))


@pytest.mark.promise(1)
@pytest.mark.promise(5)
def test_each_service_drains_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", ROWS)
    with Fleet(tmp_path / "fleet", PLAN) as fleet:
        calm = run_calmly(fleet, table, "calm")
        fleet.model_server.control(latency_ms=BUSY_MS)
        case = Case(fleet, table, "rolled", calm).drop()
        flight = case.flight()
        for number, name in enumerate(VICTIMS, 1):
            case.await_merged(number * BETWEEN)
            if name == "worker-1":
                ask(fleet, REQUESTS)
            assert fleet[name].stop(GRACE_S) == 0, fleet[name].last_words()
            fleet[name].start()
            fleet[name].await_ready()
        assert fleet.watch.merged(case.run_id) < ROWS, "the run was over before the last SIGTERM"
        fleet.model_server.control(latency_ms=0.0)
        account = case.finish(flight=flight)
        assert account.extra_rows == 0
        readers = TopicReaders(fleet.broker.bootstrap)
        await_true(lambda: sum(replies(readers).values()) >= REQUESTS, 30.0, "not every request was answered")
        assert set(replies(readers).values()) == {1}
        readers.close()
        assert {death.status for one in fleet for death in one.deaths} == {0}
