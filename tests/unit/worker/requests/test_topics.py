"""A lane without its topics: said, looked for again, and no reason to end."""

import threading

import pytest

from prism.kafka.errors import BrokerAway, BrokerRefused, TopicAbsent
from prism_model_worker.requests.topics import await_topics

ABSENT = TopicAbsent("topic eater-send-photo is not there")
SAID = "off: topic eater-send-photo is not there; make it: prism admin topics --create"


class Broker:
    """Answers one after the other; `stop` is set with the last."""

    def __init__(self, *answers: Exception | None, stop: threading.Event | None = None) -> None:
        self.answers = list(answers)
        self.stop = stop

    def __call__(self) -> None:
        answer = self.answers.pop(0)
        if not self.answers and self.stop is not None:
            self.stop.set()
        if answer is not None:
            raise answer


@pytest.mark.promise(9)
def test_it_is_said_once_in_the_log_and_looked_for_until_it_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str | None] = []
    broker = Broker(ABSENT, ABSENT, BrokerAway("no answer"), None)
    with caplog.at_level("WARNING", logger="prism_model_worker"):
        assert await_topics(broker, threading.Event(), told.append, look_again_s=0.0)
    assert told == [SAID, SAID, None]
    assert [record.message for record in caplog.records] == ["requests_off"]


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    told: list[str | None] = []
    assert not await_topics(Broker(ABSENT, ABSENT, stop=stop), stop, told.append, look_again_s=0.0)
    assert told == [SAID, SAID]


def test_what_is_not_allowed_ends_it() -> None:
    with pytest.raises(BrokerRefused):
        await_topics(Broker(BrokerRefused("Read of x")), threading.Event(), lambda _: None)
