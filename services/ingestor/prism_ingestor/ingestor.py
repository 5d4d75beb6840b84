"""The ingestor's loop: who is active, what is accepted, what is fed.

    prism.intake ─► submission ─► prism.runs (accepted) ─► pass 1 ─► prism.runs (running)
                                                                        │
    prism.progress (credit) ─────────────────────────────► feeding ─────┴─► prism.batches

What dies where. An intake offset is committed after its run is acknowledged in `prism.runs`: before that
the record is read again and makes the same run. A run between acceptance and pass 1 is checked again. A
batch is fed before the cursor shows it: the next ingestor finds it in `prism.batches`, or merged, and
feeds on behind it. What a stale ingestor still sends is a batch of the same name, or a record of a lower
epoch, and changes nothing.
"""

import queue
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

from prism.kafka.admin import partition_count
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.dead_letters import send_dead_letter
from prism.kafka.errors import BrokerAway, BrokerFatal, raise_if_fatal
from prism.kafka.records import Record, event_headers
from prism.messages import (
    Batch,
    CommandName,
    Cursor,
    MergeState,
    MessageReason,
    Progress,
    RunRecord,
    RunState,
    Topics,
)
from prism.messages.run import CURSOR_SUFFIX
from prism.runs import credit
from prism.runs.job import parse_job
from prism.service import fault
from prism.service.lifecycle import StopSignal
from prism.service.logs import get_logger
from prism.service.readiness import Readiness
from prism_ingestor import metrics
from prism_ingestor.acceptance import Acceptance, model_ids
from prism_ingestor.broker_probe import BrokerProbe
from prism_ingestor.checking import Checked, Checker, table_format
from prism_ingestor.commands import ControlTopic, Waiting
from prism_ingestor.feeding import FileFeed, RunFeed
from prism_ingestor.fleet_view import FleetView
from prism_ingestor.intake import IntakeReader
from prism_ingestor.intake_topic import IntakeTopic, MessageFetcher
from prism_ingestor.ledger import Ledger
from prism_ingestor.load import PartitionLoad
from prism_ingestor.settings import IngestorSettings
from prism_ingestor.sources import SourceChanged, Sources
from prism_ingestor.stalls import stall_reason
from prism_ingestor.takeover import fed_batches
from prism_ingestor.workplace import Workplace

log = get_logger(__name__)

