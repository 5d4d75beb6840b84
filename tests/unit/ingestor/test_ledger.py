"""The ledger: epochs, what comes back, and what is put behind a stale record."""

import json

import pytest
from confluent_kafka import KafkaError

from prism.kafka.errors import BrokerFatal
from prism.messages import Cursor, CutPosition, FileCursor, RunRecord, RunState, Topics
from prism_ingestor.ledger import Ledger
from tests.unit.ingestor.world import FakeProducer


def run(state: RunState = RunState.RUNNING, epoch: int = 0, owner: str = "") -> RunRecord:
    return RunRecord(run_id="r", epoch=epoch, owner=owner, state=state)


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer()


@pytest.fixture
def ledger(producer: FakeProducer) -> Ledger:
    made = Ledger(producer, Topics(), "me")  # type: ignore[arg-type]
    made.take_over(4, [], {})
    return made


@pytest.mark.promise(6)
def test_an_epoch_is_known_to_all_even_without_runs(producer: FakeProducer, ledger: Ledger) -> None:
    assert ledger.epoch == 4
    assert producer.table().highest_epoch == 4
    assert producer.table().runs == {}


def test_a_takeover_claims_runs_and_cursors(producer: FakeProducer) -> None:
    ledger = Ledger(producer, Topics(), "me")  # type: ignore[arg-type]
    cursor = Cursor(run_id="r", epoch=2, files={"l": FileCursor(next=CutPosition(sequence=3))})
    ledger.take_over(5, [run(epoch=2)], {"r": cursor, "ended": cursor})
    table = producer.table()
    assert (table.runs["r"].epoch, table.runs["r"].owner) == (5, "me")
    assert table.cursors["r"].epoch == 5
    assert table.cursors["r"].files == cursor.files
    assert "ended" not in table.cursors


def test_only_changes_are_written(producer: FakeProducer, ledger: Ledger) -> None:
    ledger.write(run())
    count = len(producer.sent)
    ledger.change("r", stalled=None)
    ledger.change("nobody", stalled="x")
    assert len(producer.sent) == count
    ledger.change("r", stalled="why")
    ledger.change("r", stalled="why")
    assert len(producer.sent) == count + 1
    files = {"l": FileCursor(next=CutPosition(sequence=3))}
    assert ledger.write_cursor("r", files)
    assert not ledger.write_cursor("r", files)


def test_an_ended_run_is_no_longer_open(producer: FakeProducer, ledger: Ledger) -> None:
    ledger.write(run())
    assert "r" in ledger.runs
    ledger.change("r", state=RunState.CANCELLED)
    assert ledger.runs == {}
    assert producer.table().runs["r"].state is RunState.CANCELLED


def test_a_run_is_known_as_it_was_written_until_that_was_read(ledger: Ledger) -> None:
    """Else a command or a file that comes at once would meet the run as it was."""
    ended = ledger.write(ledger.write(run()), state=RunState.CANCELLED)
    assert ledger.known("r") == ended
    ledger.has_come_round(ended)
    assert ledger.known("r") is None


@pytest.mark.promise(6)
def test_a_stale_record_is_followed_by_ours(producer: FakeProducer, ledger: Ledger) -> None:
    ledger.write(run())
    ledger.write_again("r", None)
    assert json.loads(producer.sent[-1]["value"])["state"] == "running"
    ledger.write_cursor("r", {})
    ledger.write_again("r/cursor", None)
    assert producer.sent[-1]["key"] == "r/cursor"
    assert Cursor.parse(producer.sent[-1]["value"]).epoch == 4


@pytest.mark.promise(6)
def test_behind_a_stale_record_an_ended_run_stays_ended(producer: FakeProducer, ledger: Ledger) -> None:
    """What was read may be older than what is on its way; and a cursor is no run."""
    written = ledger.write(run())
    ledger.write_cursor("r", {})
    ended = ledger.write(written, state=RunState.COMPLETED)
    ledger.write_again("r", written)
    assert RunRecord.parse(producer.sent[-1]["value"]) == ended
    ledger.has_come_round(ended)
    ledger.write_again("r", ended)
    assert RunRecord.parse(producer.sent[-1]["value"]) == ended
    count = len(producer.sent)
    ledger.write_again("unknown", None)
    assert len(producer.sent) == count


def test_who_overrules_whom(ledger: Ledger) -> None:
    assert ledger.is_overruled_by(run(epoch=5, owner="a"))
    assert ledger.is_overruled_by(run(epoch=4, owner="you"))
    assert not ledger.is_overruled_by(run(epoch=4, owner="a"))
    assert not ledger.is_overruled_by(run(epoch=3, owner="z"))


def test_a_run_of_the_last_one_is_lacking(ledger: Ledger) -> None:
    foreign = run(RunState.ACCEPTED, epoch=3, owner="a")
    assert ledger.lacks(foreign)
    assert not ledger.lacks(run(RunState.CANCELLED, epoch=3, owner="a"))
    ledger.write(foreign)
    assert not ledger.lacks(foreign)
    ledger.write(foreign, state=RunState.CANCELLED)
    assert not ledger.lacks(foreign)


@pytest.mark.promise(4)
def test_what_cannot_be_written_is_not_taken_for_written(producer: FakeProducer, ledger: Ledger) -> None:
    told: list[str] = []
    ledger.write(run(), lambda: told.append("written"))
    with pytest.raises(BrokerFatal, match="the run r"):
        producer.sent[-1]["on_delivery"](KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
    assert told == []
    producer.flush()
    assert told == ["written"]
