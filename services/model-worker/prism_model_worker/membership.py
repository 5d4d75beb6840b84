"""This worker's share of `prism.batches`: assignment, fetching under a cap, commits.

Argument. Only the owner thread touches the consumer, and librdkafka calls the callbacks from within its
`poll`, so nothing here needs a lock. A commit is sent from the holdings, never from what was fetched: it
says what the broker has acknowledged as results, and nothing else. Commits are asynchronous; one that the
broker refuses because the partition moved on is dropped (the new owner decides), any other is sent again.

The cap. When enough batches are in hand the worker does not poll for a moment, and if that lasts it
pauses the partitions and polls on, which keeps its membership. It pauses once and not per message, because
`pause` throws away what librdkafka has prefetched.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from prism.kafka.admin import patiently
from prism.kafka.clients import ErrorWatch, KafkaSettings, receive
from prism.kafka.commit_note import CommitNote
from prism.kafka.errors import is_stale_member, raise_if_fatal
from prism.kafka.records import Record
from prism.service import fault
from prism.service.logs import get_logger
from prism_model_worker import metrics
from prism_model_worker.holdings import Holding, Holdings

log = get_logger(__name__)

COMMIT_EVERY_S = 0.1
LAG_EVERY_S = 1.0
PAUSE_AFTER_S = 0.25
# A rebalance refuses commits until every member has joined; they do so within a heartbeat and a drain.
RELEASE_S, RELEASE_RETRY_S = 6.0, 0.05
_REBALANCING = {KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS}
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the worker does when its share changes."""

    drain: Callable[[list[int]], None]
    lost: Callable[[list[int]], None]
    topic_id: Callable[[], str]


