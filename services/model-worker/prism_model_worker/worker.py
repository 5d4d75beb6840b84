"""The owner thread: batches in, results out, commits after acknowledgement.

    prism.batches ─► holdings ─► task queue ─► callers ─► results ─► acknowledged ─► frontier ─► commit

What dies where. Before the acknowledgement of a result nothing of its batch is recorded: the next owner
asks the model again (a call is paid twice, and counted). After it and before the commit the next owner
asks again too, and the merger drops the second result. After the commit nobody asks again: finished
offsets above the frontier are in the commit's metadata.

One thread owns consumer, producer, holdings, quarantine and tasks outside the queue; callers share only that.
"""

import contextlib
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from prism.annotation import PromptRefused
from prism.kafka.admin import patiently, topic_id
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.dead_letters import DeadLetters
from prism.kafka.errors import BrokerAway, BrokerFatal, BrokerRefused
from prism.kafka.records import Record, event_headers
from prism.kafka.table import TableReader
from prism.messages import BadMessage, Batch, MessageReason, RunRecord, RunState, Topics, WorkerState
from prism.messages.fleet import HEARTBEAT_SECONDS
from prism.messages.topics import MIB
from prism.runs.catalogue import CatalogueRefused
from prism.runs.job import JobRefused
from prism.runs.table import RunsTable
from prism.service import fault, tracing
from prism.service.lifecycle import StopSignal
from prism.service.logs import get_logger
from prism.service.readiness import Readiness
from prism_model_worker import call_spans, metrics
from prism_model_worker.contexts import RunContext, is_published
from prism_model_worker.endpoints import Connect
from prism_model_worker.membership import Hooks, Membership
from prism_model_worker.model_calls import ModelCalls
from prism_model_worker.patience import Patience
from prism_model_worker.quarantine import Quarantine
from prism_model_worker.requests.lane import RequestLane
from prism_model_worker.results import encode, measure
from prism_model_worker.settings import WorkerSettings, lane_settings
from prism_model_worker.sharing import SharedAnswers
from prism_model_worker.status import Status, waiting_runs
from prism_model_worker.tasks import BatchTask, Lane

log = get_logger(__name__)

# Batches beside those that are being called: enough to refill a slot, few enough to leave to others.
SPARE = 4
# Batches in hand altogether, waiting ones included, as a multiple of those that could be worked on.
MOST_IN_HAND = 4
# And so many besides while all in hand have fewer bytes: the windows of runs whose servers are away.
MOST_STUCK, MOST_STUCK_BYTES = 512, 16 * MIB
# A worker whose model server is gone keeps its partitions this long, then leaves them to others.
LEAVE_AFTER_S = 15.0
STOP_DRAIN_S = 22.0
# For results that are on their way, before a batch is worked on alone.
SETTLE_S = 1.0
# Results of a few ms travel together: a third less work for the broker, and a bulk run has the time.
RESULT_LINGER_MS = 10
BUSY_WAIT_S, IDLE_WAIT_S = 0.005, 0.1


