"""Feeding: the rows of all runs as batches in `prism.batches`, under credit."""

from collections.abc import Callable, Mapping
from itertools import takewhile

from confluent_kafka import KafkaError, Message, Producer

from prism.kafka.errors import BrokerFatal, raise_if_fatal
from prism.kafka.records import event_headers
from prism.messages import Batch, Progress, RunRecord, RunState, Topics, TraceContext
from prism.runs import credit
from prism.runs.job import parse_job
from prism.runs.models import entries, share_a_server
from prism.runs.tracker import BrokerView
from prism.service import fault, tracing
from prism.service.logs import get_logger
from prism_ingestor import metrics
from prism_ingestor.budget import Meter
from prism_ingestor.checking import Checked, table_format
from prism_ingestor.feeding import FileFeed, RunFeed
from prism_ingestor.fleet_view import FleetView
from prism_ingestor.ledger import Ledger
from prism_ingestor.load import PartitionLoad
from prism_ingestor.sources import SourceChanged
from prism_ingestor.takeover import Found

log = get_logger(__name__)

# Batches of one run in a row before the next run has its turn.
TURN = 8


class Feeder:
    """Feeds every run that is `running`, in turns.

    Argument. In come the files that pass 1 has checked, what the merger says is merged of them (the
    credit), what the workers can have in hand, and what the broker says of the batches. Out go batches,
    each to the partition with the fewest unmerged ones; and cursors, which show only what the broker has
    acknowledged. Kept, in memory alone, is what was fed of each run and is not merged. When the process
    dies, the next one makes that again from the cursor (a second old at worst), from what still lies in
    `prism.batches`, and from what is merged; it feeds on once the merger has read the results to where
    they ended at the takeover. A batch that was fed and forgotten is fed again under its name with the
    same rows, and the merger drops its second result; a batch that was never fed is behind all these.
    """

    def __init__(
        self,
        producer: Producer,
        topics: Topics,
        ledger: Ledger,
        view: FleetView,
        window_floor: int,
        clock: Callable[[], float],
        on_changed: Callable[[str, SourceChanged], None],
    ) -> None:
        """`on_changed` hears of a run whose source is not what was accepted, and ends it."""
        # What is fed, by run id; others only look.
        self.feeds: dict[str, RunFeed] = {}
        self._producer = producer
        self._topics = topics
        self._ledger = ledger
        self._view = view
        self._window_floor = window_floor
        self._clock = clock
        self._on_changed = on_changed
        self._turns: list[str] = []
        self._load = PartitionLoad(1)
        self._merge_rate = credit.MergeRate(clock)
        self._found: Found = {}
        self._results_end: Mapping[int, int] = {}

    # Which runs

    def take_over(self, partitions: int, found: Found, results_end: Mapping[int, int]) -> None:
        """Begin without a run. `found` and `results_end`: what the broker has of an earlier ingestor."""
        self.stand_by()
        self._load = PartitionLoad(partitions)
        self._found, self._results_end = found, results_end

    def stand_by(self) -> None:
        """Feed nothing more; another one does."""
        self.feeds, self._turns = {}, []

    def feed_of(self, record: RunRecord, checked: Checked) -> RunFeed:
        """Return the feed of a checked run; of one that was fed before it first finds out how far."""
        job = parse_job(record.job, record.job_name)
        files = [
            FileFeed(record.run_id, file, plain, job, table_format(job, checked.prompt, file))
            for file, plain in zip(checked.files, checked.plains, strict=True)
        ]
        feed = RunFeed(
            record.run_id,
            record.priority,
            record.results_partition,
            files,
            abreast=job.model.fans_out and not share_a_server(entries(record, job)),
            meter=Meter.of(record),
            moved_at=self._clock(),
            stops_at_failure=job.error_handling.strategy == "stop",
        )
        if record.state is not RunState.ACCEPTED:
            feed.recover_at = self._results_end.get(record.results_partition, 0)
            feed.found = self._found.get(record.run_id, {})
            cursor = self._view.runs.cursors.get(record.run_id)
            feed.cursors = dict(cursor.files) if cursor is not None else {}
        return feed

    def begin(self, feed: RunFeed) -> None:
        """Feed a run from now on."""
        if feed.run_id not in self.feeds:
            self.feeds[feed.run_id] = feed
            self._turns.append(feed.run_id)

    def remove(self, run_id: str) -> None:
        """Feed nothing more of a run. Its last cursor says how many batches there are to wait for."""
        feed = self.feeds.pop(run_id, None)
        if feed is None:
            return
        self._turns.remove(run_id)
        if not feed.recovering:
            self._ledger.write_cursor(run_id, feed.last_cursor())
        for file in feed.files:
            for outstanding in file.tracker.outstanding.values():
                self._load.freed(outstanding.partition)

    # Batches

    def turn(self) -> bool:
        """Feed in turns while anybody has credit; return whether anything was fed."""
        feeding = [
            self.feeds[run_id]
            for run_id in self._turns
            if self._ledger.runs[run_id].state is RunState.RUNNING and self.feeds[run_id].has_more
        ]
        if not feeding:
            return False
        window = self._window()
        highest = max(one.priority for one in feeding)
        fed = 0
        for feed in feeding:
            own = credit.share(window, feed.priority, highest)
            room = feed.room(own)
            for _ in range(min(room, max(TURN, room // len(feeding)))):
                if not self._feed_one(feed, own):
                    break
                fed += 1
        self._turns = self._turns[1:] + self._turns[:1]
        return fed > 0

    def _window(self) -> int:
        limits = sum(one.limit for one in self._view.live_workers())
        # What was merged in a rush says nothing of a fleet without workers.
        rate = self._merge_rate.per_second() if limits else 0.0
        window = credit.window(limits, self._window_floor, rate)
        metrics.WINDOW.set(window)
        return window

    def _feed_one(self, feed: RunFeed, window: int) -> bool:
        file = feed.current(window, self._clock())
        if file is None:
            return False
        try:
            batch, cut = file.next_batch()
        except SourceChanged as error:
            self._on_changed(feed.run_id, error)
            return False
        partition = self._load.lightest()
        file.tracker.fed(cut.start, cut.end, partition)
        self._put(file, batch, partition)
        metrics.BATCHES_FED.inc()
        metrics.ROWS_FED.inc(len(batch.rows))
        return True

    def _put(self, file: FileFeed, batch: Batch, partition: int) -> None:
        self._load.put(partition)
        run = self._ledger.runs.get(batch.run_id)
        trace = run.trace if run is not None else None
        span = span_of_batch(self._topics.batches, batch, run, trace)

        def delivered(error: KafkaError | None, message: Message) -> None:
            raise_if_fatal(error)
            if error is not None:
                # Delivery is tried without end: what fails all the same fails for good.
                raise BrokerFatal(f"the batch {batch.id} cannot be written: {error.str()}")
            fault.point("ingestor.after_batch_fed")
            span.delivered(message)
            file.tracker.acknowledged(batch.sequence, (partition, message.offset() or 0), self._clock())

        source = f"/prism/ingestor/{self._ledger.owner}"
        while True:
            try:
                self._producer.produce(
                    self._topics.batches,
                    key=batch.id,
                    value=batch.to_bytes(),
                    partition=partition,
                    headers=event_headers("batch", batch.id, source, batch.run_id, span.context or trace),
                    on_delivery=delivered,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def feed_lost_again(self, view: BrokerView) -> None:
        """Feed again what the broker's answer shows to be lost."""
        for feed in list(self.feeds.values()):
            if feed.recover_at is not None:
                # A topic that was made again ends lower than it did.
                feed.recover_at = min(feed.recover_at, view.results_end.get(feed.results_partition, 0))
            for file, sequence in feed.lost(view):
                if feed.run_id in self.feeds:
                    self._feed_again(feed, file, sequence)

    def _feed_again(self, feed: RunFeed, file: FileFeed, sequence: int) -> None:
        try:
            batch, _ = file.batch_again(sequence)
        except SourceChanged as error:
            self._on_changed(feed.run_id, error)
            return
        log.warning("batch_lost", run_id=feed.run_id, batch_id=batch.id, feeding=batch.fed)
        self._load.freed(file.tracker.outstanding[sequence].partition)
        partition = self._load.lightest()
        file.tracker.fed_again(sequence, partition)
        self._put(file, batch, partition)
        metrics.BATCHES_FED_AGAIN.inc()

    # What comes back

    def take_credit(self, feed: RunFeed, progress: Progress) -> bool:
        """Apply what is merged; return False if that showed a changed source, and so ended the run."""
        recovering = feed.recovering
        try:
            freed = feed.apply(progress, self._clock())
        except SourceChanged as error:
            self._on_changed(feed.run_id, error)
            return False
        if recovering and not feed.recovering:
            for file in feed.files:
                for found in file.tracker.outstanding.values():
                    if found.partition >= 0:
                        self._load.put(found.partition)
        now = self._clock()
        for one in freed:
            self._load.freed(one.partition)
            if one.fed_at is not None:
                metrics.BATCH_SECONDS.observe(now - one.fed_at)
        self._merge_rate.count(len(freed))
        return True

    def write_cursors(self) -> None:
        """Write how far each run is fed."""
        for run_id, feed in self.feeds.items():
            if not feed.recovering:
                self._ledger.write_cursor(
                    run_id, feed.cursor(), lambda: fault.point("ingestor.after_cursor_written")
                )


def span_of_batch(
    topic: str, batch: Batch, run: RunRecord | None, trace: TraceContext | None
) -> tracing.Span:
    """Return the span of a batch that is sent: in its run's trace, or in one of its own beside that."""
    if run is None or not tracing.is_on():
        return tracing.OFF
    about: dict[str, str | int] = {
        "messaging.kafka.message.key": batch.id,
        "prism.run.id": batch.run_id,
        "prism.batch.sequence": batch.sequence,
        "prism.batch.first_row": batch.first_row,
        "prism.batch.rows": len(batch.rows),
        "prism.batch.fed": batch.fed,
    }
    if trace is None or not trace.sampled or tracing.in_run(_number(batch, run), _batches(run)):
        return tracing.send(topic, trace, about)
    return tracing.send(topic, None, about, [trace])


def _batches(run: RunRecord) -> int:
    return sum(one.batches for one in run.files)


def _number(batch: Batch, run: RunRecord) -> int:
    """Return a batch's place among all of its run."""
    before = takewhile(lambda one: one.label != batch.label, run.files)
    return sum(one.batches for one in before) + batch.sequence
