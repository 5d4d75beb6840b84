"""The metrics of a process: its registry, and what every service says of itself.

Each service declares its own metrics, once, in its `metrics.py`. Names and units are Prometheus' (base units,
`_total` for what only grows). Labels come from closed lists; what comes from outside (a model's name) goes
through `BoundedLabel`. No metric has a label that Prometheus itself sets on its targets (`job`, `instance`,
`service`, `pod`, `namespace`, `container`, `endpoint`).
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from prism.service.logs import get_logger

log = get_logger(__name__)

# A second series for each one, with the time of its birth: nothing here asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]

# What stands for all that no longer fits; OpenTelemetry's word for it.
OTHER = "_OTHER"
# More values than there is room for, in turns, must not end each other's series at every scrape.
KEPT_S = 3600.0

Labels = tuple[str, ...]


class LiveGauge(Collector):
    """A gauge that is asked for at each scrape, for what can be looked up: no series outlives what it shows.

    Its reader returns values by the labels' values; it is called by the HTTP server's threads. One that fails
    is logged, and says nothing.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self._reader: Callable[[], Mapping[Labels, float]] = dict
        registry.register(self)

    def read(self, reader: Callable[[], Mapping[Labels, float]]) -> None:
        """Show what `reader` returns; it replaces the one before."""
        self._reader = reader

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Say the name without asking anybody."""
        yield GaugeMetricFamily(self.name, self.documentation, labels=self.labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        try:
            for values, value in self._reader().items():
                family.add_metric(values, value)
        except Exception as error:
            log.error("metric_not_read", metric=self.name, error=error)
            family.samples.clear()
        yield family


class BoundedLabel:
    """At most `most` values at once of a label that comes from outside; all others are `_OTHER`. Thread-safe.

    forget: ends the series of a value. Where it is given, the value that was unused longest makes room for a
    new one, once that is KEPT_S ago: Prometheus sees series end and, if it comes back, a counter that starts.
    Ask for the value when it is written, not before: what was forgotten meanwhile would come back unseen.
    """

    def __init__(
        self,
        most: int,
        forget: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._forget = forget
        self._clock = clock
        # When each was used last, the oldest first.
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """Return the value to write."""
        with self._lock:
            if value not in self._used and not self._has_room():
                return OTHER
            self._used.pop(value, None)
            self._used[value] = self._clock()
            return value

    def _has_room(self) -> bool:
        if len(self._used) < self._most:
            return True
        oldest = next(iter(self._used))
        if self._forget is None or self._clock() - self._used[oldest] < KEPT_S:
            return False
        del self._used[oldest]
        self._forget(oldest)
        return True


class ServiceRegistry(CollectorRegistry):
    """`process_…` (memory in bytes, CPU in seconds, open files) and what every service has.

    Not prometheus_client's global one: a test can build a service twice in one process.
    """

    def __init__(self, component: str) -> None:
        """`component`: ingestor, model-worker or merger."""
        super().__init__(auto_describe=True)
        self._component = component
        ProcessCollector(registry=self)
        # To see which versions run side by side during a roll.
        build = Gauge("prism_build_info", "1, with the version.", ["component", "version"], registry=self)
        build.labels(component, _version(component)).set(1)
        # The same board as `/ready`: an alert sees what a probe sees.
        self.ready = LiveGauge(
            "prism_service_ready", "1 while `/ready` answers 200, else 0.", ["component"], registry=self
        )
        # Of the file system that PRISM_DATA_DIR lies in. A worker keeps nothing, and has none.
        self.disk_free = LiveGauge(
            "prism_service_disk_free_bytes", "Bytes free for this service's data.", ["component"],
            registry=self,
        )  # fmt: skip
        # The whole, to see a share.
        self.disk_size = LiveGauge(
            "prism_service_disk_size_bytes", "Bytes of the disk with this service's data.", ["component"],
            registry=self,
        )  # fmt: skip

    def show_ready(self, is_ready: Callable[[], bool]) -> None:
        """Let `prism_service_ready` say what `is_ready` says."""
        self.ready.read(lambda: {(self._component,): float(is_ready())})

    def show_disk(self, folder: Path) -> None:
        """Let the disk's metrics be those of the disk that a folder lies in, once it is there."""
        self.disk_free.read(lambda: self._disk(folder, 2))
        self.disk_size.read(lambda: self._disk(folder, 0))

    def _disk(self, folder: Path, place: int) -> Mapping[Labels, float]:
        try:
            return {(self._component,): float(shutil.disk_usage(folder)[place])}
        except FileNotFoundError:
            return {}


def _version(component: str) -> str:
    try:
        return metadata.version(f"prism-{component}")
    except metadata.PackageNotFoundError:
        return "unknown"
