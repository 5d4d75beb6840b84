"""Gates: when calls are let through, and who opens them again."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from prism.modelserver.errors import (
    AwayReason,
    CallFailed,
    CallTimeout,
    ModelMissing,
    QuotaExhausted,
    ReplyTruncated,
    ServerAway,
)
from prism.modelserver.server import ChatReply, ChatRequest
from prism_model_worker.server_watch import LONGEST_PAUSE_S, LONGEST_WAIT_S, QUIET_S, ServerWatch
from tests.unit.worker.world import MODEL, Bench, Clock, ScriptedServer

REFUSED = ServerAway("refused", reason=AwayReason.UNREACHABLE)


def closed() -> tuple[ServerWatch, ScriptedServer, Clock]:
    clock = Clock()
    server = ScriptedServer(clock)
    watch = ServerWatch(server, clock, lambda: None, 5.0)
    return watch, server, clock


def test_nothing_is_called_before_the_server_was_asked() -> None:
    watch, _, _ = closed()
    assert not watch.may_call(MODEL)
    assert watch.closed_reason() is None  # nothing to call, nothing to complain of
    watch.watch(MODEL)
    assert not watch.may_call(MODEL)
    assert watch.closed_reason() == "m: not asked yet"
    watch._probe_due()
    assert watch.may_call(MODEL)
    assert watch.closed_reason() is None
    assert watch.digest(MODEL) == "sha256:abc"


def test_watching_again_changes_nothing() -> None:
    bench = Bench()
    bench.watch.watch(MODEL)
    assert bench.watch.may_call(MODEL)


@pytest.mark.promise(10)
def test_an_open_gate_that_was_quiet_is_probed() -> None:
    bench = Bench()
    bench.server.down = REFUSED
    bench.probe(QUIET_S / 2)
    assert bench.watch.may_call(MODEL)
    bench.probe(QUIET_S)
    assert not bench.watch.may_call(MODEL)
    assert bench.watch.closed_reason(MODEL) == "refused"


def test_a_busy_gate_needs_no_probe() -> None:
    bench = Bench()
    for _ in range(5):
        bench.clock.now += QUIET_S / 2
        bench.watch.answered(MODEL)
        bench.server.down = REFUSED
        bench.watch._probe_due()
        assert bench.watch.may_call(MODEL)


def test_blame_closes_and_a_probe_opens() -> None:
    bench = Bench()
    bench.watch.blame(MODEL, REFUSED)
    bench.watch._probe_due()
    assert not bench.watch.may_call(MODEL)  # not at once
    bench.probe(0.3)
    assert bench.watch.may_call(MODEL)
    assert bench.opened == 2
    assert bench.server.canaries == 0


def test_what_is_unclear_needs_a_canary() -> None:
    bench = Bench()
    bench.watch.blame(MODEL, CallFailed("HTTP 500"), needs_canary=True)
    bench.watch.blame(MODEL, REFUSED)  # the canary is still needed
    since = bench.clock()
    assert not bench.watch.answered_since(MODEL, since)
    bench.probe(1.0)
    assert bench.server.canaries == 1
    assert bench.watch.may_call(MODEL)
    assert bench.watch.answered_since(MODEL, since)


def test_a_canary_that_dies_keeps_the_gate_closed() -> None:
    bench = Bench()
    bench.watch.blame(MODEL, CallFailed("HTTP 500"), needs_canary=True)
    bench.server.mute = CallFailed("HTTP 500")
    for _ in range(5):
        bench.probe(10.0)
        assert not bench.watch.may_call(MODEL)


def test_a_canary_that_sings_too_long_is_alive_and_the_model_stays_loaded() -> None:
    bench = Bench()
    bench.server.mute = ReplyTruncated("cut after 8 tokens")
    bench.watch.blame(MODEL, CallFailed("HTTP 500"), needs_canary=True, num_ctx=16_384)
    bench.probe(1.0)
    assert bench.watch.may_call(MODEL)
    assert bench.server.canary_contexts == [16_384]


def test_a_canary_waits_until_a_model_is_loaded_that_is_given_up_when_nobody_waits() -> None:
    bench = Bench()
    bench.watch.blame(MODEL, CallFailed("HTTP 500"), needs_canary=True)
    deadlines: list[float] = []

    def load(request: ChatRequest) -> ChatReply:
        deadlines.append(request.deadline_s)
        if request.deadline_s < 30:
            raise CallTimeout("no whole answer")
        return ChatReply("ok", 1, 1, 0.1, 0.0, MODEL)

    bench.server.chat = load  # type: ignore[method-assign]
    for _ in range(4):
        assert not bench.watch.may_call(MODEL)
        bench.probe()
    assert bench.watch.may_call(MODEL)
    bench.watch.blame(MODEL, CallFailed("HTTP 500"), needs_canary=True)
    bench.probe()
    assert deadlines == [5, 10, 20, 40, 5]


@pytest.mark.promise(9)
def test_a_model_that_is_long_in_loading_holds_no_other_up() -> None:
    bench = Bench()
    waiting: list[Callable[[], None]] = []
    bench.watch._spawn = waiting.append
    bench.server.mute = CallTimeout("no whole answer")
    bench.watch.blame(MODEL, CallFailed("HTTP 500"), needs_canary=True)
    bench.probe()
    bench.watch.watch("other")
    for _ in range(3):
        bench.probe()
    assert bench.watch.may_call("other")
    assert (len(waiting), bench.server.canaries) == (1, 1)
    bench.server.mute = None
    waiting.pop()()
    assert bench.watch.may_call(MODEL)


def test_pauses_grow_and_end() -> None:
    bench = Bench()
    bench.server.down = REFUSED
    pauses = []
    for _ in range(10):
        bench.probe(1000.0)
        pauses.append(bench.watch._gates[MODEL].probe_at - bench.clock.now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


@pytest.mark.parametrize(("asked", "waited"), [(30.0, 30.0), (7 * 24 * 3600.0, LONGEST_WAIT_S)])
def test_a_server_is_left_alone_as_long_as_it_asks_within_reason(asked: float, waited: float) -> None:
    bench = Bench()
    bench.watch.blame(MODEL, QuotaExhausted("usage limit", retry_after_s=asked))
    bench.probe(waited - 1)
    assert not bench.watch.may_call(MODEL)
    bench.probe(2)
    assert bench.watch.may_call(MODEL)


def test_one_model_that_is_missing_is_no_outage() -> None:
    bench = Bench()
    bench.watch.watch("other")
    bench.watch.blame("other", ModelMissing("no model"))
    assert not bench.watch.may_call("other")
    assert bench.watch.closed_reason() is None
    bench.watch.blame(MODEL, REFUSED)
    assert bench.watch.closed_reason() == "m: refused; other: no model"


def test_a_reason_is_one_short_line() -> None:
    bench = Bench()
    bench.watch.blame(MODEL, CallFailed("a\nb " + "x" * 1000))
    reason = bench.watch.closed_reason()
    assert reason is not None
    assert "\n" not in reason
    assert len(reason) <= 310


def test_a_quota_is_told_with_its_end_and_asked_about_seldom() -> None:
    bench = Bench()
    until = datetime(2026, 11, 21, 18, 30, tzinfo=UTC)
    spent = QuotaExhausted("HTTP 429: usage limit", until=until)
    bench.watch.blame(MODEL, spent)
    bench.server.mute = spent
    assert bench.watch.closed_reason(MODEL) == (
        "quota exhausted until 2026-11-21 18:30 UTC: HTTP 429: usage limit"
    )
    for _ in range(3600):
        bench.probe(1.0)
    assert 10 <= bench.server.canaries <= 25  # an hour: the first few soon, then one in five minutes
    bench.server.mute = None
    bench.probe(LONGEST_WAIT_S)
    assert bench.watch.may_call(MODEL)
