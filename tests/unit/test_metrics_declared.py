"""Every metric is declared once, under Prometheus' rules, with a comment that says why it is there."""

import re
from importlib import import_module

import pytest
from prometheus_client import CollectorRegistry

from prism_merger.metrics import Metrics
from tools.metrics_reference import SERVICES, Declared, declared

ALL = [one for _, module in SERVICES for one in declared(module)]
# What Prometheus and its operator set on every target; ours would come out as `exported_…`.
TAKEN = {"job", "instance", "namespace", "pod", "container", "endpoint", "service"}
UNBOUNDED = {
    "row",
    "row_id",
    "file",
    "label",
    "batch",
    "batch_id",
    "offset",
    "key",
    "user",
    "user_email",
    "uri",
}


def registries() -> list[CollectorRegistry]:
    worker, ingestor = (import_module(f"{name}.metrics") for name in ("prism_model_worker", "prism_ingestor"))
    return [worker.REGISTRY, ingestor.REGISTRY, Metrics().registry]


def test_the_reference_knows_every_metric_of_every_service() -> None:
    families = {family.name for registry in registries() for family in registry.collect()}
    known = {one.name.removesuffix("_total") for one in ALL}
    assert {name for name in families if not name.startswith("process_")} == known


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_metric_keeps_prometheus_rules(one: Declared) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", one.name)
    assert one.help.endswith(".")
    assert one.comment, "a comment above it says why it is there, and what its labels' values are"
    assert not TAKEN & set(one.labels)
    assert not UNBOUNDED & set(one.labels)
    assert one.type == "counter" or not one.name.endswith("_total")
    if "run_id" in one.labels:
        assert one.name.startswith("prism_ingestor_run_"), "only the showcase bounds runs"


def test_a_name_stands_once() -> None:
    names = [one.name for one in ALL]
    assert len(names) == len(set(names))
