"""`prism-merger`: one merger, from its settings to its exit code."""

import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from prism.kafka.admin import assert_allowed, ensure_topics
from prism.kafka.clients import KafkaSettings, first_contact
from prism.kafka.errors import BrokerAway, BrokerFatal, BrokerRefused
from prism.messages import Topics
from prism.messages.access import Names, Role, grants
from prism.service import logs, tracing
from prism.service.errors import FatalError
from prism.service.http import HealthServer
from prism.service.lifecycle import StopSignal, run_service
from prism.service.readiness import Readiness
from prism.service.settings import load
from prism_merger.desk import Desk
from prism_merger.downloads import pages
from prism_merger.finishing import Finisher
from prism_merger.known_runs import KnownRuns
from prism_merger.ledger import Ledger
from prism_merger.loop import MergingLoop, Parts
from prism_merger.merging import Merger
from prism_merger.metrics import Metrics
from prism_merger.outlet import KafkaOutlet
from prism_merger.places import Places
from prism_merger.progress import ProgressMaker
from prism_merger.publication import Publisher
from prism_merger.reading import ResultsReader
from prism_merger.reporting import Reporter
from prism_merger.run_log import RunLogs
from prism_merger.scribe import Scribe
from prism_merger.settings import MergerSettings
from prism_merger.status_files import StatusFiles
from prism_merger.store import FILE_NAME, RowReader, Store
from prism_merger.tables import Tables
from prism_merger.teller import Teller
from prism_merger.upkeep import Upkeep
from prism_merger.volume import VolumeLock, no_space
from prism_merger.watch import TopicWatch

log = logs.get_logger(__name__)

T = TypeVar("T")
_AGAIN_S = 0.25
_CONTACT_S = 5.0


class Stopped(Exception):
    """The stop came while the service was still waiting for something."""


