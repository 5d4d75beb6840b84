"""What becomes of a request whose calls fail, and of the others beside it."""

from typing import cast

import pytest
from confluent_kafka import Message

from prism.kafka.records import Record
from prism.modelserver.errors import AccessRefused, AwayReason, CallFailed, ModelServerError, ServerAway
from prism.modelserver.server import ChatReply, ChatRequest
from prism_model_worker.endpoints import Lease
from prism_model_worker.requests.asking import RequestAnswerer
from prism_model_worker.requests.parsing import parse
from prism_model_worker.requests.request import Request
from prism_model_worker.requests.task import RequestTask
from tests.unit.worker.world import MODEL, Bench


class Asked:
    """One request at a server that answers canaries, and fails at it with `error`."""

    def __init__(self, error: ModelServerError) -> None:
        self.bench = Bench()
        self.error = error
        self.calls = 0
        self._canary = self.bench.server.chat
        self.bench.server.chat = self._chat  # type: ignore[method-assign]
        self._answerer = RequestAnswerer(60.0, self.bench.clock, lambda: 0.0)
        request = parse(b'{"user_email": "a@b", "prompt": "hi"}', None, {}, place="t/0/0")
        assert isinstance(request, Request)
        record = Record("t", 0, 0, "", None, 0, cast(Message, None))
        self.task = RequestTask(record, request, 1, MODEL, self.bench.servers, 4096, 0.0, lambda _: None)

    def _chat(self, request: ChatRequest) -> ChatReply:
        if len(request.messages) == 1:
            return self._canary(request)
        self.calls += 1
        self.bench.clock.now += 0.01
        raise self.error

    def step(self) -> float:
        """Ask once; return the pause before the next time."""
        return self._answerer.step(self.task, Lease(self.bench.endpoint, MODEL, None))

    @property
    def code(self) -> str | None:
        """The code that it has failed with."""
        return self.task.failure.code if self.task.failure is not None else None


@pytest.mark.promise(9)
def test_requests_at_which_a_healthy_server_fails_close_no_gate() -> None:
    asked = Asked(CallFailed("HTTP 500"))
    asked.bench.watch.answered(MODEL)
    pause_s = asked.step()
    asked.bench.clock.now += pause_s
    assert asked.bench.watch.may_call(MODEL)
    asked.bench.watch.answered(MODEL)
    asked.step()
    assert (asked.code, asked.calls) == ("model_error", 2)
    assert asked.bench.watch.may_call(MODEL)


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "error",
    [
        CallFailed("HTTP 500"),
        AccessRefused("HTTP 401"),
        ServerAway("broke off", reason=AwayReason.BROKEN_OFF),
        ServerAway("HTTP 502", reason=AwayReason.GATEWAY),
    ],
    ids=str,
)
def test_an_outage_fails_no_request(error: ModelServerError) -> None:
    asked = Asked(error)
    asked.bench.watch.answered(MODEL)
    asked.bench.server.down = error
    for _ in range(50):
        if asked.bench.watch.may_call(MODEL):
            pause_s = asked.step()
            asked.bench.clock.now += pause_s
        asked.bench.probe(1.0)
    assert asked.code is None
    assert not asked.bench.watch.may_call(MODEL)


@pytest.mark.promise(9)
def test_a_request_for_which_there_is_no_room_waits() -> None:
    asked = Asked(ServerAway("HTTP 429", reason=AwayReason.BUSY))
    for _ in range(50):
        asked.step()
        asked.bench.watch.answered(MODEL)
    assert asked.code is None
    assert asked.bench.watch.may_call(MODEL)
