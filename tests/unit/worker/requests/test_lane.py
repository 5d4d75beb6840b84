"""The request lane between two of its turns: what is counted, what is replied, and what breaks it."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from prism.kafka.commit_note import CommitNote
from prism.kafka.errors import BrokerFatal, BrokerRefused
from prism.kafka.records import Record
from prism.modelserver.server import ChatReply, ChatRequest
from prism_model_worker.patience import Patience
from prism_model_worker.requests.answer import MAX_ANSWER_BYTES
from prism_model_worker.requests.asking import MOST_TRIES, RequestAnswerer
from prism_model_worker.requests.lane import LONGEST_WAIT_S, LaneSettings, RequestLane, outcome_of, waited_s
from prism_model_worker.requests.reply import ReplyTopics
from prism_model_worker.requests.task import RequestTask
from prism_model_worker.tasks import TaskQueue
from tests.integration.stage import await_value
from tests.unit.worker.requests.samples import text_body
from tests.unit.worker.world import MODEL, Clock, Servers

DEAD_LETTER, REPLIES = "dead", "text-out"
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


class FakeKafka:
    """Clients that keep what they are given; `refuse` says what becomes of a record, at once or later."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.at_once: Callable[[bytes], KafkaError | None] = lambda _: None
        self.later: Callable[[bytes], KafkaError | None] = lambda _: None
        self._waiting: list[tuple[bytes, Callable[..., None]]] = []

    def producer(self, _on_error: object, **_extra: object) -> "FakeKafka":
        return self

    def admin(self) -> None:
        return None

    def group_consumer(self, *_args: object, **_extra: object) -> None:
        return None

    def produce(self, topic: str, value: bytes = b"", key: object = None, **rest: Any) -> None:
        del key
        error = self.at_once(value)
        if error is not None:
            raise KafkaException(error)
        self._waiting.append((value, rest["on_delivery"]))
        self.sent.append((topic, json.loads(value) if topic != DEAD_LETTER else {}))

    def poll(self, _seconds: float) -> None:
        while self._waiting:
            value, told = self._waiting.pop(0)
            told(self.later(value), SimpleNamespace(offset=lambda: 0))


class Bench:
    """A lane that holds one partition, and a queue that nobody works on."""

    def __init__(self, per_minute: int = 0) -> None:
        self.kafka, self.clock = FakeKafka(), Clock()
        self.tasks = TaskQueue(self.clock)
        settings = LaneSettings(
            "in", "g", ReplyTopics("photo-out", REPLIES), DEAD_LETTER, "s", MODEL, per_minute=per_minute
        )
        self.lane = RequestLane(
            settings,
            self.kafka,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            self.tasks,
            Servers(),
            lambda: 4096,
            self.clock,
        )
        self.held = self.lane._membership.holdings.take(0, 0, CommitNote())
        self._offset = 0

    def ask(self, **body: Any) -> None:
        value = json.dumps(text_body(**body)).encode()
        message = SimpleNamespace(key=lambda: b"k")
        self.lane._take(Record("in", 0, self._offset, "k", value, 0, message))  # type: ignore[arg-type]
        self._offset += 1

    def answer(self, text: str) -> None:
        """Do a caller's part for the request that is next in the queue."""
        taken = self.tasks.take()
        assert taken is not None
        task, lease = taken
        assert isinstance(task, RequestTask)
        assert lease is not None
        lease.unused()
        task.answer = text
        self.tasks.finished(task)
        task.on_done(task)

    def queued(self) -> int:
        """Take away what waits for a caller; return how many."""
        return len(self.tasks.discard_requests(0))

    def turns(self, count: int = 3) -> None:
        """Do the owner's part: deliveries, failures, acknowledgements."""
        for _ in range(count):
            self.kafka.poll(0)
            self.lane._settle()

    @property
    def codes(self) -> list[str]:
        values = [document["value"] for topic, document in self.kafka.sent if topic == REPLIES]
        return [one["error"]["code"] if "error" in one else "answered" for one in values]

    @property
    def letters(self) -> int:
        return Counter(topic for topic, _ in self.kafka.sent)[DEAD_LETTER]


@pytest.mark.promise(9)
def test_a_refused_request_takes_a_token_and_a_flood_of_them_fills_no_dead_letters() -> None:
    bench = Bench(per_minute=3)
    for _ in range(10):
        bench.ask(schema={"type": "string"})
    bench.ask()
    bench.turns()
    assert bench.codes == ["bad_schema"] * 3 + ["rate_limited"] * 8
    assert bench.letters == 3
    assert bench.held.frontier.committable == 11
    bench.clock.now += 20.0
    bench.ask()
    assert bench.queued() == 1


def test_a_sound_request_over_the_limit_is_refused_without_a_dead_letter() -> None:
    bench = Bench(per_minute=2)
    for email in ("me@x.org", " Me@x.org", "ME@X.ORG ", "you@x.org"):
        bench.ask(user_email=email)
    bench.turns()
    assert (bench.codes, bench.letters, bench.queued()) == (["rate_limited"], 0, 3)


