"""docs/dashboard-queries.md: every query of every dashboard with the values that a real fleet gave it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.dashboards import ALL

PAGE = Path(__file__).resolve().parent.parent / "docs" / "dashboard-queries.md"
_MOST_SHOWN = 4
_HEAD = """# What the dashboards ask

Made by `make queries`; do not edit. A real Prometheus scrapes a fleet on one machine (an ingestor,
two workers, a merger; the embedded model server) that works on a run and on requests, with failed rows and
dead letters. Every query of every dashboard has a value there; these are the values of the run that wrote
this page. The test compares the queries, and asks them all again.
"""
_ROW = re.compile(r"^\| (?P<panel>.*?) \| `(?P<query>.*)` \| (?P<value>.*) \|$")


def all_queries() -> list[tuple[str, str, str]]:
    """Return dashboard, panel and expression of every query, in their order."""
    return [(one.slug, panel, query.expr) for one in ALL for panel, query in one.queries()]


def asked(expr: str, run_id: str) -> str:
    """Return an expression as Grafana sends it."""
    return expr.replace("$__rate_interval", "1m").replace("$run", run_id)


def page(values: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the page; values: the samples that each expression gave."""
    lines = [_HEAD]
    for board in ALL:
        lines += [f"## {board.title}\n", "| panel | query | value |", "|---|---|---|"]
        for panel, query in board.queries():
            shown = "<br>".join(_sample(one) for one in values[query.expr][:_MOST_SHOWN])
            more = len(values[query.expr]) - _MOST_SHOWN
            lines.append(
                f"| {panel} | `{_cell(query.expr)}` | {shown}{f'<br>and {more} more' * (more > 0)} |"
            )
        lines.append("")
    return "\n".join(lines)


def queries_of(text: str) -> list[tuple[str, str]]:
    """Return panel and expression of every row of a page."""
    found = [_ROW.match(line) for line in text.splitlines()]
    rows = [(one["panel"], one["query"].replace("\\|", "|")) for one in found if one is not None]
    return [row for row in rows if row[0] != "panel"]


def _sample(one: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in one["metric"].items() if name not in ("__name__", "instance")}
    labels = ", ".join(f"{name}={value}" for name, value in sorted(kept.items()))
    value = float(one["value"][1])
    number = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return _cell(f"{labels}: {number}" if labels else number)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
