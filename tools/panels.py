"""Grafana dashboards as short Python: a dashboard is rows of panels, a panel is queries and how to read them.

The JSON is Grafana's (schema version 39, Grafana 10 and newer), made the same each time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
# Values from which on a colour holds; the first one has none.
Steps = tuple[tuple[float | None, str], ...]

WIDTH = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "yellow", "red"
# Of a tile that has no value: neither good nor bad.
GREY = "#808080"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression; `legend` as Grafana writes it, with `{{label}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    about: what it says, and what to do when it looks wrong; shown behind the panel's `i`. unit: Grafana's.
    steps: value from which on a colour holds, the first one from the lowest value. width: of 24. instant:
    what is so at the end of the time shown, else its course. empty: what stands there without a value.
    """

    title: str
    about: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "timeseries", "table", "text"] = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    steps: Steps = ((None, GREEN),)
    stacked: bool = False
    most: float | None = None
    empty: str = "nothing to show"
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under a heading, side by side as their widths allow."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: the values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `slug` is its file and, with `prism-`, its uid."""

    slug: str
    title: str
    about: str
    sections: tuple[Section, ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-1h"

    def queries(self) -> Iterator[tuple[str, Query]]:
        """Yield each query with the title of its panel."""
        for section in self.sections:
            for panel in section.panels:
                for query in panel.queries:
                    yield panel.title, query


BAD_FROM_ONE: Steps = ((None, GREEN), (1, RED))
WARN_FROM_ONE: Steps = ((None, GREEN), (1, YELLOW))
RATE = "[$__rate_interval]"


def stat(title: str, expr: str, about: str, **more: object) -> Panel:
    """Return a tile with one number: what is so now; where there is no value, not what was so."""
    return last(title, expr, about, **{"instant": True, **more})


def last(title: str, expr: str, about: str, **more: object) -> Panel:
    """Return a tile with one number: the last one of the time shown."""
    settings = {"kind": "stat", "width": 4, "height": 4, **more}
    return Panel(title, about, (Query(expr),), **settings)  # type: ignore[arg-type]


def of_workers(expr: str) -> str:
    """Return a query that says 0 where there is nothing to count, and nothing where no worker is scraped."""
    return f'{expr} or 0 * count(prism_build_info{{component="model-worker"}})'


def quantiles(histogram: str, matchers: str = "", by: str = "") -> tuple[Query, ...]:
    """Return median and 95th percentile of a histogram, by a label if one is named."""
    labels = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{matchers}{RATE})))",
            f"{legend}p{share * 100:.0f}",
        )
        for share in (0.5, 0.95)
    )


def calm(expr: str, label: str) -> str:
    """Return a query that says `none: 0` where nothing has happened, instead of nothing."""
    return f'{expr} or on () label_replace(vector(0), "{label}", "none", "", "")'


def rendered(dashboard: Dashboard) -> Json:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": f"prism-{dashboard.slug}",
        "title": f"PRISM: {dashboard.title}",
        "description": dashboard.about,
        "tags": ["prism"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": dashboard.since, "to": "now"},
        "timezone": "",
        "templating": {"list": [_source_variable(), *map(_variable, dashboard.variables)]},
        "annotations": {"list": _annotations()},
        "links": [
            {
                "type": "dashboards", "title": "PRISM", "tags": ["prism"], "asDropdown": False,
                "includeVars": False, "keepTime": True, "targetBlank": False,
                "icon": "external link", "tooltip": "", "url": "",
            }
        ],
        "panels": list(_placed(dashboard.sections)),
    }  # fmt: skip


ALERTS_FIRING = 'ALERTS{alertname=~"Prism.*",alertstate="firing"}'
STARTS = 'changes(process_start_time_seconds{job=~"prism-.*"}[2m]) > 0'


def _annotations() -> list[Json]:
    def one(name: str, expr: str, title: str, colour: str) -> Json:
        return {
            "name": name, "datasource": _SOURCE, "enable": True, "hide": False, "iconColor": colour,
            "expr": expr, "titleFormat": title, "textFormat": "", "step": "60s", "useValueForTime": False,
        }  # fmt: skip

    return [
        one("Alerts", ALERTS_FIRING, "{{alertname}}", RED),
        one("Starts", STARTS, "{{job}} started", "blue"),
    ]


def _source_variable() -> Json:
    return {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "refresh": 1, "hide": 0, "current": {}, "options": [], "includeAll": False, "multi": False,
    }  # fmt: skip


def _variable(one: Variable) -> Json:
    return {
        "name": one.name, "label": one.label, "type": "query", "datasource": _SOURCE,
        "query": {"query": one.query, "refId": one.name}, "definition": one.query,
        "refresh": 2, "sort": 2, "hide": 0, "current": {}, "options": [], "includeAll": False, "multi": False,
    }  # fmt: skip


def _placed(sections: Sequence[Section]) -> Iterator[Json]:
    y, number = 0, 1
    for section in sections:
        yield {
            "id": number, "type": "row", "title": section.title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }  # fmt: skip
        y, number, x, tallest = y + 1, number + 1, 0, 0
        for panel in section.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, number, tallest = x + panel.width, number + 1, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    made: Json = {"id": number, "type": panel.kind, "title": panel.title, "gridPos": place}
    if panel.kind == "text":
        return {**made, "options": {"mode": "markdown", "content": panel.about}}
    return {
        **made,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query.expr,
                "legendFormat": query.legend or "__auto", "instant": panel.instant,
                "range": not panel.instant, "format": "table" if panel.kind == "table" else "time_series",
                "editorMode": "code",
            }
            for place, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }  # fmt: skip


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "noValue": panel.empty,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in _steps(panel)],
        },
    }
    if panel.most is not None:
        defaults |= {"min": 0, "max": panel.most}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if panel.stacked else 10,
            "showPoints": "never", "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if len(panel.steps) > 1 else "off"},
        }  # fmt: skip
    return defaults


def _steps(panel: Panel) -> Steps:
    """Return a panel's steps. A tile without a value has the colour of the first one; none is below 0."""
    if panel.kind != "stat":
        return panel.steps
    return ((None, GREY), (0, panel.steps[0][1]), *panel.steps[1:])


_OPTIONS: dict[str, Json] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
        "textMode": "auto", "wideLayout": True,
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}  # fmt: skip
