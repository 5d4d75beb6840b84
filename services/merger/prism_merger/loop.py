"""The merging loop: read, commit, tell; then whatever publishing has become due.

Argument. One thread owns the store's writer, the accounts, the consumer and the producer. An error that
waiting can cure (a full disk, a broker that is away) may come at any point of a turn: then every task is
forgotten, the accounts are loaded from the store again and the partitions are read from its offsets again,
so that the next turn begins from what is durable. What is done twice by that is deduplicated or repeats
itself byte for byte.
"""

import sqlite3
from dataclasses import dataclass

from prism.kafka.errors import BrokerAway, BrokerFatal, BrokerRefused
from prism.service import fault
from prism.service.errors import FatalError
from prism.service.lifecycle import StopSignal
from prism.service.logs import get_logger
from prism.service.readiness import Readiness
from prism_merger.desk import Desk
from prism_merger.finishing import Finisher
from prism_merger.ledger import Ledger
from prism_merger.merging import Merger
from prism_merger.metrics import Metrics
from prism_merger.outlet import KafkaOutlet
from prism_merger.reading import ResultsReader, own_partitions, start_offsets
from prism_merger.reporting import Reporter
from prism_merger.settings import MergerSettings
from prism_merger.store import Store, TopicIdentity
from prism_merger.tables import Tables
from prism_merger.teller import Teller
from prism_merger.upkeep import Upkeep
from prism_merger.volume import no_space
from prism_merger.watch import TopicWatch

log = get_logger(__name__)

_HOLD_S = 1.0
_IDLE_S = 0.1
# While something is being published the loop looks often whether its next step can be taken.
_BUSY_S = 0.005


@dataclass(slots=True)
class Parts:
    """What the loop is made of."""

    settings: MergerSettings
    store: Store
    ledger: Ledger
    tables: Tables
    watch: TopicWatch
    reader: ResultsReader
    outlet: KafkaOutlet
    merger: Merger
    desk: Desk
    finisher: Finisher
    reporter: Reporter
    upkeep: Upkeep
    teller: Teller
    metrics: Metrics
    readiness: Readiness


class MergingLoop:
    """Turns until it is asked to stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._teller = parts.teller
        self._beat = parts.readiness.heartbeat("merging")

    def run(self, stop: StopSignal) -> None:
        """Merge until the stop; then tell the last and leave. Raise FatalError."""
        while not stop.is_set():
            self._beat.beat()
            try:
                self._turn()
            except BrokerRefused as error:
                raise FatalError(str(error)) from None
            except BrokerFatal as error:
                raise FatalError(str(error), next="the process must be started anew") from None
            except BrokerAway as error:
                self._hold("broker", f"no answer: {error}", stop)
            except (sqlite3.Error, OSError) as error:
                reason = no_space(error, self._parts.settings.data_dir)
                if reason is None:
                    raise
                self._hold("disk", reason, stop)

    def finish(self) -> None:
        """Send the last progress, if the broker still answers."""
        self._parts.reporter.close()
        try:
            self._parts.upkeep.finish()
            self._parts.outlet.settle()
        except (BrokerAway, BrokerFatal) as error:
            log.warning("last_progress_not_sent", error=error)

    def _turn(self) -> None:
        parts = self._parts
        parts.tables.poll()
        parts.outlet.poll()
        self._follow_topic()
        idle = _BUSY_S if parts.desk.busy or parts.finisher.eager else _IDLE_S
        polled = parts.reader.poll(idle, parts.settings.commit_ms / 1000, parts.settings.commit_results)
        if polled.suspicious:
            parts.watch.look_soon()
        if polled.records:
            fault.point("merger.after_poll")
        changed = parts.merger.merge(polled.records, polled.offsets)
        self._teller.offsets.update(polled.offsets)
        self._committed(bool(polled.offsets))
        for run in changed:
            self._teller.tell(run)
        parts.finisher.turn(changed)
        parts.reporter.turn()
        parts.upkeep.turn()

    def _committed(self, something: bool) -> None:
        """Take back that nothing can be committed: because something was, or because a probe was."""
        if self._teller.blocked is None:
            return
        if not something:
            self._parts.store.probe()
        self._teller.blocked = None
        self._parts.metrics.disk_full.set(0)
        self._parts.readiness.set("disk", True)
        log.info("commits_resumed")

    def _follow_topic(self) -> None:
        """Read the topic that is there now, from where the store is with it."""
        sight, teller = self._parts.watch.sight, self._teller
        away = sight.away
        self._parts.readiness.set("broker", away is None, f"no answer: {away}")
        if away is not None:
            return
        self._parts.readiness.set(
            "topic", sight.identity is not None, "the results topic is gone; make it again (`prism doctor`)"
        )
        if sight.identity is None:
            teller.identity = None
        elif teller.identity != sight.identity or (teller.offsets.keys() != set(self._own(sight.partitions))):
            self._assign(sight.identity, self._own(sight.partitions))

    def _own(self, count: int) -> list[int]:
        return own_partitions(count, self._parts.settings.ordinal, self._parts.settings.replicas)

    def _assign(self, identity: TopicIdentity, partitions: list[int]) -> None:
        parts, before = self._parts, self._parts.store.identity()
        if self._teller.identity is not None and identity.cluster_id != self._teller.identity.cluster_id:
            raise FatalError(
                "another Kafka cluster answers now", parts.settings.bootstrap_server,
                "the process must be started anew",
            )  # fmt: skip
        ends = parts.watch.ends(partitions)
        offsets, again = start_offsets(parts.store.offsets(), before == identity, ends)
        if again:
            log.warning("restarted_from_beginning", partitions=again, topic_id=identity.topic_id)
        with parts.store.transaction():
            parts.store.set_identity(identity)
            parts.store.set_offsets(offsets)
            if again:
                self._need_all_again()
        parts.reader.assign(offsets)
        self._teller.identity, self._teller.offsets = identity, offsets
        parts.upkeep.broadcast()

    def _need_all_again(self) -> None:
        """Offsets of the old topic say nothing about the new one: nothing in it may be deleted yet."""
        for run in self._parts.ledger.runs.values():
            if run.first_offset is not None:
                run.first_offset = 0
                self._parts.store.save_run(run, [])

    def _hold(self, condition: str, reason: str, stop: StopSignal) -> None:
        """Go back to what is durable, say why, and wait a second."""
        parts = self._parts
        if self._teller.blocked != reason:
            log.error("commits_held", condition=condition, reason=reason)
        parts.readiness.set(condition, False, reason)
        if condition == "disk":
            self._teller.blocked = reason
            parts.metrics.disk_full.set(1)
        parts.desk.reset()
        parts.ledger.reload()
        self._teller.offsets = parts.store.offsets()
        if self._teller.offsets:
            parts.reader.assign(self._teller.offsets)
        parts.upkeep.broadcast()
        self._beat.beat()
        stop.wait(_HOLD_S)
