"""A real Prometheus watches a real fleet that works: every rule and every query of a dashboard has a value.

One fleet and one Prometheus for the module. The load: a run that ends, a run that goes on while everything is
asked, rows that fail, rows that say the same, requests, and a message that nobody can use.
"""

import json
import math
import os
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from prism.kafka.clients import ErrorWatch
from prism.messages import Topics
from prism_embedded.loopback import HOST
from prism_embedded.model_state import Behaviour
from tests.harness.fleet import Fleet, Plan
from tests.harness.process import await_true
from tests.harness.prometheus import Prometheus, promtool
from tests.harness.rows import write_csv
from tools import dashboard_queries
from tools.panels import STARTS
from tools.rules import alerts, groups

JOBS = {"prism-ingestor": "ingestor", "prism-model-worker": "worker", "prism-merger": "merger"}
LONG_RUN = "monitored"
REQUESTS = 12
# Set by `make queries`.
WRITE = "PRISM_WRITE_DASHBOARD_QUERIES"
SEEN_S = 90.0


@dataclass
class Watched:
    """A fleet at work, and who watches it. `values`: what each expression gave, once it gave something."""

    fleet: Fleet
    prometheus: Prometheus
    values: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def missing(self, expressions: list[str]) -> list[str]:
        """Ask what has had no value yet; return what still has none."""
        for expr in expressions:
            if expr not in self.values:
                found = self.prometheus.query(dashboard_queries.asked(expr, LONG_RUN))
                if any(not math.isnan(float(one["value"][1])) for one in found):
                    self.values[expr] = found
        return [expr for expr in expressions if expr not in self.values]

    def await_values(self, expressions: list[str]) -> None:
        await_true(
            lambda: not self.missing(expressions),
            SEEN_S,
            lambda: "without a value:\n" + "\n".join(self.missing(expressions)),
        )

    def await_counts(self, expected: Mapping[str, float]) -> None:
        """Wait until expressions have these values; what has none counts as 0."""

        def seen() -> dict[str, float]:
            found = {expr: self.prometheus.query(expr) for expr in expected}
            return {expr: float(one[0]["value"][1]) if one else 0.0 for expr, one in found.items()}

        await_true(lambda: seen() == expected, 40.0, lambda: str(seen()))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("monitoring")
    faults = "too_few=0.05"
    plan = Plan(workers=2, limit=2, interval=20, behaviour=Behaviour(latency_ms=250.0, faults=faults))
    with Fleet(folder, plan) as fleet:
        write_job_that_shares(fleet)
        targets = {job: [one.port for one in fleet.of(kind)] for job, kind in JOBS.items()}
        with Prometheus(folder / "prometheus", targets) as prometheus:
            short = write_csv(folder / "short.csv", 120)
            fleet.drop(short.path, "short", "short")
            work(fleet)
            fleet.watch.await_end("short")
            # Longer than all that is asked of it takes.
            long = write_csv(
                folder / "long.csv", 6000, seed=2, special=[(n, "the same") for n in range(5, 90)]
            )
            fleet.drop(long.path, LONG_RUN, "long")
            work(fleet)
            yield Watched(fleet, prometheus)


def write_job_that_shares(fleet: Fleet) -> None:
    """Let rows that say the same be asked once: the harness' job turns that off."""
    (job,) = fleet.jobs_dir.glob("*.yaml")
    job.write_text(job.read_text().replace("dedupe: false", "dedupe: true"))


def work(fleet: Fleet) -> None:
    """Send requests, one of them too long for anybody, and what no service can read."""
    producer = fleet.kafka.producer(ErrorWatch())
    for number in range(REQUESTS):
        body = {"user_email": "u@example.com", "prompt": f"Say {number}."}
        producer.produce("eater-send-photo", json.dumps(body), key=f"k{number}")
    refused = {"user_email": "u@example.com", "prompt": "x" * 100_001}
    producer.produce("eater-send-photo", json.dumps(refused), key="refused")
    producer.produce(Topics().results, b"{", key="nobody", partition=0)
    assert producer.flush(30.0) == 0