class Worker:
    """One model worker."""

    def __init__(
        self,
        settings: WorkerSettings,
        kafka: KafkaSettings,
        connect: Connect,
        readiness: Readiness,
        details: dict[str, str],
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`details`: what `/ready` says beside; the lane of requests says there why it is off."""
        self._details = details
        self._patience = patience
        # Results that the broker refused, to be sent once it allows them again.
        self._unsent: list[Callable[[], None]] = []
        self._settings = settings
        self._topics = Topics(settings.topic_prefix)
        self._readiness = readiness
        self._clock = clock
        self._source = f"/prism/model-worker/{settings.worker_id}"
        self._runs = RunsTable()
        self._table = TableReader(kafka, {self._topics.runs: self._on_run}, patience.bear)
        self._producer_errors = ErrorWatch()
        self._producer: Producer = kafka.producer(self._producer_errors, **{"linger.ms": RESULT_LINGER_MS})
        self._dead_letters = DeadLetters(
            self._producer, self._topics.dead_letter, metrics.count_dead_letter, log.warning, patience.bear
        )
        self._calls = ModelCalls(settings, connect, clock)
        self._tasks, self._contexts = self._calls.tasks, self._calls.contexts
        self._requests = self._lane(kafka) if settings.request_topic else None
        self._sharing = SharedAnswers(settings.shared_rows)
        self._backlog: deque[BatchTask] = deque()
        self._open: dict[tuple[int, int, int], BatchTask] = {}
        self._stopping = False
        # Results that were produced and are not acknowledged.
        self._on_their_way = 0
        self._away_since: float | None = None
        self._heartbeat_due = 0.0
        session = uuid.uuid4().hex[:12]
        self._membership = self._member(kafka, session)
        self._quarantine = Quarantine(self._membership, self._tasks, self._recalled, self._produce, clock)
        self.status = Status(settings.worker_id, session, settings.ollama_model, settings.ollama_host, clock)

    def _member(self, kafka: KafkaSettings, session: str) -> Membership:
        admin, batches = kafka.admin(), self._topics.batches
        return Membership(
            kafka,
            self._settings.consumer_group,
            batches,
            session,
            span=self._span,
            hooks=Hooks(self._drain, self._lost, lambda: topic_id(admin, batches)),
            clock=self._clock,
            on_error=self._patience.bear,
        )

    def _lane(self, kafka: KafkaSettings) -> RequestLane:
        calls = self._calls
        settings = lane_settings(self._settings, self._topics.dead_letter, self._source)
        return RequestLane(
            settings, kafka, calls.album, calls.tasks, calls.default, calls.request_context, self._clock,
            self._requests_off, self._patience,
        )  # fmt: skip

    def _requests_off(self, why: str | None) -> None:
        if why is None:
            self._details.pop("requests", None)
        else:
            self._details["requests"] = why

    def _lag(self) -> dict[tuple[str, ...], float]:
        lags = {self._topics.batches: self._membership.lag}
        if self._requests is not None:
            lags[self._settings.request_topic] = self._requests.lag
        return {(topic, str(one)): float(n) for topic, lag in lags.items() for one, n in lag.items()}

    def run(self, stop: StopSignal) -> None:
        """Work until asked to stop, then drain. Raises BrokerFatal when only a new process can go on."""
        self._start()
        beat = self._readiness.heartbeat("loop")
        try:
            while not stop.is_set():
                self._turn()
                beat.beat()
        except BrokerRefused:
            self._membership.absolve()
            if self._requests is not None:
                self._requests.close()
            raise
        log.info("draining", in_flight=len(self._open))
        self._stop()

    def _start(self) -> None:
        metrics.LAG.read(self._lag)
        self._calls.start()
        self._read_runs()
        for run in self._runs.runs.values():
            self._contexts.watch_models(run)
        self._membership.join()
        if self._requests is not None:
            self._requests.start()

    def _read_runs(self) -> None:
        while not self._table.caught_up:
            self._table.poll(1.0)
            self._patience.check()

    def _turn(self) -> None:
        wanted = self._wanted()
        wait_s = BUSY_WAIT_S if self._open or self._backlog else IDLE_WAIT_S
        for record in self._membership.fetch(wanted, wait_s):
            self._take(record)
        if wanted <= 0:
            self._collect(wait_s * 4)
        self._collect(0.0)
        self._share()
        self._dispatch()
        self._table.poll(0.0)
        self._producer.poll(0)
        self._send_again()
        self._membership.commit_if_due()
        self._mind_the_servers()
        self._heartbeat_if_due()
        self._tasks.owner_turned()
        self._check()

    def _check(self) -> None:
        self._producer_errors.check()
        self._patience.check()
        broken = self._calls.broken or (self._requests.broken if self._requests is not None else None)
        if broken is not None:
            raise broken
        away = self._table.away_reason or self._patience.reason
        self._readiness.set("broker", away is None, away or "")

    # Batches in

    def _wanted(self) -> int:
        """Return how many more batches are wanted in hand."""
        if self._quarantine.busy or any(map(self._quarantine.is_suspect, self._backlog)):
            return 0
        if not self._membership.subscribed:
            return 0
        if self._calls.endpoints.closed_reason() is not None or self._dead_letters.crowded:
            return 0
        if self._patience.reason is not None:
            return 0  # more would be asked than could be told
        backlog = sum(not self._quarantine.is_careful(task) for task in self._backlog)
        active = len(self._tasks.working()) + self._tasks.ready() + backlog
        most = self._calls.limit + SPARE
        return min(most - active, self._room(most))

    def _room(self, most: int) -> int:
        """Return how many more may be in hand, those that wait for their time or their server included.

        In a partition the batches of runs whose servers are away lie before those of others: who is to reach
        these has to take those. How many there can be is bounded by the runs' windows alone.
        """
        room = MOST_IN_HAND * most - len(self._open)
        if room <= 0 and sum(task.size for task in self._open.values()) < MOST_STUCK_BYTES:
            room += MOST_STUCK
        return room

    def _take(self, record: Record) -> None:
        held = self._membership.holdings.get(record.partition)
        if held is None or record.offset < held.frontier.position:
            return  # of a partition that has just been given back
        fault.point("worker.after_poll")
        if not held.frontier.take(record.offset):
            return  # a former owner finished it
        try:
            batch = Batch.parse(record.value)
            context = self._context(batch)
        except (BadMessage, CatalogueRefused, JobRefused, PromptRefused) as error:
            self._bury(record, held.epoch, MessageReason.NOT_PARSED, str(error))
            return
        if context is None:
            detail = f"no run {batch.run_id} with a file {batch.label} and its model"
            self._bury(record, held.epoch, MessageReason.UNKNOWN_RUN, detail)
        elif is_published(context.record):
            self._membership.holdings.finish(record.partition, held.epoch, record.offset)
        else:
            task = BatchTask.of(batch, context, record.partition, record.offset, held.epoch)
            task.size = len(record.value or b"")
            task.span = call_spans.begun(record, batch, self._settings.consumer_group)
            self._open[task.place] = task
            self._backlog.append(task)

    def _bury(self, record: Record, epoch: int, reason: MessageReason, detail: str) -> None:
        call_spans.buried(record, self._settings.consumer_group, reason)
        done = partial(self._membership.holdings.finish, record.partition, epoch, record.offset)
        self._dead_letters.send(record, reason, detail, done)

    def _context(self, batch: Batch) -> RunContext | None:
        """Return what is known of a batch's run, reading `prism.runs` to its end once if it is new.

        Its record was acknowledged before its first batch was fed, so it is there, or was deleted.
        """
        run_id = batch.run_id
        known = self._runs.runs.get(run_id)
        if known is None or known.state is RunState.ACCEPTED:
            patiently(self._table.expect_end)
            self._read_runs()
        record = self._runs.runs.get(run_id)
        if record is None:
            return None
        is_new = run_id not in self._contexts
        context = self._contexts.of(record, batch)
        if is_new and run_id in self._contexts:
            self.status.begin(run_id)
        return context

    def _on_run(self, record: Record) -> None:
        try:
            run = self._runs.apply(record.key, record.value)
        except BadMessage as error:
            log.warning("run_not_read", key=record.key, error=error)
            return
        if isinstance(run, RunRecord) and self._table.caught_up:
            self._contexts.watch_models(run)
        if isinstance(run, RunRecord) and run.run_id in self._contexts:
            self._contexts.take_in(run)
            if run.state.ended:
                self._tasks.wake()

    # Calls

    def _dispatch(self) -> None:
        self._quarantine.mind()
        if self._quarantine.busy:
            return
        if not any(map(self._quarantine.is_suspect, self._backlog)):
            self._tasks.free(Lane.BATCHES)
            for _ in range(len(self._backlog)):
                task = self._backlog.popleft()
                if self._quarantine.is_careful(task):
                    self._backlog.append(task)  # its server is away: that holds up its own partition alone
                else:
                    self._route(task)
            return
        self._recalled()
        if self._tasks.reserve(Lane.BATCHES):
            # By offset: the one that is named is then the first that the next owner meets.
            suspects = filter(self._quarantine.is_suspect, self._backlog)
            self._ask_alone(min(suspects, key=lambda task: (task.partition, task.offset)))

    def _recalled(self) -> list[BatchTask]:
        """Take every waiting batch back into the backlog, and return them."""
        waiting = self._tasks.recall()
        self._backlog.extend(waiting)
        return waiting

    def _route(self, task: BatchTask) -> None:
        """Put a task where its rows are answered: before a caller, beside another that asks the same."""
        self._sharing.admit(task)
        if task.pending:
            self._tasks.put(task)
        elif task.waiting:
            self._sharing.park(task)
        else:
            self._produce(task)

    def _share(self) -> None:
        """Wake what waits for rows that were answered of tasks that go on."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._backlog.extend(self._sharing.settle_rows(self._calls.callers.settled.get_nowait()))

    def _finished(self, task: BatchTask) -> None:
        """Take a task back from the callers."""
        self._backlog.extend(self._sharing.settle(task))
        if self._quarantine.holds(task):
            self._quarantine.go_on()
        elif task.waiting:
            self._backlog.append(task)
        else:
            self._produce(task)

    def _ask_alone(self, task: BatchTask) -> None:
        """Begin once everything before is acknowledged: the next owner must not find it undone again."""
        if self._producer.flush(SETTLE_S) or self._unsent or self._dead_letters.waiting:
            return
        self._backlog.remove(task)
        held = self._membership.holdings.get(task.partition, task.epoch)
        if held is None or self._quarantine.resume(task, held):
            return
        self._backlog.extend(self._sharing.abandon(task))
        self._quarantine.begin(task, held)

    # Results out

    def _collect(self, wait_s: float) -> None:
        """Produce what the callers have finished, waiting at most `wait_s` for the first."""
        try:
            finished = self._calls.callers.finished
            task = finished.get(timeout=wait_s) if wait_s else finished.get_nowait()
            while True:
                self._finished(task)
                task = finished.get_nowait()
        except queue.Empty:
            return

    def _produce(self, task: BatchTask) -> None:
        if task.open_rows():
            # Asked row by row when its partition was taken away: the next owner asks the others.
            self._open.pop(task.place, None)
            call_spans.given_back([task])
            return
        result, value = encode(task, self._settings.worker_id)
        sent = self._sent_span(task)

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                not_written(error)
                return
            fault.point("worker.after_result_acked")
            sent.delivered(message)
            call_spans.ended(task)
            self._on_their_way -= 1
            self._open.pop(task.place, None)
            self._membership.holdings.finish(task.partition, task.epoch, task.offset)
            self.status.count(result)
            measure(result)

        def not_written(error: KafkaError) -> None:
            if not self._patience.bear(error, f"write the result of {task.batch.id}"):
                # Delivery is tried without end: what fails all the same fails for good.
                raise BrokerFatal(f"the result of {task.batch.id} cannot be written: {error.str()}") from None
            self._unsent.append(send)

        def send() -> None:
            try:
                self._send_result(task, value, sent, acknowledged)
            except KafkaException as error:
                not_written(error.args[0])

        self._on_their_way += 1
        send()
        fault.point("worker.after_result_produced")
        log.debug("batch_answered", run_id=task.batch.run_id, batch_id=task.batch.id, calls=task.calls)

    def _send_result(
        self,
        task: BatchTask,
        value: bytes,
        sent: tracing.Span,
        acknowledged: Callable[[KafkaError | None, Message], None],
    ) -> None:
        record, ce_id = task.context.record, f"{task.batch.id}/result"
        trace = sent.context or record.trace
        while True:
            try:
                self._producer.produce(
                    self._topics.results,
                    key=record.run_id,
                    value=value,
                    partition=record.results_partition,
                    headers=event_headers("result", ce_id, self._source, record.run_id, trace),
                    on_delivery=acknowledged,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _send_again(self) -> None:
        """Send what was refused, once it is allowed again; its calls are paid for."""
        if self._patience.reason is None:
            self._dead_letters.send_again()
            unsent, self._unsent = self._unsent, []
            for send in unsent:
                send()

    def _sent_span(self, task: BatchTask) -> tracing.Span:
        if not tracing.is_on():
            return tracing.OFF
        about = {"messaging.kafka.message.key": task.batch.run_id, "prism.run.id": task.batch.run_id}
        return tracing.send(self._topics.results, task.span, about)

    # Changes of the share

    def _drain(self, partitions: list[int]) -> None:
        """Give running calls of these partitions a bounded time, and their results an acknowledgement."""
        self._drain_for(partitions, 0.0 if self._stopping else self._settings.revoke_drain_s)

    def _drain_for(self, partitions: list[int], seconds: float) -> None:
        self._lost(partitions)
        deadline = self._clock() + seconds
        while self._clock() < deadline and any(
            task.partition in partitions for task in self._tasks.working()
        ):
            self._collect(0.02)
            self._producer.poll(0)
            self._send_again()
            self._tasks.owner_turned()
        self._collect(0.0)
        # Not a flush: heartbeats may wait for a broker that is away.
        deadline = max(deadline, self._clock() + 0.5)
        while (self._on_their_way or self._dead_letters.waiting) and self._clock() < deadline:
            self._producer.poll(0.05)
            self._send_again()

    def _lost(self, partitions: list[int]) -> None:
        """Forget what nobody has begun of these partitions."""
        for partition in partitions:
            self._tasks.discard(partition)
        self._backlog = deque(task for task in self._backlog if task.partition not in partitions)
        self._quarantine.lose(partitions)
        begun = {id(task) for task in self._tasks.working()}
        gone = [
            task for task in self._open.values() if task.partition in partitions and id(task) not in begun
        ]
        for task in gone:
            del self._open[task.place]
        call_spans.given_back(gone)
        woken = [one for task in gone for one in self._sharing.abandon(task)]
        self._backlog.extend(one for one in woken if one.place in self._open)

    def _mind_the_servers(self) -> None:
        self._calls.grow()
        reason = self._calls.away_reason()
        self._readiness.set("model server", reason is None, reason or "")
        now = self._clock()
        if reason is None:
            self._away_since = None
            if not self._membership.subscribed:
                log.info("rejoining")
                self._membership.join()
        elif self._away_since is None:
            self._away_since = now
        elif self._membership.subscribed and now - self._away_since > LEAVE_AFTER_S:
            log.warning("leaving_until_model_server_is_back", reason=reason)
            self._membership.leave()

    def _span(self) -> int:
        """Return the offsets of one partition that may be in hand, rounded up: it is told with commits."""
        return 1 << (2 * (self._calls.endpoints.limit + SPARE) - 1).bit_length()

    # What others see

    def _heartbeat_if_due(self) -> None:
        if self._clock() >= self._heartbeat_due:
            self._heartbeat_due = self._clock() + HEARTBEAT_SECONDS
            away = self._calls.away_reason()
            self._heartbeat(WorkerState.WAITING if away else WorkerState.RUNNING, away)

    def _heartbeat(self, state: WorkerState, reason: str | None) -> None:
        in_flight = [task.batch.id for task in self._open.values()]
        waiting = waiting_runs(self._open.values())
        metrics.IN_FLIGHT.set(len(in_flight))
        metrics.WAITING_RUNS.set(len(waiting))
        partitions = self._membership.holdings.partitions()
        spent = self._contexts.out_of_quota()
        beat = self.status.heartbeat(state, reason, self._calls.limit, in_flight, waiting, partitions, spent)
        try:
            self._producer.produce(self._topics.workers, key=self.status.worker_id, value=beat.to_bytes())
        except BufferError:
            pass  # after hours without a broker; the next one is newer
        except KafkaException as error:
            if not self._patience.bear(error.args[0], "write a heartbeat"):
                raise

    def _stop(self) -> None:
        self._stopping = True
        if self._requests is not None:
            self._requests.stop()
        self._heartbeat(WorkerState.DRAINING, "asked to stop")
        self._drain_for(self._membership.holdings.partitions(), STOP_DRAIN_S)
        try:
            self._membership.close()
        except BrokerAway as error:
            log.warning("not_given_back", error=error)
        call_spans.given_back(self._open.values())
        self._open.clear()
        if self._requests is not None:
            self._requests.close()
        self._heartbeat(WorkerState.STOPPED, None)
        self._producer.flush(3.0)
        self._calls.close()
        self._table.close()
