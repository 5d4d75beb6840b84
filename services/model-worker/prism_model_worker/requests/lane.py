"""The request lane: photos and texts in, one reply each out, commits after acknowledgement.

    request topic ─► parse ─┬─ skipped ──► dead letter ───────────────────┐
                            ├─ refused ──► error reply, dead letter ──────┼─► acknowledged ─► commit
                            └─ photo made safe ─► queue, before the bulk ─► caller ─► reply ─┘

What dies where. Until a reply is acknowledged nothing of its request is recorded: whoever takes the
partition next reads it again, asks again, and replies under the same `ce_id`. After the acknowledgement
and before the commit a reply is repeated, again under that id. No request is lost, none is committed
without its reply or its dead letter. A request that kills its process is found as a row is (`careful`):
named in the commit's metadata, asked alone, and given up after three deaths.

One thread owns the consumer and the books. Callers hand replies to the producer themselves, which may be
done from any thread, so a reply does not wait for the owner; acknowledgements come back to the owner.
"""

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from prism.kafka.admin import assert_allowed, topic_id
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.commit_note import Suspect
from prism.kafka.dead_letters import DeadLetters
from prism.kafka.errors import BrokerAway, BrokerFatal, BrokerRefused
from prism.kafka.records import Record, in_trace
from prism.messages import MessageReason
from prism.messages.access import Grant
from prism.service import tracing
from prism.service.errors import RetryLater
from prism.service.logs import get_logger
from prism_model_worker import call_spans, metrics
from prism_model_worker.careful import DEATHS_OF_A_ROW
from prism_model_worker.endpoints import ServerGroup
from prism_model_worker.membership import Hooks, Membership
from prism_model_worker.patience import Patience
from prism_model_worker.photos.album import PHOTO_AGAIN_S, Album
from prism_model_worker.photos.photo import PhotoRefused
from prism_model_worker.requests import audit
from prism_model_worker.requests.answer import TOO_LONG
from prism_model_worker.requests.parsing import parse
from prism_model_worker.requests.rate import RateLimit
from prism_model_worker.requests.reply import Reply, ReplyDesk, ReplyTopics
from prism_model_worker.requests.request import Refusal, RefusalCode, Request, RequestKind, Skip
from prism_model_worker.requests.schema import Schema
from prism_model_worker.requests.task import RequestTask
from prism_model_worker.requests.topics import await_topics
from prism_model_worker.tasks import Lane, TaskQueue

log = get_logger(__name__)

# Requests in hand: more would wait here instead of with another worker.
MOST_IN_HAND = 32
MOST_BYTES = 64 * 1024 * 1024
BUSY_WAIT_S, IDLE_WAIT_S = 0.005, 0.1
LATE_EVERY_S = 0.25
DRAIN_S = 5.0
_SPAN = 2 * MOST_IN_HAND
POISON = "poison"
# A request with a time of long ago must not drown all others in a sum.
LONGEST_WAIT_S = 3600.0
# Why a request fails though nothing is wrong with it; all other codes are its sender's to mend.
_OUR_FAULTS = frozenset({"model_error", "bad_answer", "deadline_exceeded", POISON})


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """What the lane has to know.

    schema: of photo answers, where the request brings none. per_minute: requests of one user; 0: no limit.
    grants: of its topics.
    """

    topic: str
    group: str
    replies: ReplyTopics
    dead_letter: str
    source: str
    model: str
    expected_email: str = ""
    schema: Schema | None = None
    per_minute: int = 0
    grants: Sequence[Grant] = ()