IDLE_WAIT_S, BUSY_WAIT_S = 0.05, 0.01
CURSOR_EVERY_S = 1.0
# Batches of one run in a row before the next run has its turn.
TURN = 8
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
        self._ledger = Ledger(self._producer, self._topics, self._owner)
        self._view = FleetView(kafka, self._topics, clock, self._on_progress, self._on_run, self._on_stale)
        self._control = ControlTopic(kafka, settings.group, self._topics.control, clock, self._bury_command)
        self._intake = IntakeTopic(kafka, settings.group, self._topics.intake)
        self._reader = IntakeReader(
            settings.jobs_dir, lambda: model_ids(settings.jobs_dir), settings.chunk_timeout_s, clock
        )
        self._workplace = Workplace(settings.data_dir / "ingestor", self._owner.replace(":", "-"))
        self._sources = Sources(
            self._workplace.spool,
            settings.allowed_dir,
            settings.max_source_bytes,
            MessageFetcher(kafka, self._topics.intake),
        )
        self._checker = Checker(self._sources, settings.jobs_dir, self._workplace.scratch)
        self._probe = BrokerProbe(kafka, self._topics, settings.worker_group, clock)
        self._load = PartitionLoad(1)
        self._acceptance = Acceptance(
            self._intake,
            self._reader,
            self._ledger,
            self._checker,
            self._sources,
            self._view.runs.runs,
            self._bury,
        )
        self._feeds: dict[str, RunFeed] = {}
        self._turns: list[str] = []
        self._active = False
        self._deposed = False
        self._recover: dict[str, dict[str, dict[int, tuple[int, int]]]] = {}
        self._recover_ends: dict[int, int] = {}
        self._timers = _Timers()
        self._merge_rate = credit.MergeRate(clock)
        self._busy = False

    # Life

    def run(self, stop: StopSignal) -> None:
        """Work, or stand by, until asked to stop."""
        self._checker.start()
        self._probe.start()
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
            self._start_checked()
            self._obey()
            self._busy = self._feed() or accepted
            self._once_a_second()
        self._producer.poll(0)
        self._producer_errors.check()
        self._readiness.set("broker", not self._view.reader.broker_away, "no Kafka broker answers")

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
        self._feeds, self._turns = {}, []
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
        self._load = PartitionLoad(batches)
        view = self._probe.look()
        self._probe.show(view)  # what it knew may be of an earlier turn of ours
        self._recover = fed_batches(self._kafka, self._topics.batches, view)
        self._recover_ends = dict(view.results_end)
        self._feeds, self._turns = {}, []
        while True:  # what an earlier turn of ours had checked
            try:
                self._checker.done.get_nowait()
            except queue.Empty:
                break
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

    def _close(self) -> None:
        self._write_cursors()
        self._producer.flush(5.0)
        self._intake.commit()
        self._control.commit()
        self._control.close()
        self._intake.close()
        self._checker.close()
        self._probe.close()
        self._view.reader.close()
        self._workplace.remove()

    # From acceptance to feeding

    def _start_checked(self) -> None:
        while True:
            try:
                checked = self._checker.done.get_nowait()
            except queue.Empty:
                return
            record = self._ledger.runs.get(checked.run_id)
            if record is None:
                self._sources.forget(checked.run_id)
            elif checked.run_id not in self._feeds:
                self._start(record, checked)

    def _start(self, record: RunRecord, checked: Checked) -> None:
        first = record.state is RunState.ACCEPTED
        if checked.plain is None:
            self._ledger.write(
                record,
                state=RunState.REFUSED if first else RunState.FAILED,
                reason=checked.reason,
                detail=checked.detail,
                line=checked.line,
                column=checked.column,
            )
            self._sources.forget(record.run_id)
            return
        feed = self._feed_of(record, checked, recovering=not first)

        def begin() -> None:
            # Only now: a worker that meets a batch finds the run by reading `prism.runs` to its end.
            if record.run_id in self._ledger.runs and record.run_id not in self._feeds:
                self._feeds[record.run_id] = feed
                self._turns.append(record.run_id)
            # It may have come before the feed was here to hear of it.
            progress = self._view.progress.get(record.run_id)
            if progress is not None:
                self._on_progress(progress)

        if first:
            changes = {
                "state": RunState.RUNNING,
                "stalled": None,
                "prompt": checked.prompt,
                "files": [checked.file],
            }
            self._ledger.write(record, begin, **changes)
        else:
            begin()

    def _feed_of(self, record: RunRecord, checked: Checked, recovering: bool) -> RunFeed:
        assert checked.plain is not None
        job = parse_job(record.job, record.job_name)
        files = [FileFeed(record.run_id, checked.file, checked.plain, job, table_format(job))]
        feed = RunFeed(
            record.run_id, record.priority, record.results_partition, files, moved_at=self._clock()
        )
        if recovering:
            feed.recover_at = self._recover_ends.get(record.results_partition, 0)
            feed.found = self._recover.get(record.run_id, {})
            cursor = self._view.runs.cursors.get(record.run_id)
            feed.cursors = dict(cursor.files) if cursor is not None else {}
        return feed

    # Commands

    def _obey(self) -> None:
        for waiting in list(self._control.waiting):
            record = self._ledger.runs.get(waiting.run_id) or self._view.runs.runs.get(waiting.run_id)
            late = self._clock() - waiting.since > self._settings.command_wait_s
            if record is not None and record.state is not RunState.ACCEPTED:
                self._carry_out(waiting, record)
            elif late:
                log.warning("command_given_up", run_id=waiting.run_id, command=waiting.command)
                self._control.done(waiting)

    def _carry_out(self, waiting: Waiting, record: RunRecord) -> None:
        log.info("command", run_id=waiting.run_id, command=waiting.command, state=record.state)
        if waiting.command is CommandName.PAUSE and record.state is RunState.RUNNING:
            self._ledger.write(record, state=RunState.PAUSED)
        elif waiting.command is CommandName.RESUME and record.state is RunState.PAUSED:
            self._ledger.write(record, state=RunState.RUNNING)
            if waiting.run_id in self._feeds:
                self._feeds[waiting.run_id].moved_at = self._clock()
        elif waiting.command is CommandName.CANCEL and not record.state.ended:
            self._end(record, RunState.CANCELLED, "cancelled", "cancelled by command")
        # What is not durable yet is looked at again: it will ask for nothing new then.
        if self._producer.flush(1.0) == 0:
            self._control.done(waiting)

    def _end(self, record: RunRecord, state: RunState, reason: str | None, detail: str | None) -> None:
        """End a run. Its cursor goes first: it says how many batches there are to wait for."""
        feed = self._feeds.pop(record.run_id, None)
        if feed is not None:
            self._turns.remove(record.run_id)
            if not feed.recovering:
                self._ledger.write_cursor(record.run_id, feed.last_cursor())
            for one in feed.files:
                for outstanding in one.tracker.outstanding.values():
                    self._load.freed(outstanding.partition)
        self._ledger.write(record, state=state, reason=reason, detail=detail, stalled=None)
        self._sources.forget(record.run_id)

    # Feeding

    def _window(self) -> int:
        limits = sum(one.limit for one in self._view.live_workers())
        window = credit.window(limits, self._settings.window_floor, self._merge_rate.per_second())
        metrics.WINDOW.set(window)
        return window

    def _feed(self) -> bool:
        """Feed in turns while anybody has credit; return whether anything was fed."""
        feeding = [
            self._feeds[run_id]
            for run_id in self._turns
            if self._ledger.runs[run_id].state is RunState.RUNNING
            and self._feeds[run_id].current() is not None
        ]
        if not feeding:
            return False
        window = self._window()
        highest = max(one.priority for one in feeding)
        fed = 0
        for feed in feeding:
            room = credit.share(window, feed.priority, highest) - feed.unmerged
            for _ in range(min(room, max(TURN, room // len(feeding)))):
                if not self._feed_one(feed):
                    break
                fed += 1
        self._turns = self._turns[1:] + self._turns[:1]
        return fed > 0

    def _feed_one(self, feed: RunFeed) -> bool:
        file = feed.current()
        if file is None:
            return False
        try:
            batch, cut = file.next_batch()
        except SourceChanged as error:
            self._end(self._ledger.runs[feed.run_id], RunState.FAILED, error.reason, error.detail)
            return False
        partition = self._load.lightest()
        file.tracker.fed(cut.start, cut.end, partition)
        self._put(file, batch, partition)
        metrics.BATCHES_FED.inc()
        return True

    def _put(self, file: FileFeed, batch: Batch, partition: int) -> None:
        self._load.put(partition)

        def delivered(error: KafkaError | None, message: Message) -> None:
            raise_if_fatal(error)
            if error is not None:
                # Delivery is tried without end: what fails all the same fails for good.
                raise BrokerFatal(f"the batch {batch.id} cannot be written: {error.str()}")
            fault.point("ingestor.after_batch_fed")
            file.tracker.acknowledged(batch.sequence, (partition, message.offset() or 0), self._clock())

        while True:
            try:
                self._producer.produce(
                    self._topics.batches,
                    key=batch.id,
                    value=batch.to_bytes(),
                    partition=partition,
                    headers=event_headers("batch", batch.id, f"/prism/ingestor/{self._owner}", batch.run_id),
                    on_delivery=delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _feed_lost_again(self) -> None:
        view = self._probe.view
        if view is None:
            return
        for feed in list(self._feeds.values()):
            if feed.recover_at is not None:
                # A topic that was made again ends lower than it did.
                feed.recover_at = min(feed.recover_at, view.results_end.get(feed.results_partition, 0))
            for file, sequence in feed.lost(view):
                if feed.run_id in self._feeds:
                    self._feed_again(feed, file, sequence)

    def _feed_again(self, feed: RunFeed, file: FileFeed, sequence: int) -> None:
        try:
            batch, _ = file.batch_again(sequence)
        except SourceChanged as error:
            self._end(self._ledger.runs[feed.run_id], RunState.FAILED, error.reason, error.detail)
            return
        log.warning("batch_lost", run_id=feed.run_id, batch_id=batch.id, feeding=batch.fed)
        self._load.freed(file.tracker.outstanding[sequence].partition)
        partition = self._load.lightest()
        file.tracker.fed_again(sequence, partition)
        self._put(file, batch, partition)
        metrics.BATCHES_FED_AGAIN.inc()

    # What comes back

    def _on_progress(self, progress: Progress) -> None:
        if not self._active:
            return
        feed = self._feeds.get(progress.run_id)
        record = self._ledger.runs.get(progress.run_id)
        if feed is None or record is None:
            return
        if not self._take_credit(feed, record, progress):
            return
        if progress.state is MergeState.PUBLISHED:
            failed = progress.rows_failed > 0
            state = RunState.COMPLETED_WITH_FAILURES if failed else RunState.COMPLETED
            self._end(record, state, None, progress.detail)
        elif progress.state is MergeState.WITHHELD:
            self._end(record, RunState.COMPLETED_WITH_FAILURES, "withheld", progress.detail)
        elif record.state is RunState.RUNNING and feed.all_fed and feed.unmerged == 0:
            self._ledger.change(record.run_id, state=RunState.MERGING, stalled=None)

    def _take_credit(self, feed: RunFeed, record: RunRecord, progress: Progress) -> bool:
        """Apply what is merged; return False if that ended the run."""
        recovering = feed.recovering
        try:
            freed = feed.apply(progress, self._clock())
        except SourceChanged as error:
            self._end(record, RunState.FAILED, error.reason, error.detail)
            return False
        if recovering and not feed.recovering:
            for file in feed.files:
                for found in file.tracker.outstanding.values():
                    if found.partition >= 0:
                        self._load.put(found.partition)
        for one in freed:
            self._load.freed(one.partition)
        return True

    # Once in a while

    def _once_a_second(self) -> None:
        now = self._clock()
        if now < self._timers.second:
            return
        self._timers.second = now + CURSOR_EVERY_S
        self._feed_lost_again()
        self._write_cursors()
        self._intake.commit()
        self._control.commit()
        self._note_stalls(now)
        metrics.UNMERGED.set(sum(feed.unmerged for feed in self._feeds.values()))
        if self._feeds:
            self._probe.ask()
        if now >= self._timers.trim:
            self._timers.trim = now + self._settings.trim_every_s
            self._trim()

    def _write_cursors(self) -> None:
        for run_id, feed in self._feeds.items():
            if not feed.recovering:
                self._ledger.write_cursor(
                    run_id, feed.cursor(), lambda: fault.point("ingestor.after_cursor_written")
                )

    def _note_stalls(self, now: float) -> None:
        workers = self._view.live_workers()
        for run_id, feed in self._feeds.items():
            record = self._ledger.runs[run_id]
            reason = None
            if record.state in (RunState.RUNNING, RunState.MERGING):
                reason = stall_reason(run_id, now - feed.moved_at, workers, self._view.progress.get(run_id))
            self._ledger.change(run_id, stalled=reason)
        for run_id, why in list(self._checker.postponed.items()):
            if run_id not in self._feeds:
                self._ledger.change(run_id, stalled=why)

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

    # Dead letters

    def _bury_command(self, record: Record, detail: str) -> None:
        self._bury(record, MessageReason.UNKNOWN_COMMAND, detail)

    def _bury(self, record: Record, reason: MessageReason, detail: str) -> None:
        metrics.DEAD_LETTERS.inc()
        log.warning("dead_letter", topic=record.topic, offset=record.offset, reason=reason, detail=detail)
        send_dead_letter(self._producer, self._topics.dead_letter, record, reason, detail)
        self._producer.flush(5.0)
