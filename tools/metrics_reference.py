"""docs/metrics.md: every metric with its labels, its help and the comment above it in the code."""

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import prism_ingestor.metrics
import prism_merger.metrics
import prism_model_worker.metrics
from prism.service import metrics as common

SERVICES: tuple[tuple[str, ModuleType], ...] = (
    ("All services", common),
    ("prism-ingestor", prism_ingestor.metrics),
    ("prism-model-worker", prism_model_worker.metrics),
    ("prism-merger", prism_merger.metrics),
)
_TYPES = {"Counter": "counter", "Gauge": "gauge", "LiveGauge": "gauge", "Histogram": "histogram"}
_UNITS = ("seconds", "bytes", "rows", "batches", "records", "tokens", "calls", "runs")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
_INTRODUCTION = """# Metrics

Made by `make schemas` from the services' `metrics.py`; do not edit. What to do with them: [rules, alerts and
dashboards](platform.md#health-readiness-metrics). Calls to models go by OpenTelemetry's semantic conventions
for generative AI, with `_` for `.`; their buckets are the conventions'. A name that comes from outside (a
model's) is one of 50 at most at once, else `_OTHER`; one that was not used for an hour makes room, and its
series end. No label is a row, a file or a request; `run_id` stands at the
runs that are worked on, at most 16 of them, and for a minute after their end.

The Models Processor's document names five. Here they are:

| in the document | here |
|---|---|
| Inference Time | `gen_ai_client_operation_duration_seconds`, `prism_worker_model_time_seconds_total` |
| Queue Depth | `prism_worker_lag_records`, `prism_ingestor_workers_lag_records` |
| Success Rate | `prism:call_success:ratio_rate5m`, `prism:row_success:ratio_rate5m`, recorded by the rules |
| Model Availability | `prism_worker_model_up`; over time `prism:model_available:ratio` |
| Memory Usage | `process_resident_memory_bytes` |
"""


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric as the code declares it; `name` is that of its series (a histogram's: without suffix)."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    comment: str

    @property
    def unit(self) -> str:
        """The unit that its name ends with; none for what is a mere number."""
        words = self.name.removesuffix("_total").split("_")
        return (
            "tokens"
            if self.name.endswith("token_usage")
            else next((one for one in _UNITS if one == words[-1]), "")
        )

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus has it."""
        ends = self.name.endswith("_total")
        return tuple(self.name + ("" if ends else suffix) for suffix in _SUFFIXES[self.type])


def declared(module: ModuleType) -> list[Declared]:
    """Return the metrics that a module declares, in its order."""
    source = inspect.getsource(module)
    tree = ast.parse(source)
    names = {
        node.targets[0].id: [one.value for one in node.value.elts if isinstance(one, ast.Constant)]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.List)
    }
    lines = source.splitlines()
    found = [
        _declared(node, node.value, lines, names)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _is_metric(node.value)
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _is_metric(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in _TYPES and bool(call.args)


def _declared(
    node: ast.Assign, call: ast.Call, lines: list[str], names: Mapping[str, Sequence[object]]
) -> tuple[int, Declared]:
    assert isinstance(call.func, ast.Name)
    kind = _TYPES[call.func.id]
    name, text = ast.literal_eval(call.args[0]), ast.literal_eval(call.args[1])
    labels = tuple(_labels(call.args[2], names)) if len(call.args) > 2 else ()
    suffix = "_total" if kind == "counter" else ""
    return node.lineno, Declared(name + suffix, kind, labels, text, _comment(lines, node.lineno - 1))


def _labels(node: ast.expr, names: Mapping[str, Sequence[object]]) -> Iterator[str]:
    assert isinstance(node, ast.List), "labels are a list"
    for one in node.elts:
        if isinstance(one, ast.Starred):
            assert isinstance(one.value, ast.Name)
            yield from map(str, names[one.value.id])
        else:
            yield str(ast.literal_eval(one))


def _comment(lines: list[str], end: int) -> str:
    start = end
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return " ".join(line.strip().lstrip("# ") for line in lines[start:end])


def metrics_page() -> str:
    """Return the page."""
    lines = [_INTRODUCTION]
    for title, module in SERVICES:
        lines += [f"## {title}\n", "| metric | type | unit | labels | what |", "|---|---|---|---|---|"]
        lines += [_row(one) for one in declared(module)]
        if module is common:
            lines.append(
                "| `process_…` | gauge | | | `resident_memory_bytes`, `cpu_seconds_total`, `open_fds`, "
                "`max_fds`, `start_time_seconds`, `virtual_memory_bytes`: of the process |"
            )
        lines.append("")
    return "\n".join(lines)


def _row(one: Declared) -> str:
    labels = ", ".join(f"`{name}`" for name in one.labels)
    what = f"{one.help} {one.comment}".strip().replace("|", "\\|")
    return f"| `{one.name}` | {one.type} | {one.unit} | {labels} | {what} |"
