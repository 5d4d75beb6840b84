"""What is buried counts as done once its letter is durable: of the letters, of control, of intake."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from prism.kafka.clients import KafkaSettings
from prism.kafka.dead_letters import DeadLetters
from prism.kafka.errors import BrokerFatal
from prism.kafka.frontier import OffsetFrontier
from prism.kafka.records import Record
from prism.messages import FileReason, MessageReason, RunRecord, RunState, Topics
from prism.messages.intake import REQUEST_TYPE
from prism.runs.catalogue import Catalogue
from prism_ingestor.acceptance import Acceptance
from prism_ingestor.commands import ControlTopic
from prism_ingestor.intake import IntakeReader
from prism_ingestor.ledger import Ledger
from prism_ingestor.sources import Sources
from tests.unit.ingestor.world import FakeProducer
from tests.unit.kafka.test_records import FakeMessage

MIB = 1024 * 1024


def record_of(value: bytes, offset: int = 0, headers: dict[str, bytes] | None = None) -> Record:
    message: Any = FakeMessage(value)
    return Record("t", 0, offset, "k", value, 1234, message, list((headers or {}).items()))


class Post:
    """Letters on their way, and what hears of them."""

    def __init__(self) -> None:
        self.producer = FakeProducer()
        self.counted: list[MessageReason] = []
        self.warned: list[dict[str, Any]] = []
        producer: Any = self.producer
        self.letters = DeadLetters(producer, "dead", self._count, self._warn)

    def _count(self, reason: MessageReason) -> None:
        self.counted.append(reason)

    def _warn(self, action: str, **values: Any) -> None:
        assert action == "dead_letter"
        self.warned.append(values)

    def fail(self, code: int) -> None:
        """The broker refuses the last letter."""
        self.producer.sent[-1].pop("on_delivery")(KafkaError(code), None)


@pytest.fixture
def post() -> Post:
    return Post()


def test_a_record_is_done_once_its_letter_is_there(post: Post) -> None:
    done: list[str] = []
    for value in (b"one", b"two"):
        post.letters.send(record_of(value), MessageReason.NOT_PARSED, "why", lambda: done.append("done"))
    assert (done, post.letters.waiting, len(post.counted)) == ([], 2, 2)
    post.producer.flush()
    assert (done, post.letters.waiting) == (["done", "done"], 0)
    assert [one["value"] for one in post.producer.sent] == [b"one", b"two"]
    assert post.warned[0]["reason"] is MessageReason.NOT_PARSED


def test_a_letter_that_is_refused_for_good_stops_the_process(post: Post) -> None:
    done: list[str] = []
    post.letters.send(record_of(b"x"), MessageReason.NOT_PARSED, "why", lambda: done.append("done"))
    with pytest.raises(BrokerFatal, match="t/0/0"):
        post.fail(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert done == []


@pytest.mark.parametrize("when", ["at_once", "later"])
def test_a_letter_whose_refusal_is_borne_is_sent_again(
    post: Post, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    refusal = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    post.letters._bear = lambda error, _what: error.code() == refusal.code()

    def refuse(*_: object, **__: object) -> None:
        raise KafkaException(refusal)

    with monkeypatch.context() as broker:
        if when == "at_once":
            broker.setattr(post.producer, "produce", refuse)
        post.letters.send(record_of(b"x"), MessageReason.NOT_PARSED, "why", lambda: done.append("done"))
    if when == "later":
        post.fail(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert (done, post.letters.waiting) == ([], 1)
    post.letters.send_again()
    post.producer.flush()
    assert (done, post.letters.waiting, len(post.counted)) == (["done"], 0, 1)


def test_an_original_too_large_for_the_broker_leaves_its_place(post: Post) -> None:
    done: list[str] = []
    post.letters.send(record_of(b"x" * MIB), MessageReason.NOT_PARSED, "why", lambda: done.append("done"))
    post.fail(KafkaError.MSG_SIZE_TOO_LARGE)
    assert (done, post.letters.waiting) == ([], 1)
    assert "value" not in post.producer.sent[-1]
    assert dict(post.producer.sent[-1]["headers"])["prism_reason"] == b"not_parsed"
    post.producer.flush()
    assert (done, post.letters.waiting) == (["done"], 0)
    post.letters.send(record_of(b"x" * MIB), MessageReason.NOT_PARSED, "why", lambda: done.append("done"))
    post.fail(KafkaError.MSG_SIZE_TOO_LARGE)
    with pytest.raises(BrokerFatal):
        post.fail(KafkaError.MSG_SIZE_TOO_LARGE)


@pytest.mark.promise(9)
def test_large_letters_on_their_way_hold_their_reader_back(post: Post) -> None:
    for _ in range(3):
        assert not post.letters.crowded
        post.letters.send(record_of(b"x" * 15 * MIB), MessageReason.NOT_PARSED, "why", lambda: None)
    assert post.letters.crowded
    post.producer.flush()
    assert not post.letters.crowded


def test_the_offset_of_a_command_that_is_none_waits_for_its_letter(post: Post) -> None:
    kafka = KafkaSettings("127.0.0.1:1", "test", {"log_level": "0"})
    control = ControlTopic(kafka, "g", "control", lambda: 0.0, post.letters)
    control.owned = True
    frontier = control._frontier
    control._take(record_of(b"explode"))
    assert (frontier.committable, control.waiting) == (0, [])
    control._frontier = OffsetFrontier(0)  # lost and assigned again: the record is read once more
    control._take(record_of(b"explode"))
    post.producer.sent[0].pop("on_delivery")(None, None)
    assert (frontier.committable, control._frontier.committable) == (1, 0)
    post.producer.flush()
    assert control._frontier.committable == 1
    control.close()


# Acceptance


class FakeIntake:
    """Records to come, and the offsets that are finished."""

    group = "prism-ingestor-intake"

    def __init__(self) -> None:
        self.coming: list[Record] = []
        self.finished: list[int] = []

    def poll(self) -> Record | None:
        return self.coming.pop(0) if self.coming else None

    def finish(self, partition: int, offsets: list[int]) -> None:
        assert partition == 0
        self.finished += offsets


class Counter:
    """An acceptance, and the runs as `prism.runs` shows them with a delay."""

    def __init__(self, folder: Path, post: Post) -> None:
        self.post, self.intake = post, FakeIntake()
        producer: Any = post.producer
        self.ledger = Ledger(producer, Topics(), "me")
        self.ledger.take_over(1, [], {})
        (folder / "default.yaml").write_text("")
        (folder / "spool").mkdir()
        self.values: dict[int, bytes] = {}
        sources = Sources(folder / "spool", folder, MIB, lambda _partition, offset: self.values[offset])
        self.submitted: list[RunRecord] = []
        self.shown: dict[str, RunRecord] = {}
        intake: Any = self.intake
        checker: Any = self
        self.acceptance = Acceptance(
            intake,
            IntakeReader(folder, Catalogue, 1.0, lambda: 0.0),
            self.ledger,
            checker,
            sources,
            self.shown,
            post.letters,
        )

    def submit(self, record: RunRecord) -> None:
        self.submitted.append(record)

    def drop(self, value: bytes, offset: int) -> None:
        self.values[offset] = value
        self.intake.coming.append(record_of(value, offset, {"run-id": b"r"}))
        self.acceptance.turn()


@pytest.fixture
def counter(tmp_path: Path, post: Post) -> Counter:
    return Counter(tmp_path, post)


@pytest.mark.promise(1)
def test_the_offset_of_another_file_of_a_known_run_waits_for_its_letter(counter: Counter) -> None:
    counter.drop(b"Message\nx\n", 0)
    assert counter.intake.finished == []
    counter.post.producer.flush()
    assert counter.intake.finished == [0]
    counter.drop(b"Message\ny\n", 1)
    assert (counter.intake.finished, len(counter.post.counted)) == ([0], 1)
    counter.post.producer.flush()
    assert counter.intake.finished == [0, 1]
    counter.drop(b"Message\nx\n", 2)  # the same bytes: nothing to bury
    assert (counter.intake.finished, len(counter.post.counted)) == ([0, 1, 2], 1)


def test_no_more_is_read_while_letters_crowd(counter: Counter) -> None:
    for _ in range(3):
        counter.post.letters.send(record_of(b"x" * 15 * MIB), MessageReason.STALE, "why", lambda: None)
    counter.drop(b"Message\nx\n", 0)
    assert len(counter.intake.coming) == 1
    counter.post.producer.flush()
    assert counter.acceptance.turn()
    assert [one.run_id for one in counter.submitted] == ["r"]


def test_a_file_that_comes_again_at_once_does_not_wake_a_cancelled_run(counter: Counter) -> None:
    """`prism.runs` is read with a delay: it shows nothing yet, and then the run as it was."""
    counter.drop(b"Message\nx\n", 0)
    (record,) = counter.submitted
    counter.ledger.write(record, state=RunState.CANCELLED)
    counter.drop(b"Message\nx\n", 1)
    counter.shown["r"] = record
    counter.drop(b"Message\nx\n", 2)
    assert (counter.submitted, counter.ledger.runs) == ([record], {})
    last = [one for one in counter.post.producer.sent if one["key"] == "r"][-1]
    assert json.loads(last["value"])["state"] == "cancelled"


def request_of(counter: Counter, offset: int, run_id: str = "big", **fields: Any) -> RunRecord:
    """Return the run that is made of a request."""
    files = [{"label": f"f{one}", "sha256": "a" * 64, "uri": f"file:///d/f{one}.csv"} for one in range(1000)]
    prompt = {"system_prompt": "Classify.", "columns_to_code": ["Topic"]}
    whole = {"job": {}, "prompt": prompt, "files": files} | fields
    headers = {"run-id": run_id.encode(), "content-type": REQUEST_TYPE.encode()}
    counter.intake.coming.append(record_of(json.dumps(whole).encode(), offset, headers))
    counter.acceptance.turn()
    counter.post.producer.flush()
    return counter.post.producer.table().runs[run_id]


@pytest.mark.promise(9)
def test_a_run_that_fits_in_no_record_is_refused_and_stops_nobody(counter: Counter) -> None:
    far = 10**14
    ranges = [{"start": str(one * far + 1), "end": str(one * far + 2)} for one in range(1000)]
    manual = {"parallelization": {"split_strategy": "manual", "manual_ranges": ranges}}
    run = request_of(counter, 0, job=manual)
    assert (run.state, run.reason, run.files) == (RunState.REFUSED, FileReason.TOO_LARGE, [])
    assert counter.intake.finished == [0]
    assert counter.submitted == []
    assert max(len(one["value"]) for one in counter.post.producer.sent) < MIB


def test_a_retry_of_a_retry_is_refused(counter: Counter) -> None:
    root = request_of(counter, 0, "root")
    counter.ledger.write(root, state=RunState.COMPLETED_WITH_FAILURES)
    child = request_of(counter, 1, "root.r1", parent="root")
    assert child.state is RunState.ACCEPTED
    counter.ledger.write(child, state=RunState.COMPLETED_WITH_FAILURES)
    nested = request_of(counter, 2, "root.r1.r1", parent="root.r1")
    assert (nested.state, nested.reason) == (RunState.REFUSED, FileReason.BAD_REQUEST)
    assert "name root as the parent" in (nested.detail or "")
