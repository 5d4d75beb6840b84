"""Rules, dashboards and runbooks hang together: every name is declared, every alert explained and tested."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from prism.service.http import HealthServer
from prism.service.metrics import ServiceRegistry
from prism.service.readiness import Readiness
from prism_cli.arguments import MODULES
from prism_embedded.loopback import HOST
from tests.harness.prometheus import DEPLOYED, ROOT, promtool
from tools.dashboard_queries import PAGE, all_queries, queries_of
from tools.dashboards import ALL, FOLDER
from tools.metrics_reference import SERVICES, declared
from tools.panels import ALERTS_FIRING, GREY, STARTS, WIDTH, of_workers
from tools.rules import alerts, groups
from tools.run_board import RUN

# What Prometheus and the client library make by themselves.
GIVEN = {"ALERTS", "up", *(f"process_{one}" for one in ("resident_memory_bytes", "cpu_seconds_total"))}
GIVEN |= {"process_start_time_seconds"}
NAME = re.compile(r"\b(?:prism[:_]|gen_ai_client_|process_|up\b|ALERTS\b)[a-zA-Z0-9_:]*")
RULES = [rule for group in groups() for rule in group["rules"]]


def known_names() -> set[str]:
    series = {name for _, module in SERVICES for one in declared(module) for name in one.series}
    return GIVEN | series | {rule["record"] for rule in RULES if "record" in rule}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for slug, panel, expr in all_queries():
        yield f"{slug}/{panel}", expr
    for board in ALL:
        for one in board.variables:
            yield f"{board.slug}/${one.name}", one.query
    yield from (("annotation", ALERTS_FIRING), ("annotation", STARTS))


def names_in(expr: str) -> set[str]:
    """Return the metrics of an expression; a pattern of names stands for each that it means."""
    patterns = re.findall(r'__name__=~"([^"]+)"', expr)
    meant = {name for one in patterns for name in known_names() if re.fullmatch(one, name)}
    assert len(meant) >= len(patterns), f"a pattern means nothing: {patterns}"
    without_labels = re.sub(r"\{[^}]*\}", "", re.sub(r'"[^"]*"', "", expr))
    return set(NAME.findall(without_labels)) | meant


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_every_metric_that_is_asked_for_is_declared(where: str, expr: str) -> None:
    found = names_in(expr)
    assert found, f"{where} asks for no metric"
    assert found <= known_names()


@pytest.mark.parametrize("alert", alerts(), ids=lambda one: one["alert"])
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    runbook = ROOT / alert["annotations"]["runbook_url"]
    text = runbook.read_text(encoding="utf-8")
    assert alert["alert"] in text.splitlines()[2], "the page names its alerts"
    assert re.findall("^## .*", text, re.M) == ["## What it means", "## What to look at", "## What to do"]


def test_every_runbook_belongs_to_an_alert_and_its_links_lead_somewhere() -> None:
    folder = ROOT / "docs" / "runbooks"
    used = {ROOT / alert["annotations"]["runbook_url"] for alert in alerts()}
    assert set(folder.glob("*.md")) == used
    for page in used:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{page.name} leads to {target}"


def test_a_runbooks_commands_are_there() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "runbooks").glob("*.md"))
    named = set(re.findall(r"`prism ([a-z]+)", pages))
    assert named
    assert named <= MODULES.keys()
    # What runs inside a container is what its image has: no curl, no shell of ours.
    inside = re.findall(r"(?:docker compose exec [A-Za-z-]+|kubectl .*exec .* --) (\S+)", pages)
    assert set(inside) == {"python"}


def test_the_question_for_ready_prints_the_reason_of_a_503() -> None:
    text = (ROOT / "docs" / "runbooks" / "service-not-ready.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"docker compose exec SERVICE (python .*)", text)
    readiness = Readiness("disk")
    readiness.set("disk", False, "no room")
    server = HealthServer(HOST, 0, status=dict, readiness=readiness, registry=ServiceRegistry("merger"))
    try:
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]], env={"PORT": str(server.port)}, capture_output=True,
            text=True, timeout=20,
        )  # fmt: skip
    finally:
        server.close()
    assert "disk: no room" in done.stdout


PAGES = [
    ROOT / "docs" / "platform.md",
    ROOT / "docs" / "metrics.md",
    *(ROOT / "docs" / "runbooks").glob("*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_name_no_metric_that_is_not_there(page: Path) -> None:
    named = re.findall(
        r"\b(?:prism_(?:ingestor|worker|merger|service)_|prism:|gen_ai_client_)[a-z0-9_:]+",
        page.read_text(encoding="utf-8"),
    )
    histograms = {one.name for _, module in SERVICES for one in declared(module) if one.type == "histogram"}
    assert set(named) <= known_names() | histograms


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (DEPLOYED / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for one in case.get("alert_rule_test", ()):
                fires[bool(one["exp_alerts"])].add(one["alertname"])
    assert fires[True] == fires[False] == {alert["alert"] for alert in alerts()}


def test_promtool_finds_nothing_wrong_with_rules_and_configuration() -> None:
    done = promtool("check", "config", DEPLOYED / "prometheus.yml")
    assert done.returncode == 0, done.stderr.decode()
    done = promtool(
        "check", "rules", "--lint=all", "--lint-fatal", *sorted((DEPLOYED / "rules").glob("*.yml"))
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_alerts_fire_when_they_should() -> None:
    done = promtool("test", "rules", *sorted((DEPLOYED / "tests").glob("*.yml")))
    assert done.returncode == 0, done.stdout.decode()[-3000:] + done.stderr.decode()[-3000:]


def test_the_committed_values_are_those_of_the_dashboards_queries() -> None:
    committed = queries_of(PAGE.read_text(encoding="utf-8"))
    assert committed == [(panel, expr) for _, panel, expr in all_queries()], "run `make queries`"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_can_lay_out(path: Path) -> None:
    board = json.loads(path.read_text(encoding="utf-8"))
    panels = board["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    assert not [one for one in panels if one["gridPos"]["x"] + one["gridPos"]["w"] > WIDTH]
    assert not [pair for pair in combinations(panels, 2) if _overlap(*(one["gridPos"] for one in pair))]
    for one in panels:
        assert one["type"] in ("row", "text") or one["description"], "a panel says what it shows"
        for target in one.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


# What is true of nobody: no alert fires, no ingestor is active.
NONE_IS_NONE = {"Alerts firing", "Active ingestors"}


def test_a_tile_says_that_nobody_is_there_to_ask_and_not_that_all_is_well(tmp_path: Path) -> None:
    panels = [(board, one) for board in ALL for section in board.sections for one in section.panels]
    tiles = [(board, one) for board, one in panels if one.kind == "stat" and one.title not in NONE_IS_NONE]
    counted = [one.queries[0].expr for _, one in tiles if of_workers("") in one.queries[0].expr]
    cases = [
        _asked('up{job="node"}', [one.queries[0].expr for _, one in tiles], []),
        _asked('prism_build_info{component="model-worker"}', counted, [{"labels": "{}", "value": 0}]),
    ]
    path = tmp_path / "nobody.yml"
    path.write_text(yaml.safe_dump({"tests": cases}), encoding="utf-8")
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert {one.empty for _, one in tiles if of_workers("") in one.queries[0].expr} == {"no workers"}
    assert {board for board, one in tiles if not one.instant} == {RUN}, "an old value looks like one of now"
    shown = [
        one for path in FOLDER.glob("*.json") for one in json.loads(path.read_text())["panels"]
        if one["type"] == "stat"
    ]  # fmt: skip
    bases = {one["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["color"] for one in shown}
    assert bases == {GREY}


def _asked(series: str, expressions: list[str], samples: list[Any]) -> dict[str, Any]:
    asked = [{"expr": one, "eval_time": "5m", "exp_samples": samples} for one in expressions]
    given = [{"series": series, "values": "1+0x10"}]
    return {"interval": "1m", "input_series": given, "promql_expr_test": asked}


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or above)


def test_every_dashboard_is_taken_along_to_kubernetes() -> None:
    text = (ROOT / "deploy" / "grafana" / "kustomization.yaml").read_text(encoding="utf-8")
    taken = [file for one in yaml.safe_load(text)["configMapGenerator"] for file in one["files"]]
    assert sorted(taken) == sorted(f"dashboards/{path.name}" for path in FOLDER.glob("*.json"))
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(one.slug for one in ALL)