@pytest.mark.promise(9)
@pytest.mark.parametrize("when", ["at_once", "later"])
def test_an_answer_too_large_for_the_broker_becomes_an_error_and_breaks_no_lane(when: str) -> None:
    bench = Bench()
    setattr(bench.kafka, when, lambda value: TOO_LARGE if len(value) > 1000 else None)
    bench.ask()
    bench.answer("x" * 5000)
    assert bench.held.frontier.committable == 0
    bench.turns()
    assert bench.codes[-1] == "answer_too_long"
    assert bench.letters == 1
    assert bench.held.frontier.committable == 1
    bench.ask()
    bench.answer("short")
    bench.turns()
    assert bench.codes[-1] == "answered"
    assert bench.held.frontier.committable == 2


class Endless:
    """A server that ignores `num_predict`."""

    def chat(self, request: ChatRequest) -> ChatReply:
        return ChatReply("x" * MAX_ANSWER_BYTES, 1, 1, 0.1, 0.0, request.model)


@pytest.mark.promise(9)
def test_a_model_whose_answers_no_reply_can_carry_is_told_of_as_such() -> None:
    bench = Bench()
    bench.ask()
    taken = bench.tasks.take()
    assert taken is not None
    task, lease = taken
    assert isinstance(task, RequestTask)
    assert lease is not None
    lease.endpoint.watch.watch(MODEL)
    lease.endpoint.server = Endless()  # type: ignore[assignment]
    for _ in range(MOST_TRIES):
        assert not task.done
        RequestAnswerer(60.0, bench.clock).step(task, lease)
    task.on_done(task)
    bench.turns()
    assert (bench.codes, bench.letters) == (["answer_too_long"], 1)


@pytest.mark.parametrize("when", ["at_once", "later"])
def test_a_reply_that_is_not_allowed_is_sent_again_once_it_is(when: str) -> None:
    bench, allowed = Bench(), threading.Event()

    def ask() -> None:
        if not allowed.is_set():
            raise BrokerRefused("Write of text-out")

    bench.lane._patience = Patience(ask, bench.clock, ask_every_s=0.001)
    refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    setattr(bench.kafka, when, lambda _: None if allowed.is_set() else refusal)
    bench.ask()
    bench.answer("short")
    bench.turns()
    assert bench.lane._wanted() == 0
    bench.lane._send_again()
    bench.turns()
    assert bench.held.frontier.committable == 0
    sent_in_vain = len(bench.codes)
    allowed.set()
    await_value(lambda: bench.lane._patience.reason is None, "it to pass")
    bench.lane._send_again()
    bench.turns()
    assert bench.codes[sent_in_vain:] == ["answered"]
    assert bench.held.frontier.committable == 1


def test_a_lane_that_gives_back_sends_what_was_refused_and_is_allowed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Letters too: a request that fails leaves one."""
    bench = Bench()
    refusals = [KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)] * 2
    bench.kafka.later = lambda _: refusals.pop() if refusals else None
    bench.lane._patience = patience = Patience(lambda: None, bench.clock, ask_every_s=0.001)
    bench.lane._dead_letters._bear = patience.bear
    bench.ask(schema={"type": "string"})
    bench.kafka.poll(0)
    assert (refusals, bench.letters, len(bench.codes)) == ([], 1, 1)
    await_value(lambda: patience.reason is None, "it to pass")
    deliver = bench.kafka.poll

    def poll(seconds: float) -> None:
        bench.clock.now += seconds
        deliver(seconds)

    monkeypatch.setattr(bench.kafka, "poll", poll)
    bench.lane._drain([0])
    assert bench.held.frontier.committable == 1


@pytest.mark.parametrize("when", ["at_once", "later"])
def test_a_reply_that_is_refused_for_another_reason_breaks_the_lane(when: str) -> None:
    bench = Bench()
    refusal = KafkaError(KafkaError.INVALID_RECORD)
    # An error instead of the answer would go through.
    setattr(bench.kafka, when, lambda value: refusal if len(value) > 1000 else None)
    bench.ask()

    def reply() -> None:
        bench.answer("x" * 5000)
        bench.turns()

    with pytest.raises(BrokerFatal, match="a reply to text-out cannot be written"):
        reply()


def test_an_error_too_large_for_the_broker_breaks_the_lane() -> None:
    """It has nothing in it that could be left out: the broker takes no record of ours."""
    bench = Bench()
    bench.kafka.later = lambda _: TOO_LARGE
    bench.ask(schema={"type": "string"})
    with pytest.raises(BrokerFatal):
        bench.turns()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("", "answered"), ("bad_photo", "refused"), ("no_vision", "refused"), ("model_error", "failed")],
)
def test_a_request_counts_against_us_only_where_it_is_our_fault(code: str, outcome: str) -> None:
    assert outcome_of(code) == outcome


@pytest.mark.parametrize(
    ("sent_ms", "waited"),
    [(98_500, 1.5), (100_000, 0.0), (200_000, 0.0), (-1, 0.0), (0, 0.0), (1, 99.999)],
)
def test_the_time_in_kafka_counts_as_far_as_it_can_be_believed(sent_ms: int, waited: float) -> None:
    task: Any = SimpleNamespace(record=SimpleNamespace(timestamp_ms=sent_ms), taken_at=100.0)
    assert waited_s(task) == pytest.approx(waited)
    task.taken_at = 1e9
    assert waited_s(task) <= LONGEST_WAIT_S