class RequestLane:
    """One worker's share of the request topic; a thread of its own.

    num_ctx: returns the context length that calls to the model should have now. tell: hears why no request is
    answered where topics are missing, and None once they are there.
    """

    def __init__(
        self,
        settings: LaneSettings,
        kafka: KafkaSettings,
        album: Album,
        tasks: TaskQueue,
        servers: ServerGroup,
        num_ctx: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str | None], None] = lambda _: None,
        patience: Patience | None = None,
    ) -> None:
        self.broken: BaseException | None = None
        self._tell = tell
        self._patience = patience or Patience(lambda: None, clock)
        # Replies that the broker refused, to be sent once it allows them again.
        self._unsent: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._settings = settings
        self._tasks = tasks
        self._servers = servers
        self._num_ctx = num_ctx
        self._clock = clock
        self._desk = ReplyDesk(settings.source, settings.replies)
        self._rate = RateLimit(settings.per_minute / 60, settings.per_minute) if settings.per_minute else None
        self._errors = ErrorWatch()
        self._producer: Producer = kafka.producer(self._errors)
        self._dead_letters = DeadLetters(
            self._producer,
            settings.dead_letter,
            metrics.count_dead_letter,
            log.warning,
            self._patience.bear,
        )
        self._album = album
        # One photo is decoded while the next one's text is; more would only queue for the decoder.
        self._darkroom = ThreadPoolExecutor(2, thread_name_prefix="darkroom")
        self._open: dict[tuple[int, int, int], int] = {}
        self._settled: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
        self._failed: queue.SimpleQueue[tuple[RequestTask, Callable[[], None]]] = queue.SimpleQueue()
        self._suspects: list[tuple[Record, int]] = []
        self._alone: tuple[int, int, int] | None = None
        # The one that must be alone, while its model has no server.
        self._withdrawn: RequestTask | None = None
        self._late_at = 0.0
        self._stop = threading.Event()
        admin = self._admin = kafka.admin()
        self._membership = Membership(
            kafka,
            settings.group,
            settings.topic,
            uuid.uuid4().hex[:12],
            span=lambda: _SPAN,
            hooks=Hooks(self._drain, self._lost, lambda: topic_id(admin, settings.topic)),
            clock=clock,
            # What comes is answered at once; a lane that mostly waits need not ask the broker often.
            fetch_wait_ms=500,
            on_error=self._patience.bear,
        )
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)

    @property
    def lag(self) -> dict[int, int]:
        """Requests of each partition held that are not committed. Any thread may ask."""
        return self._membership.lag

    def start(self) -> None:
        """Begin to answer."""
        metrics.REQUESTS_IN_FLIGHT.read(lambda: {(): float(len(self._open))})
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more, and begin to give the partitions back; see `close`."""
        self._stop.set()

    def close(self) -> None:
        """Stop; wait, a bounded time, until what was being asked is replied to."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(DRAIN_S + 10.0)
        self._darkroom.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            if await_topics(
                partial(assert_allowed, self._admin, self._settings.grants), self._stop, self._tell
            ):
                self._membership.join()
            while not self._stop.is_set():
                self._turn()
            self._give_back()
        except BaseException as error:
            if isinstance(error, BrokerRefused):
                self._membership.absolve()
            self.broken = error
            log.error("request_lane_broken", error=error)

    def _turn(self) -> None:
        wait_s = BUSY_WAIT_S if self._open else IDLE_WAIT_S
        for record in self._membership.fetch(self._wanted(), wait_s):
            self._take(record)
        self._producer.poll(0)
        self._send_again()
        self._errors.check()
        self._settle()
        self._go_on_alone()
        self._membership.commit_if_due()
        if self._open and self._clock() > self._late_at:
            # Those whose deadline passes behind a closed gate are seen by whoever looks.
            self._late_at = self._clock() + LATE_EVERY_S
            self._tasks.wake()

    def _give_back(self) -> None:
        try:
            self._membership.close()
        except BrokerAway as error:
            log.warning("not_given_back", error=error)
        self._producer.flush(3.0)

    # Requests in

    def _wanted(self) -> int:
        if self._suspects or self._alone or self._dead_letters.crowded:
            return 0
        if not self._servers.may_call(self._settings.model) or self._patience.reason is not None:
            return 0
        return 0 if sum(self._open.values()) > MOST_BYTES else MOST_IN_HAND - len(self._open)

    def _take(self, record: Record) -> None:
        held = self._membership.holdings.get(record.partition)
        if held is None or record.offset < held.frontier.position or not held.frontier.take(record.offset):
            return
        place = (record.partition, held.epoch, record.offset)
        self._open[place] = len(record.value or b"")
        if held.careful:
            self._suspects.append((record, held.epoch))
        else:
            self._begin(record, held.epoch)

    def _begin(self, record: Record, epoch: int) -> None:
        """Parse a record, and let it be answered, refused or skipped."""
        where = _where(record)
        span = call_spans.asked(record, self._settings.group)
        done = partial(self._done, span, (record.partition, epoch, record.offset))
        parsed = self._limited(self._parsed(record))
        if isinstance(parsed, Skip):
            span.fail(parsed.reason)
            self._dead_letters.send(record, MessageReason.REQUEST_SKIPPED, parsed.reason, done)
            metrics.REQUESTS.labels(outcome=parsed.reason).inc()
            audit.record(parsed, where)
        elif isinstance(parsed, Refusal):
            self._refuse(record, parsed, done, span)
        else:
            self._ask(record, epoch, parsed, done, span)

    def _done(self, span: tracing.Span, place: tuple[int, int, int]) -> None:
        span.end()
        self._settled.put(place)

    def _parsed(self, record: Record) -> Request | Refusal | Skip:
        return parse(
            record.value,
            record.message.key(),
            record.headers,
            place=_where(record),
            expected_email=self._settings.expected_email,
        )

    def _limited(self, parsed: Request | Refusal | Skip) -> Request | Refusal | Skip:
        """Take a token of whoever asks; where there is none the request is refused, whatever is in it."""
        if self._rate is None or isinstance(parsed, Skip):
            return parsed
        wait_s = self._rate.take(parsed.address.user_email, self._clock())
        if not wait_s:
            return parsed
        message = f"too many requests; try again in {wait_s:.0f} s"
        return Refusal(parsed.address, RefusalCode.RATE_LIMITED, message)

    def _refuse(self, record: Record, refusal: Refusal, done: Callable[[], None], span: tracing.Span) -> None:
        span.fail(refusal.code)
        metrics.REQUESTS.labels(outcome=refusal.code).inc()
        audit.record(refusal, _where(record))
        error = self._desk.error(refusal.address, refusal.code, refusal.message)
        if refusal.code is RefusalCode.RATE_LIMITED:
            self._produce(error, done, span)  # a flood must not fill the dead letters too
        else:
            self._reply_and_bury(error, record, MessageReason.REQUEST_REFUSED, refusal.code, done, span)

    def _ask(
        self, record: Record, epoch: int, request: Request, done: Callable[[], None], span: tracing.Span
    ) -> None:
        if request.schema is None and request.address.kind is RequestKind.PHOTO:
            request = replace(request, schema=self._settings.schema)
        task = RequestTask(
            record=record,
            request=request,
            epoch=epoch,
            model=self._settings.model,
            servers=self._servers,
            num_ctx=self._num_ctx(),
            received_at=self._clock(),
            on_done=partial(self._reply, done),
            span=span,
        )
        if request.photo is None:
            self._tasks.put(task)
        else:
            self._darkroom.submit(self._develop, task)

    def _develop(self, task: RequestTask) -> None:
        """Make a request's photo safe, and let the request be asked."""
        try:
            task.photo = self._album.develop(task.request.photo or "")
            self._tasks.put(task)
        except PhotoRefused as error:
            task.fail(error.code, error.message)
            task.on_done(task)
        except (RetryLater, OSError) as error:
            log.warning("photo_postponed", error=error)
            if not self._stop.wait(PHOTO_AGAIN_S):
                with contextlib.suppress(RuntimeError):  # the lane is closing: the next owner asks
                    self._darkroom.submit(self._develop, task)
        except BaseException as error:
            if isinstance(error, BrokerRefused):
                self._membership.absolve()
            self.broken = error
            log.error("darkroom_broken", error=error)

    # Replies out

    def _reply(self, done: Callable[[], None], task: RequestTask) -> None:
        """Reply to a request; called by whoever ended it. The dead letters are the owner's."""
        total_s = self._clock() - task.received_at
        if task.failure is None:
            timings = {"total": total_s, "model": task.model_seconds}
            answer = self._desk.answer(task.request.address, task.answer or "", task.model, timings)
            self._produce(answer, done, task.span, partial(self._too_large, task, done))
        else:
            self._failed.put((task, done))
        code = task.failure.code if task.failure is not None else ""
        metrics.REQUESTS.labels(outcome=code or "answered").inc()
        metrics.REPLY_SECONDS.labels(outcome_of(code)).observe(total_s + waited_s(task))
        metrics.REQUEST_SECONDS.labels(part="own").observe(total_s - task.model_seconds)
        metrics.REQUEST_SECONDS.labels(part="model").observe(task.model_seconds)
        work = audit.Work(task.model, task.photo, len(task.answer or ""), round(total_s, 3))
        audit.record(task.request, _where(task.record), code, work)

    def _too_large(self, task: RequestTask, done: Callable[[], None]) -> None:
        """Reply with an error instead of an answer that is longer than this broker's records."""
        log.warning("answer_too_long", place=_where(task.record), characters=len(task.answer or ""))
        task.fail(*TOO_LONG)
        self._failed.put((task, done))

    def _reply_failure(self, task: RequestTask, done: Callable[[], None]) -> None:
        assert task.failure is not None
        error = self._desk.error(task.request.address, task.failure.code, task.failure.message)
        task.span.fail(task.failure.code)
        self._reply_and_bury(
            error, task.record, MessageReason.REQUEST_FAILED, task.failure.code, done, task.span
        )

    def _reply_and_bury(
        self,
        error: Reply,
        record: Record,
        reason: MessageReason,
        code: str,
        done: Callable[[], None],
        span: tracing.Span,
    ) -> None:
        both = _Countdown(2, done)
        self._produce(error, both, span)
        self._dead_letters.send(record, reason, code, both)

    def _produce(
        self,
        reply: Reply,
        done: Callable[[], None],
        span: tracing.Span,
        too_large: Callable[[], None] | None = None,
    ) -> None:
        """Produce a reply; `too_large` is called instead of `done` where no record can be so large."""
        sent = tracing.send(reply.topic, span)
        context = sent.context
        headers = reply.headers if context is None else in_trace(reply.headers, context)

        def refused(error: KafkaError) -> None:
            if self._patience.bear(error, f"write a reply to {reply.topic}"):
                self._unsent.put(send)
                return
            sent.fail(error.name())
            sent.end()
            if too_large is None or error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise BrokerFatal(f"a reply to {reply.topic} cannot be written: {error.str()}") from None
            too_large()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                sent.delivered(message)
                done()
            else:
                refused(error)

        def send() -> None:
            while True:
                try:
                    self._producer.produce(
                        reply.topic, reply.value, reply.key, headers=headers, on_delivery=delivered
                    )
                    return
                except BufferError:
                    time.sleep(0.01)  # the owner polls
                except KafkaException as error:
                    refused(error.args[0])
                    return

        send()

    def _send_again(self) -> None:
        if self._patience.reason is not None:
            return
        self._dead_letters.send_again()
        for _ in range(self._unsent.qsize()):
            self._unsent.get_nowait()()

    def _settle(self) -> None:
        """Reply to what has failed, and record what is acknowledged."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._reply_failure(*self._failed.get_nowait())
        with contextlib.suppress(queue.Empty):
            while True:
                place = self._settled.get_nowait()
                self._open.pop(place, None)
                if self._alone == place:
                    self._alone = None
                partition, epoch, offset = place
                self._membership.holdings.finish(partition, epoch, offset)

    # The request that kills its process

    def _go_on_alone(self) -> None:
        """Ask one suspect at a time, named first, while nothing else is being asked in this process."""
        if not self._suspects and self._alone is None:
            self._tasks.free(Lane.REQUESTS)
            return
        if not self._servers.may_call(self._settings.model):
            self._withdraw()
            if self._withdrawn is not None and self._withdrawn.needs_no_call:
                self._put_withdrawn()
            return
        self._put_withdrawn()
        others = len(self._open) - len(self._suspects)
        if self._alone is not None or others or not self._tasks.reserve(Lane.REQUESTS):
            return
        record, epoch = self._suspects[0]
        held = self._membership.holdings.get(record.partition, epoch)
        if held is None:
            self._suspects.pop(0)
            self._open.pop((record.partition, epoch, record.offset), None)
            return
        known = held.note.suspect
        deaths = known.deaths if known is not None and known.offset == record.offset else 0
        if deaths < DEATHS_OF_A_ROW:
            held.suspect(Suspect(record.offset, deaths=deaths))
            if not self._membership.commit_now(held):
                return
        self._suspects.pop(0)
        self._alone = (record.partition, epoch, record.offset)
        log.warning("request_alone", partition=record.partition, offset=record.offset, deaths=deaths)
        if deaths < DEATHS_OF_A_ROW:
            self._begin(record, epoch)
        else:
            self._give_up(record, epoch)

    def _withdraw(self) -> None:
        """Let the batches of other models go on while the one that must be alone has no server."""
        if self._alone is not None and self._withdrawn is None:
            waiting = self._tasks.discard_requests(self._alone[0])
            if not waiting:
                return  # it is being asked, or made ready
            self._withdrawn = waiting[0]
        self._tasks.free(Lane.REQUESTS)

    def _put_withdrawn(self) -> None:
        if self._withdrawn is not None and self._tasks.reserve(Lane.REQUESTS):
            self._tasks.put(self._withdrawn)
            self._withdrawn = None

    def _give_up(self, record: Record, epoch: int) -> None:
        """Answer a request that has killed its workers without touching what is in it more than needed."""
        span = call_spans.asked(record, self._settings.group)
        span.fail(POISON)
        done = partial(self._done, span, (record.partition, epoch, record.offset))
        parsed = self._parsed(record)
        if isinstance(parsed, Skip):
            self._dead_letters.send(record, MessageReason.REQUEST_FAILED, POISON, done)
            return
        error = self._desk.error(parsed.address, POISON, "this request cannot be processed")
        self._reply_and_bury(error, record, MessageReason.REQUEST_FAILED, POISON, done, span)

    # Changes of the share

    def _lost(self, partitions: list[int]) -> None:
        for partition in partitions:
            call_spans.given_back(self._tasks.discard_requests(partition))
        self._suspects = [one for one in self._suspects if one[0].partition not in partitions]
        if self._alone is not None and self._alone[0] in partitions:
            self._alone = self._withdrawn = None
        self._open = {place: size for place, size in self._open.items() if place[0] not in partitions}

    def _drain(self, partitions: list[int]) -> None:
        """Give what is being asked a bounded time, and its replies an acknowledgement."""
        for partition in partitions:
            waiting = self._tasks.discard_requests(partition)
            call_spans.given_back(waiting)
            for task in waiting:
                self._open.pop(task.place, None)
        self._suspects = [one for one in self._suspects if one[0].partition not in partitions]
        deadline = self._clock() + DRAIN_S
        while any(place[0] in partitions for place in self._open) and self._clock() < deadline:
            self._producer.poll(0.02)
            self._send_again()
            self._settle()
        self._lost(partitions)


def outcome_of(code: str) -> str:
    """Return whether a request was answered, and if not, by whose fault. code: of its failure, or empty."""
    if not code:
        return "answered"
    return "failed" if code in _OUR_FAULTS else "refused"


def waited_s(task: RequestTask) -> float:
    """Return the seconds that a request waited in Kafka, an hour at most; 0 where its record has no time."""
    sent_ms = task.record.timestamp_ms
    if sent_ms <= 0:
        return 0.0
    return min(max(0.0, task.taken_at - sent_ms / 1000), LONGEST_WAIT_S)


def _where(record: Record) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


class _Countdown:
    """Calls `done` when it was called so often."""

    def __init__(self, count: int, done: Callable[[], None]) -> None:
        self._left = count
        self._done = done

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            self._done()
