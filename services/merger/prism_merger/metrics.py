"""The merger's metrics, each declared once."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from prism.service.metrics import new_registry

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """One process's metrics in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = new_registry() if registry is None else registry
        # Its outcomes: merged, duplicate, left_alone, dead_letter.
        self.results = Counter(
            "prism_merger_results",
            "Results read, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        # `reason` is empty for outcome `ok`, else a RowReason.
        self.rows = Counter(
            "prism_merger_rows",
            "Rows merged, by outcome and reason.",
            ["outcome", "reason"],
            registry=self.registry,
        )
        self.extra_calls = Counter(
            "prism_merger_extra_calls",
            "Model calls whose answer was already there, and the bound for killed workers.",
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "prism_merger_dead_letters", "Records sent to the dead letters, by reason.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.commit_seconds = Histogram(
            "prism_merger_store_commit_seconds", "Duration of one store transaction, rendering excluded.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.publish_seconds = Histogram(
            "prism_merger_publish_seconds", "From a run's last merged result to its announcement.",
            buckets=_LONG_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.files_published = Counter(
            "prism_merger_files_published", "Output files that got their final name.", registry=self.registry
        )
        self.reorder_buffer = Gauge(
            "prism_merger_reorder_buffer_batches",
            "Batches merged above a frontier: they wait for an earlier one.",
            registry=self.registry,
        )
        self.open_runs = Gauge(
            "prism_merger_open_runs",
            "Runs that are not published, withheld or closed.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "prism_merger_lag_records", "Results in the own partitions that are not merged yet.",
            registry=self.registry,
        )  # fmt: skip
        self.disk_full = Gauge(
            "prism_merger_disk_full", "1 while the volume takes no more, else 0.", registry=self.registry
        )
