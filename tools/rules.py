"""The rules of deploy/prometheus/rules as one PrometheusRule, for clusters with the Prometheus operator."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "rules"
_HEAD = "# Made by `make schemas` from deploy/prometheus/rules; do not edit.\n"


def groups() -> list[dict[str, Any]]:
    """Return every group of rules, in the files' order."""
    found: list[dict[str, Any]] = []
    for path in sorted(RULES.glob("*.yml")):
        found += yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return found


def alerts() -> list[dict[str, Any]]:
    """Return every alert."""
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def prometheus_rule() -> dict[Path, str]:
    """Return the resource by its path."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "prism", "labels": {"app.kubernetes.io/part-of": "prism"}},
        "spec": {"groups": groups()},
    }
    text = yaml.safe_dump(resource, sort_keys=False, width=110, allow_unicode=True)
    return {FOLDER / "prometheusrule.yaml": _HEAD + text}
