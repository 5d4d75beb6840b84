"""The merger's metrics, each declared once."""

from prometheus_client import Counter, Gauge, Histogram

from prism.messages import MessageReason
from prism.service.metrics import BoundedLabel, LiveGauge, ServiceRegistry

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """One process's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = ServiceRegistry("merger")
        # A newer worker may give reasons that are not known here.
        self.reason = BoundedLabel(60)
        # Duplicates are batches that were paid twice. outcome: merged, duplicate, left_alone, dead_letter.
        self.results = Counter(
            "prism_merger_results",
            "Results read, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        # What every report adds up to. outcome: ok or failed; reason: empty for ok, else a RowReason.
        self.rows = Counter(
            "prism_merger_rows",
            "Rows merged, by outcome and reason.",
            ["outcome", "reason"],
            registry=self.registry,
        )
        # What deaths and lost partitions cost.
        self.extra_calls = Counter(
            "prism_merger_extra_calls",
            "Model calls whose answer was already there, and the bound for killed workers.",
            registry=self.registry,
        )
        # To be read in the topic of the dead letters. reason: a MessageReason.
        self.dead_letters = Counter(
            "prism_merger_dead_letters", "Records sent to the dead letters, by reason.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self._declare_files()
        self._declare_state()
        self._begin_at_zero()

    def _declare_files(self) -> None:
        # One fsync of the volume is the most of it: a slow disk shows here first.
        self.commit_seconds = Histogram(
            "prism_merger_store_commit_seconds", "Duration of one store transaction, rendering excluded.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        # Part files while a run goes on; its output at the end is made of the same rows again.
        self.checkpoint_seconds = Histogram(
            "prism_merger_checkpoint_seconds", "Duration of writing the part files that are due of a file.",
            buckets=_LONG_SECONDS, registry=self.registry,
        )  # fmt: skip
        # What a person waits for after the last row.
        self.publish_seconds = Histogram(
            "prism_merger_publish_seconds", "From a run's last merged result to its announcement.",
            buckets=_LONG_SECONDS, registry=self.registry,
        )  # fmt: skip
        # Each is announced in `prism.outputs`.
        self.files_published = Counter(
            "prism_merger_files_published", "Output files that got their final name.", registry=self.registry
        )
        # How runs end. outcome: published, withheld, or nothing (there was nothing to publish).
        self.runs_closed = Counter(
            "prism_merger_runs_closed", "Runs that are done here, by outcome.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip

    def _declare_state(self) -> None:
        # Many of them are a batch that does not come.
        self.reorder_buffer = Gauge(
            "prism_merger_reorder_buffer_batches",
            "Batches merged above a frontier: they wait for an earlier one.",
            registry=self.registry,
        )
        # Those with results in this merger's own partitions.
        self.open_runs = Gauge(
            "prism_merger_open_runs",
            "Runs that are not published, withheld or closed.",
            registry=self.registry,
        )
        # An alert compares it with those that are there: one whose pod is gone is no target of Prometheus.
        self.replicas = Gauge(
            "prism_merger_replicas", "Mergers that there should be: PRISM_MERGER_REPLICAS.",
            registry=self.registry,
        )  # fmt: skip
        # As the client knows from what it fetched last.
        self.lag = LiveGauge(
            "prism_merger_lag_records", "Results in the own partitions that are not merged yet.",
            ["partition"], registry=self.registry,
        )  # fmt: skip
        # Nothing is lost meanwhile, and nothing goes on.
        self.disk_full = Gauge(
            "prism_merger_disk_full", "1 while the volume takes no more, else 0.", registry=self.registry
        )

    def _begin_at_zero(self) -> None:
        """Make the series whose first step is to be seen: Prometheus takes the first value for none."""
        for outcome in ("merged", "duplicate", "left_alone", "dead_letter"):
            self.results.labels(outcome)
        for outcome in ("published", "withheld", "nothing"):
            self.runs_closed.labels(outcome)
        for reason in MessageReason:
            self.dead_letters.labels(reason)
        self.rows.labels("ok", "")
