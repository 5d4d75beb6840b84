"""What the broker refuses for a moment is borne, and what it refuses for longer ends the process."""

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError

from prism.kafka.clients import ErrorWatch
from prism.kafka.errors import BrokerFatal, BrokerRefused
from prism.kafka.records import Record
from prism_model_worker import membership
from prism_model_worker.holdings import Holdings
from prism_model_worker.membership import Membership
from prism_model_worker.patience import PATIENCE_S, SAME_S, Patience
from tests.integration.stage import await_value
from tests.unit.worker.world import Clock

REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Broker:
    """Allows everything once it is told to."""

    def __init__(self) -> None:
        self.allows = threading.Event()
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if not self.allows.is_set():
            raise BrokerRefused("the broker does not allow us Write of prism.results")


@pytest.mark.parametrize(
    "code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED]
)
def test_it_is_told_at_once_and_passes_when_the_broker_says_so(code: int) -> None:
    broker, clock = Broker(), Clock()
    patience = Patience(broker, clock, ask_every_s=0.001)
    assert patience.reason is None
    assert patience.bear(KafkaError(code), "write the result of r/l/0")
    assert "the broker does not allow" in str(patience.reason)
    await_value(lambda: broker.asked >= 2, "the broker to be asked")
    assert str(patience.reason) == "the broker does not allow us Write of prism.results"
    clock.now += PATIENCE_S
    patience.check()
    broker.allows.set()
    await_value(lambda: patience.reason is None, "it to pass")
    clock.now += 1.0
    patience.check()


def test_what_lasts_is_raised_with_what_is_missing() -> None:
    broker, clock = Broker(), Clock()
    patience = Patience(broker, clock, ask_every_s=0.001)
    patience.bear(REFUSED)
    await_value(lambda: broker.asked >= 2, "the broker to be asked")
    clock.now += PATIENCE_S + 0.1
    with pytest.raises(BrokerRefused, match=r"Write of prism\.results"):
        patience.check()
    broker.allows.set()


def test_what_comes_back_at_once_is_not_borne_for_ever() -> None:
    """A broker that says it allows what it refuses."""
    broker, clock = Broker(), Clock()
    broker.allows.set()
    patience = Patience(broker, clock, ask_every_s=0.001)
    for _ in range(4):
        patience.bear(REFUSED)
        await_value(lambda: patience.reason is None, "it to pass")
        clock.now += SAME_S - 1.0
    broker.allows.clear()
    patience.bear(REFUSED)
    with pytest.raises(BrokerRefused):
        patience.check()
    broker.allows.set()
    await_value(lambda: patience.reason is None, "it to pass")
    clock.now += SAME_S + 1.0
    broker.allows.clear()
    patience.bear(REFUSED)
    patience.check()
    broker.allows.set()


@pytest.mark.parametrize(
    "code", [KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION, KafkaError._FATAL]
)
def test_other_refusals_and_ends_are_raised(code: int) -> None:
    with pytest.raises(BrokerFatal):
        Patience(Broker()).bear(KafkaError(code))


def test_what_passes_by_itself_is_not_borne() -> None:
    patience = Patience(Broker())
    assert not patience.bear(KafkaError(KafkaError._TRANSPORT))
    assert not patience.bear(None)
    assert patience.reason is None


class Message:
    def __init__(self, offset: int, error: KafkaError | None = None) -> None:
        self.number, self._error = offset, error

    def error(self) -> KafkaError | None:
        return self._error


@pytest.mark.promise(1)
def test_records_that_came_with_a_refusal_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer's place is behind them: nobody would read them again."""
    broker = Broker()
    patience = Patience(broker)
    member: Any = object.__new__(Membership)
    parts = {
        "_on_error": patience.bear, "_paused": False, "_full_since": None, "_crowded": set(),
        "_consumer": None, "holdings": Holdings(), "subscribed": True, "_clock": Clock(),
        "errors": ErrorWatch(),
    }  # fmt: skip
    for name, part in parts.items():
        setattr(member, name, part)
    came = [Message(4), Message(-1, REFUSED), Message(5)]
    monkeypatch.setattr(membership, "receive", lambda *_: came)
    monkeypatch.setattr(Record, "of", staticmethod(lambda message: message))
    assert [one.number for one in member.fetch(10, 0.1)] == [4, 5]
    assert patience.reason is not None
    broker.allows.set()