def test_every_dashboard_query_has_a_value_and_the_page_says_which(watched: Watched) -> None:
    expressions = [expr for _, _, expr in dashboard_queries.all_queries()]
    watched.await_values(expressions)
    if os.environ.get(WRITE):
        watched.fleet.watch.await_merged(LONG_RUN, 1500)
        watched.values.clear()
        watched.await_values(expressions)
        dashboard_queries.PAGE.write_text(dashboard_queries.page(watched.values), encoding="utf-8")


def test_every_recording_rule_has_a_value(watched: Watched) -> None:
    watched.await_values(
        [rule["record"] for group in groups() for rule in group["rules"] if "record" in rule]
    )


def test_every_rule_is_evaluated_and_nothing_fires_on_a_healthy_fleet(watched: Watched) -> None:
    told = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in told if rule["type"] == "alerting"} == {
        rule["alert"] for rule in alerts()
    }
    assert not [rule for rule in told if rule["health"] not in ("ok", "unknown")], "a rule has an error"
    await_true(lambda: unknown_rules(watched) == [], 40.0, lambda: f"not evaluated: {unknown_rules(watched)}")
    firing = [one["metric"]["alertname"] for one in watched.prometheus.query('ALERTS{alertstate="firing"}')]
    assert firing == []


def unknown_rules(watched: Watched) -> list[str]:
    """Return the rules whose turn has not come yet."""
    told = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    return [rule["name"] for rule in told if rule["health"] == "unknown"]


def test_what_is_asked_only_in_need_is_valid_too(watched: Watched) -> None:
    watched.prometheus.query(STARTS)

    def runs() -> list[str]:
        match = {"match[]": "prism_ingestor_run_input_rows"}
        return list(watched.prometheus.get("label/run_id/values", **match))

    await_true(lambda: LONG_RUN in runs(), 40.0, "a dashboard offers the runs that are under way")


@pytest.mark.parametrize("kind", JOBS.values())
def test_promtool_has_nothing_to_say_of_a_services_metrics(watched: Watched, kind: str) -> None:
    port = watched.fleet.of(kind)[0].port
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10.0) as answer:
        done = promtool("check", "metrics", stdin=answer.read())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_metrics_count_what_the_fleet_did(watched: Watched) -> None:
    expected = {
        'sum(prism_worker_requests_total{outcome="answered"})': 2 * REQUESTS,
        'sum(prism_worker_requests_total{outcome!="answered"})': 2,
        'sum(prism_worker_dead_letters_total{reason="request_refused"})': 2,
        'sum(prism_merger_dead_letters_total{reason="not_parsed"})': 2,
        'sum(prism_ingestor_runs_total{state="completed_with_failures"})': 1,
        "max(prism_merger_replicas)": 1,
        # Row 97 of the short run has no message.
        'count(sum(prism_merger_rows_total{reason="empty_message"}) >= 1)': 1,
    }
    watched.await_counts(expected)


@pytest.mark.promise(10)
def test_an_outage_shows_in_what_the_alerts_look_at(watched: Watched) -> None:
    """The last one: it breaks the fleet."""

    watched.fleet.model_server.kill()
    expected = {
        "count(prism_worker_model_up == 0)": 2,
        "count(prism_worker_own_model_up == 0)": 2,
        'sum(prism_worker_breakers_open{reason="unreachable"})': 2,
        'count(prism_service_ready{component="model-worker"} == 0)': 2,
        'count(ALERTS{alertname="PrismModelAway",alertstate="pending"})': 1,
        'prism_ingestor_runs_stalled{cause="model_server"}': 1,
        f'prism_ingestor_run_stalled{{run_id="{LONG_RUN}"}}': 1,
    }
    watched.await_counts(expected)
    watched.fleet["merger-0"].kill()
    watched.await_counts(
        {'count(count by (alertname) (ALERTS{alertname=~"PrismNoMerger|PrismServiceDown"}))': 2}
    )
