"""A broker that refuses something ends a worker, and no row is suspected of it."""

import queue
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import TopicPartition

from prism.kafka.commit_note import CommitNote, Suspect
from prism.kafka.errors import BrokerFatal, BrokerRefused
from prism.service.lifecycle import StopSignal
from prism.service.readiness import Readiness
from prism_model_worker.holdings import Holdings
from prism_model_worker.membership import Membership
from prism_model_worker.patience import Patience
from prism_model_worker.tasks import TaskQueue
from prism_model_worker.worker import Worker
from tests.unit.worker.world import Clock


class Consumer:
    """Keeps what is committed."""

    def __init__(self) -> None:
        self.notes: list[CommitNote] = []

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        self.notes += [CommitNote.decode(one.metadata, one.offset) for one in offsets]
        return offsets


def membership(consumer: Consumer) -> Membership:
    made = object.__new__(Membership)
    made.holdings, made.durable = Holdings(), {}
    made._consumer, made._topic = cast(Any, consumer), "prism.batches"
    note = CommitNote("t", "me", losses=2, careful_until=9, suspect=Suspect(0, 0, 2), span=16)
    made.holdings.take(0, 0, note)
    return made


def worker(consumer: Consumer, end: Exception) -> Worker:
    """A worker that works alone on a row, and whose next turn ends it."""

    def turn() -> None:
        raise end

    made = object.__new__(Worker)
    parts: dict[str, Any] = {
        "_membership": membership(consumer), "_requests": None, "_readiness": Readiness("broker"),
        "_start": lambda: None, "_turn": turn,
    }  # fmt: skip
    for name, part in parts.items():
        setattr(made, name, part)
    return made


STOP: Any = SimpleNamespace(is_set=lambda: False)


@pytest.mark.promise(1)
def test_what_the_broker_refuses_is_no_rows_fault() -> None:
    consumer = Consumer()
    with pytest.raises(BrokerRefused):
        worker(consumer, BrokerRefused("write the result: not allowed")).run(cast(StopSignal, STOP))
    (note,) = consumer.notes
    assert (note.owner, note.suspect) == ("", None)
    assert note.taken_over("t", "next", 0, 16).losses == 2, "not one more"


def test_an_end_that_nobody_can_explain_leaves_its_name() -> None:
    consumer = Consumer()
    with pytest.raises(BrokerFatal):
        worker(consumer, BrokerFatal("fenced")).run(cast(StopSignal, STOP))
    assert consumer.notes == []


@pytest.mark.promise(5)
def test_a_worker_that_stops_sends_what_was_refused_and_is_allowed_again() -> None:
    """Else it would wait for the whole drain, and its calls would be paid for twice."""
    clock, made = Clock(), object.__new__(Worker)

    def poll(seconds: float) -> None:
        clock.now += seconds

    def send() -> None:
        made._on_their_way -= 1

    parts: dict[str, Any] = {
        "_tasks": TaskQueue(clock), "_open": {}, "_backlog": deque(), "_clock": clock, "_on_their_way": 1,
        "_unsent": [send], "_patience": Patience(lambda: None, clock),
        "_quarantine": SimpleNamespace(lose=lambda _: None), "_sharing": None,
        "_dead_letters": SimpleNamespace(waiting=0, send_again=lambda: None),
        "_producer": SimpleNamespace(poll=poll),
        "_calls": SimpleNamespace(callers=SimpleNamespace(finished=queue.SimpleQueue())),
    }  # fmt: skip
    for name, part in parts.items():
        setattr(made, name, part)
    began = clock.now
    made._drain_for([0], 22.0)
    assert made._unsent == []
    assert clock.now - began < 1.0