class Membership:
    """The consumer of `prism.batches` and the partitions it holds."""

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        topic: str,
        session: str,
        span: Callable[[], int],
        hooks: Hooks,
        clock: Callable[[], float],
        fetch_wait_ms: int = 50,
        on_error: Callable[[KafkaError], object] = raise_if_fatal,
    ) -> None:
        """`fetch_wait_ms`: how long the broker holds a fetch open in which nothing comes.

        `on_error` hears what it says instead of records, and may raise.
        """
        self._on_error = on_error
        self.errors = ErrorWatch()
        self.holdings = Holdings()
        self.subscribed = False
        self.durable: dict[int, int] = {}
        # Records of each partition held that are not committed; made anew, for others read it.
        self.lag: dict[int, int] = {}
        self._lag_due = 0.0
        self._topic = topic
        self._session = session
        self._span = span
        self._hooks = hooks
        self._clock = clock
        self._paused = False
        self._full_since: float | None = None
        self._crowded: set[int] = set()
        self._commit_due = 0.0
        self._rebalancing = False
        self._consumer: Consumer = kafka.group_consumer(
            group,
            self.errors,
            **{
                "on_commit": self._on_commit,
                # A small prefetch: what lies here is out of reach of other workers.
                "queued.min.messages": 64,
                "queued.max.messages.kbytes": 8192,
                "fetch.wait.max.ms": fetch_wait_ms,
                # A full prefetch queue is looked at again soon, not after the default second.
                "fetch.queue.backoff.ms": 10,
            },
        )

    def join(self) -> None:
        """Become a member of the group."""
        self.subscribed = True
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def leave(self) -> None:
        """Give the partitions back to the group, after a drain."""
        self.subscribed = False
        self._give_back([held.partition for held in self.holdings.all()])
        self._consumer.unsubscribe()
        self._paused = False

    def close(self) -> None:
        """Commit, give everything back and close."""
        self.subscribed = False
        self._give_back([held.partition for held in self.holdings.all()])
        self._consumer.close()

    def absolve(self) -> None:
        """Take our name out of the commits: the broker has refused something, no row ends this process."""
        self._commit_sync(self.holdings.all(), release=True)

    def fetch(self, wanted: int, timeout_s: float) -> list[Record]:
        """Return at most `wanted` records; with none wanted, keep the membership alive."""
        self._mind_the_cap(wanted)
        if wanted <= 0 and not self._paused and self.subscribed:
            return []  # one that is leaving polls on: that is how it gets out of the group
        messages = receive(self._consumer, max(1, wanted), timeout_s if wanted > 0 else 0)
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(Record.of(message))
            else:
                # Not raised but in the end: what came with it is passed, and would not come again.
                self._on_error(error)
                log.warning("consumer_error", error=error.str(), code=error.name())
        self.errors.check()
        return records

    def _mind_the_cap(self, wanted: int) -> None:
        now = self._clock()
        if wanted > 0:
            self._full_since = None
            if self._paused:
                self._paused = False
                self._resume([held.partition for held in self.holdings.all()])
            self._mind_the_span()
        elif self._full_since is None:
            self._full_since = now
        elif not self._paused and now - self._full_since > PAUSE_AFTER_S:
            self._paused = True
            self._pause([held.partition for held in self.holdings.all()])

    def _mind_the_span(self) -> None:
        """Pause a partition whose commit could not say any more what is finished above its frontier."""
        for held in self.holdings.all():
            crowded = not held.frontier.has_room()
            if crowded and held.partition not in self._crowded:
                self._crowded.add(held.partition)
                self._pause([held.partition])
            elif not crowded and held.partition in self._crowded:
                self._crowded.discard(held.partition)
                self._resume([held.partition])

    def _pause(self, partitions: list[int]) -> None:
        if partitions:
            self._consumer.pause([TopicPartition(self._topic, one) for one in partitions])

    def _resume(self, partitions: list[int]) -> None:
        wanted = [TopicPartition(self._topic, one) for one in partitions if one not in self._crowded]
        if not wanted:
            return
        self._consumer.resume(wanted)
        # librdkafka's fetcher sees a resumed partition at its next turn, up to a second later. To seek to
        # where one is wakes it; what a rebalance has just taken away needs no waking.
        with contextlib.suppress(KafkaException):
            for place in self._consumer.position(wanted):
                if place.offset >= 0:
                    self._consumer.seek(place)

    def commit_if_due(self) -> None:
        """Send the commits that have changed, at most ten times a second."""
        now = self._clock()
        if now >= self._lag_due:
            self._lag_due = now + LAG_EVERY_S
            self.lag = self._measured_lag()
        if now < self._commit_due:
            return
        self._commit_due = now + COMMIT_EVERY_S
        self.holdings.widen(self._span())
        offsets = self._changed(self.holdings.all(), release=False)
        if offsets:
            fault.point("worker.before_commit")
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _measured_lag(self) -> dict[int, int]:
        """Return the lag by partition, as far as the client knows from what it fetched last."""
        found = {}
        for held in self.holdings.all():
            place = TopicPartition(self._topic, held.partition)
            with contextlib.suppress(KafkaException):
                known = self._consumer.get_watermark_offsets(place, cached=True)
                if known is not None:
                    found[held.partition] = max(0, known[1] - held.frontier.committable)
        return found

    def commit_now(self, held: Holding) -> bool:
        """Commit one partition and wait for it. Return False if it has moved on."""
        return self._commit_sync([held], release=False)

    def _release(self, held: list[Holding]) -> None:
        """Commit for the last time, and wait for a rebalance that is under way and refuses it.

        What is not committed here is paid for again, and the next owner counts a loss that was none.
        """
        deadline = self._clock() + RELEASE_S
        while not self._commit_sync(held, release=True):
            if not self._rebalancing or self._clock() > deadline:
                return
            time.sleep(RELEASE_RETRY_S)

    def _changed(self, holdings: list[Holding], release: bool) -> list[TopicPartition]:
        offsets = []
        for held in holdings:
            wanted = held.wanted_commit(release)
            if wanted != held.committed:
                held.committed = wanted
                offsets.append(TopicPartition(self._topic, held.partition, wanted[0], wanted[1]))
        return offsets

    def _commit_sync(self, holdings: list[Holding], release: bool) -> bool:
        offsets = self._changed(holdings, release)
        if not offsets:
            return True
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._note_refusal(error.args[0], offsets)
            return False
        for one in done or []:
            if one.error is not None:
                self._note_refusal(one.error, offsets)
                return False
            self.durable[one.partition] = one.offset
        return True

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            failure = error or one.error
            if failure is not None:
                self._note_refusal(failure, [one])
            elif one.offset >= 0:
                self.durable[one.partition] = one.offset
        fault.point("worker.after_commit")

    def _note_refusal(self, error: KafkaError, offsets: list[TopicPartition]) -> None:
        metrics.COMMITS_REFUSED.inc()
        self._rebalancing = error.code() in _REBALANCING
        for one in offsets:
            held = self.holdings.get(one.partition)
            if held is not None:
                held.committed = None  # sent again at the next turn, if it is still held then
        level = log.debug if is_stale_member(error) else log.warning
        level("commit_refused", error=error.str(), partitions=[one.partition for one in offsets])

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # One that is leaving takes nothing more: asking for offsets would wait for a client that is closing.
        if not partitions or not self.subscribed:
            return
        topic_id = patiently(self._hooks.topic_id)
        starts = []
        for one in patiently(lambda: consumer.committed(partitions, timeout=_TIMEOUT_S)):
            ends = partial(consumer.get_watermark_offsets, one, timeout=_TIMEOUT_S)
            low, high = patiently(ends)
            note = CommitNote.decode(one.metadata, one.offset)
            same = note.topic == topic_id and low <= one.offset <= high
            start = one.offset if same else low
            # What the last owner had in hand lay below where the topic ends now.
            span = min(note.span or self._span(), high - start)
            taken = (note if same else CommitNote()).taken_over(topic_id, self._session, start, span)
            taken = replace(taken, span=self._span())
            held = self.holdings.take(one.partition, start, taken)
            starts.append(TopicPartition(self._topic, one.partition, start))
            if held.careful:
                log.warning("partition_careful", partition=one.partition, losses=taken.losses)
        consumer.incremental_assign(starts)
        # librdkafka keeps a pause over the loss of a partition: one that comes back must be let go.
        (self._pause if self._paused else self._resume)([one.partition for one in starts])
        # From now on a death can be seen: the name stays in the commit until it is given back.
        now_held = [self.holdings.get(one.partition) for one in starts]
        self._commit_sync([one for one in now_held if one is not None], release=False)
        log.info("partitions_assigned", partitions=sorted(one.partition for one in starts))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        fault.point("worker.on_revoke")
        self._give_back([one.partition for one in partitions])
        if partitions:
            consumer.incremental_unassign(partitions)

    def _give_back(self, partitions: list[int]) -> None:
        held = [one for number in partitions if (one := self.holdings.get(number)) is not None]
        if not held:
            return
        self._hooks.drain([one.partition for one in held])
        self._release(held)
        self._forget([one.partition for one in held])
        log.info("partitions_given_back", partitions=sorted(one.partition for one in held))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        log.warning("partitions_lost", partitions=sorted(numbers))
        self._forget(numbers)
        self._hooks.lost(numbers)
        if partitions:
            consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[int]) -> None:
        for number in partitions:
            self.holdings.drop(number)
            self.durable.pop(number, None)
            self._crowded.discard(number)
