"""The ingestor's loop: who is active, and whose turn it is.

    prism.intake ─► submission ─► prism.runs (accepted) ─► pass 1 ─► prism.runs (running)
                                                                        │
    prism.progress (credit) ─────────────────────────────► feeding ─────┴─► prism.batches

What dies where. An intake offset is committed after its run is acknowledged in `prism.runs`: before that
the record is read again and makes the same run. A run between acceptance and pass 1 is checked again. What
was fed, and what comes of a run, is argued in `Feeder` and `RunStates`. A command is committed once what it
changed is acknowledged: before that the next ingestor carries it out. What a stale ingestor still sends is
a batch of the same name, or a record of a lower epoch, and changes nothing.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from confluent_kafka import Producer

from prism.kafka.admin import partition_count
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.dead_letters import DeadLetters
from prism.kafka.errors import BrokerAway
from prism.messages import Cursor, Progress, RunRecord, RunState, Topics
from prism.messages.run import CURSOR_SUFFIX
from prism.service import fault
from prism.service.lifecycle import StopSignal
from prism.service.logs import get_logger
from prism.service.readiness import Readiness
from prism_ingestor import metrics
from prism_ingestor.acceptance import Acceptance, catalogue_of
from prism_ingestor.broker_probe import BrokerProbe
from prism_ingestor.checking import Checker
from prism_ingestor.commands import ControlTopic
from prism_ingestor.feeder import Feeder
from prism_ingestor.fleet_view import FleetView
from prism_ingestor.gauges import Gauges
from prism_ingestor.intake import IntakeReader
from prism_ingestor.intake_topic import IntakeTopic, MessageFetcher
from prism_ingestor.ledger import Ledger
from prism_ingestor.model_servers import AllowedServers
from prism_ingestor.run_states import RunStates
from prism_ingestor.settings import IngestorSettings
from prism_ingestor.sources import SourceChanged, Sources
from prism_ingestor.stalls import Stall, StallCause, stall_of
from prism_ingestor.takeover import fed_batches
from prism_ingestor.workplace import Workplace

log = get_logger(__name__)

IDLE_WAIT_S, BUSY_WAIT_S = 0.05, 0.01
CURSOR_EVERY_S = 1.0
# One who was overruled waits until the group has surely noticed that it is gone.
OVERRULED_WAIT_S = 8.0


@dataclass(slots=True)
class _Timers:
    second: float = 0.0
    trim: float = 0.0
    not_before: float = 0.0


class Ingestor:
    """One ingestor, active or standing by."""

    def __init__(
        self,
        settings: IngestorSettings,
        kafka: KafkaSettings,
        readiness: Readiness,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._readiness = readiness
        self._clock = clock
        self._topics = Topics(settings.topic_prefix)
        self._owner = f"{settings.instance}:{uuid.uuid4().hex[:8]}"
        self._kafka = kafka
        self._admin = kafka.admin()
        self._producer_errors = ErrorWatch()
        self._producer: Producer = kafka.producer(self._producer_errors)
        dead_letters = DeadLetters(
            self._producer, self._topics.dead_letter, metrics.count_dead_letter, log.warning
        )
        self._ledger = Ledger(self._producer, self._topics, self._owner)
        self._view = FleetView(kafka, self._topics, clock, self._on_progress, self._on_run, self._on_stale)
        self._control = ControlTopic(kafka, settings.group, self._topics.control, clock, dead_letters)
        self._intake = IntakeTopic(kafka, settings.group, self._topics.intake)
        catalogue = partial(catalogue_of, settings.jobs_dir)
        self._reader = IntakeReader(settings.jobs_dir, catalogue, settings.chunk_timeout_s, clock)
        self._workplace = Workplace(settings.data_dir / "ingestor", self._owner.replace(":", "-"))
        fetcher = MessageFetcher(kafka, self._topics.intake)
        sources = Sources(self._workplace.spool, settings.allowed_dir, settings.max_source_bytes, fetcher)
        servers = AllowedServers(settings.model_servers, catalogue)
        self._checker = Checker(
            sources, settings.jobs_dir, self._workplace.scratch, settings.output_schemes, servers
        )
        self._probe = BrokerProbe(kafka, self._topics, settings.worker_group, clock)
        self._acceptance = Acceptance(
            self._intake,
            self._reader,
            self._ledger,
            self._checker,
            sources,
            self._view.runs.runs,
            dead_letters,
        )
        self._feeder = Feeder(
            self._producer,
            self._topics,
            self._ledger,
            self._view,
            settings.window_floor,
            clock,
            self._on_source_changed,
        )
        self._states = RunStates(
            self._ledger, self._feeder, self._checker, sources, self._view, clock, self._on_progress
        )
        self._gauges = Gauges(self._ledger, self._feeder, self._view, self._probe, clock)
        self._active = False
        self._deposed = False
        self._timers = _Timers()
        self._busy = False

    # Life

    def run(self, stop: StopSignal) -> None:
        """Work, or stand by, until asked to stop."""
        self._checker.start()
        self._probe.start()
        self._gauges.start()
        beat = self._readiness.heartbeat("loop")
        while not stop.is_set():
            self._turn()
            beat.beat()
        self._close()

    def _turn(self) -> None:
        self._control.poll()
        self._view.reader.poll(BUSY_WAIT_S if self._busy else IDLE_WAIT_S)
        self._change_role()
        if self._active:
            accepted = self._acceptance.turn()
            self._states.start_checked()
            self._obey()
            self._busy = self._feeder.turn() or accepted
            self._once_a_second()
        self._producer.poll(0)
        self._producer_errors.check()
        away = self._view.reader.away_reason
        self._readiness.set("broker", away is None, away or "")

    def _close(self) -> None:
        self._feeder.write_cursors()
        self._producer.flush(5.0)
        self._intake.commit()
        self._control.commit()
        self._control.close()
        self._intake.close()
        self._checker.close()
        self._probe.close()
        self._view.reader.close()
        self._workplace.remove()

    # Role

    def _change_role(self) -> None:
        if self._active and (self._deposed or not self._control.owned):
            self._stand_by()
        elif not self._active and self._control.owned and self._clock() >= self._timers.not_before:
            try:
                self._take_over()
            except BrokerAway as error:
                log.warning("takeover_postponed", error=error)
                self._timers.not_before = self._clock() + 1.0
        metrics.ACTIVE.set(self._active)

    def _stand_by(self) -> None:
        log.info("standing_by", overruled=self._deposed)
        if self._deposed:
            self._timers.not_before = self._clock() + OVERRULED_WAIT_S
        self._active = self._deposed = False
        self._feeder.stand_by()
        self._gauges.stand_by()
        self._checker.drop_all()
        self._intake.shut()

    def _take_over(self) -> None:
        """Become the active ingestor: claim the runs under a higher epoch, find out what is fed, go on."""
        self._view.catch_up()
        self._deposed = False
        table = self._view.runs
        unended = [one for one in table.runs.values() if not one.state.ended]
        batches = partition_count(self._admin, self._topics.batches)
        results = partition_count(self._admin, self._topics.results)
        if not batches or not results:
            raise BrokerAway(f"{self._topics.batches} or {self._topics.results} is not there")
        self._acceptance.results_partitions = results
        self._ledger.take_over(table.highest_epoch + 1, unended, table.cursors)
        for key in table.stale:
            self._rewrite(key)
        view = self._probe.look()
        self._probe.show(view)  # what it knew may be of an earlier turn of ours
        found = fed_batches(self._kafka, self._topics.batches, view)
        self._feeder.take_over(batches, found, view.results_end)
        self._checker.drop_all()  # what was begun by a takeover that had to be postponed
        for record in unended:
            self._checker.submit(record)
        self._intake.open()
        self._active = True
        metrics.TAKEOVERS.inc()
        log.info("active", epoch=self._ledger.epoch, unended_runs=len(unended))
        fault.point("ingestor.after_takeover")

    def _on_run(self, record: RunRecord | Cursor) -> None:
        """Hear of a record of runs that counts: ours, or that of one who was or has become active."""
        if record.owner == self._owner:
            self._ledger.has_come_round(record)
        elif self._active and self._ledger.is_overruled_by(record):
            self._deposed = True
        elif self._active and isinstance(record, RunRecord) and self._ledger.lacks(record):
            # Accepted by the last one while we took over: nobody else will go on with it.
            self._checker.submit(self._ledger.write(record))

    def _on_stale(self, key: str) -> None:
        if self._active and not self._deposed:
            self._rewrite(key)

    def _rewrite(self, key: str) -> None:
        table = self._view.runs
        if key.endswith(CURSOR_SUFFIX):
            self._ledger.write_again(key, table.cursors.get(key.removesuffix(CURSOR_SUFFIX)))
        else:
            self._ledger.write_again(key, table.runs.get(key))

    # Commands

    def _obey(self) -> None:
        for waiting in list(self._control.waiting):
            record = self._states.known(waiting.run_id)
            if record is None:
                if self._clock() - waiting.since > self._settings.command_wait_s:
                    log.warning("command_given_up", run_id=waiting.run_id, command=waiting.command)
                    self._control.done(waiting)
            # What is not durable yet is looked at again: it will ask for nothing new then.
            elif self._states.obey(record, waiting.command) and self._producer.flush(1.0) == 0:
                self._control.done(waiting)

    # What comes back

    def _on_progress(self, progress: Progress) -> None:
        if self._active:
            self._gauges.showcase.note(progress)
            self._states.progressed(progress)

    def _on_source_changed(self, run_id: str, error: SourceChanged) -> None:
        self._states.source_changed(run_id, error)

    # Once in a while

    def _once_a_second(self) -> None:
        now = self._clock()
        if now < self._timers.second:
            return
        self._timers.second = now + CURSOR_EVERY_S
        if self._probe.view is not None:
            self._feeder.feed_lost_again(self._probe.view)
        self._feeder.write_cursors()
        self._intake.commit()
        self._control.commit()
        self._note_stalls(now)
        self._gauges.turn(now)
        if self._feeder.feeds:
            self._probe.ask()
        if now >= self._timers.trim:
            self._timers.trim = now + self._settings.trim_every_s
            self._trim()

    def _note_stalls(self, now: float) -> None:
        workers = self._view.live_workers()
        found: dict[str, Stall | None] = {}
        for run_id, feed in self._feeder.feeds.items():
            record, found[run_id] = self._ledger.runs[run_id], None
            if record.state is RunState.RUNNING and feed.out_of_budget is not None:
                found[run_id] = Stall(StallCause.BUDGET, feed.out_of_budget)
            elif record.state in (RunState.RUNNING, RunState.MERGING):
                progress = self._view.progress.get(run_id)
                found[run_id] = stall_of(run_id, now - feed.moved_at, workers, progress)
        for run_id, why in list(self._checker.postponed.items()):
            if run_id not in found and run_id in self._ledger.runs:
                found[run_id] = Stall(StallCause.SOURCE, why)
        for run_id, stall in found.items():
            self._ledger.change(run_id, stalled=stall.reason if stall is not None else None)
        self._gauges.stalls = {run_id: one.cause for run_id, one in found.items() if one is not None}

    def _trim(self) -> None:
        """Let the broker forget what no unended run needs: of intake, and of batches what is committed."""
        needed = self._intake.committable()
        for record in self._ledger.runs.values():
            for file in record.files:
                if file.source.kind == "message":
                    lowest = min(file.source.offsets)
                    needed[file.source.partition] = min(needed.get(file.source.partition, lowest), lowest)
        for partition in list(needed):
            chunked = self._reader.needed_from(partition)
            needed[partition] = needed[partition] if chunked is None else min(needed[partition], chunked)
        self._probe.trim(self._topics.intake, {one: offset for one, offset in needed.items() if offset > 0})
        view = self._probe.view
        if view is not None:
            done = {one: offset for one, offset in view.committed.items() if offset > view.low.get(one, 0)}
            self._probe.trim(self._topics.batches, done)