class Startup:
    """Waits for what a merger needs; what it opens is closed by `stack`."""

    def __init__(
        self, settings: MergerSettings, readiness: Readiness, stop: StopSignal, stack: ExitStack
    ) -> None:
        self._settings = settings
        self._readiness = readiness
        self._stop = stop
        self._stack = stack
        self._topics = Topics(settings.topic_prefix)
        self._kafka = KafkaSettings(
            settings.bootstrap_server, settings.client_id, settings.kafka_properties()
        )

    def lock(self) -> None:
        """Wait until no other merger holds the volume."""
        lock = VolumeLock(self._settings.store_dir)
        reason = f"another merger holds {self._settings.store_dir}; waiting for its end"
        self._wait("lock", lambda: lock.take() or None, reason)
        # Never released but by the end of the process: until then a thread of it may still write.
        self._lock = lock

    def watch(self) -> TopicWatch:
        """Wait until the broker answers and the results topic is there."""
        refused = partial(self._readiness.set, "broker", False)
        self._wait("broker", lambda: first_contact(self._kafka, _CONTACT_S, refused), "no answer")
        if self._settings.create_topics:
            self._wait("broker", self._ensure_topics, "no answer")
        self._wait("topic", self._assert_allowed, "not asked yet")
        watch = TopicWatch(self._kafka, self._topics.results, self._settings.watch_s)
        self._wait("topic", watch.look_for_identity, f"no topic {self._topics.results} yet")
        watch.start()
        self._stack.callback(watch.close)
        return watch

    def store(self) -> Store:
        """Wait until the volume takes a store."""
        store = self._wait("disk", lambda: Store(self._settings.store_dir), "not opened yet")
        self._stack.callback(store.close)
        return store

    def tables(self) -> Tables:
        """Read the compacted topics to their ends."""
        tables = self._wait(
            "tables", partial(Tables, self._kafka, self._topics, time.time), "topics are missing"
        )
        self._stack.callback(tables.close)
        self._wait("tables", lambda: tables.catch_up(0.1) or None, "catching up", 0.0)
        return tables

    def parts(self, metrics: Metrics) -> Parts:
        """Make everything else."""
        settings, readiness = self._settings, self._readiness
        places = Places(settings.root, settings.ordinal)
        watch, store, tables = self.watch(), self.store(), self.tables()
        cluster_id = watch.sight.identity.cluster_id if watch.sight.identity else ""
        ledger = Ledger(store, tables.runs, settings.ordinal, settings.replicas, cluster_id)
        outlet = KafkaOutlet(self._kafka, self._topics, f"/{settings.client_id}")
        progress = ProgressMaker(settings.client_id, places, time.monotonic, time.time)
        scribe = Scribe()
        self._stack.callback(scribe.close)
        run_logs = RunLogs(places, scribe, ledger.record, time.monotonic, time.time)
        status_files = StatusFiles(
            ledger, tables.workers, places, scribe, time.monotonic, time.time, run_logs.worker
        )
        teller = Teller(ledger, progress, outlet, [run_logs.note, status_files.note])
        publisher = Publisher(
            store, ledger, places, outlet, metrics, time.time, teller.tell, settings.output_schemes
        )
        merger = Merger(store, ledger, outlet, metrics, time.time, tables.refresh, run_logs.failed)
        reader = ResultsReader(self._kafka, self._topics.results)
        self._stack.callback(reader.close)
        desk = Desk(partial(RowReader, store.path))
        self._stack.callback(desk.close)
        finisher = Finisher(
            store,
            ledger,
            tables.runs,
            desk,
            publisher,
            readiness,
            time.monotonic,
            settings.quiet_s,
            places.root,
        )
        upkeep = Upkeep(
            settings, store, ledger, tables, merger, publisher, teller, reader, watch, metrics,
            status_files, time.monotonic, time.time,
        )  # fmt: skip
        reporter = Reporter(
            store, ledger, places, publisher, teller.tell, time.monotonic, enabled=settings.reports
        )
        self._stack.callback(reporter.close)
        self._wait("disk", lambda: upkeep.start(places), "not written yet")
        return Parts(
            settings, store, ledger, tables, watch, reader, outlet, merger, desk, finisher, reporter, upkeep,
            teller, metrics, readiness,
        )  # fmt: skip

    def _assert_allowed(self) -> bool:
        assert_allowed(self._kafka.admin(), grants(Role.MERGER, Names(self._topics)))
        return True

    def _ensure_topics(self) -> bool:
        admin = self._kafka.admin()
        made = ensure_topics(admin, self._topics.specs(), self._settings.topic_partitions)
        if made:
            log.info("topics_made", topics=made)
        return True

    def _wait(
        self, condition: str, attempt: Callable[[], T | None], reason: str, pause_s: float = _AGAIN_S
    ) -> T:
        """Attempt until it succeeds. Raise Stopped when the stop comes first."""
        self._readiness.set(condition, False, reason)
        while not self._stop.is_set():
            try:
                found = attempt()
                if found is not None:
                    self._readiness.set(condition, True)
                    return found
            except BrokerAway as error:
                self._readiness.set(condition, False, str(error))
            except BrokerRefused as error:
                raise FatalError(str(error)) from None
            except BrokerFatal as error:
                raise FatalError(str(error), next="the process must be started anew") from None
            except (sqlite3.Error, OSError) as error:
                full = no_space(error, self._settings.data_dir)
                if full is None:
                    raise FatalError(
                        f"cannot use the volume: {error}", str(self._settings.store_dir)
                    ) from error
                self._readiness.set(condition, False, full)
            self._stop.wait(pause_s)
        raise Stopped


def serve(stop: StopSignal) -> None:
    """Run one merger until the stop. Raise FatalError."""
    settings = load(MergerSettings)
    logs.configure(settings.log_level, settings.log_format, service="merger", instance=str(settings.ordinal))
    tracing.configure("prism-merger", settings.client_id)
    metrics = Metrics()
    metrics.registry.show_disk(settings.data_dir)
    metrics.replicas.set(settings.replicas)
    readiness = Readiness("lock", "broker", "topic", "disk", "tables")
    with ExitStack() as stack:
        known = KnownRuns(settings.root, settings.store_dir / FILE_NAME, settings.ordinal, settings.replicas)
        token = settings.files_token.get_secret_value() if settings.files_token else None
        details = {"service": "merger", "ordinal": settings.ordinal, "replicas": settings.replicas}
        server = HealthServer(
            settings.http_host,
            settings.port,
            status=lambda: details,
            readiness=readiness,
            registry=metrics.registry,
            pages=pages(known, token),
        )
        stack.callback(server.close)
        log.info("started", port=server.port, ordinal=settings.ordinal, replicas=settings.replicas)
        startup = Startup(settings, readiness, stop, stack)
        try:
            startup.lock()
            parts = startup.parts(metrics)
            known.table = parts.tables.runs
            loop = MergingLoop(parts)
        except Stopped:
            return
        loop.run(stop)
        loop.finish()
        log.info("stopped")


def main() -> None:
    """Run `prism-merger` and exit."""
    sys.exit(run_service("merger", serve))


if __name__ == "__main__":
    main()
