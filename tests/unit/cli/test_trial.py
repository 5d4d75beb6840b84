"""A dry run's calls: what they took, and what ends them."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import pytest

from prism.modelserver import (
    AccessRefused,
    AwayReason,
    CallFailed,
    ChatReply,
    ChatRequest,
    Endpoint,
    ModelMissing,
    ModelServerError,
    QuotaExhausted,
    ServerAway,
)
from prism.runs.forecast import Taken
from prism_cli.exits import CommandFailed
from prism_cli.survey import Sampled
from prism_cli.trial import Outcome, Trial, open_servers
from prism_model_worker.settings import WorkerSettings
from tests.unit.modelserver.server import Request, respond_json
from tests.unit.modelserver.server import ScriptedServer as HttpServer
from tests.unit.worker.world import MODEL, Clock, Script, ScriptedServer, batch, reply, run_record

SETTINGS = WorkerSettings(bootstrap_server="127.0.0.1:1")
NOBODY = "http://127.0.0.1:9"


class Ticking(Clock):
    """A clock that passes a little whenever it is asked, so that waiting ends."""

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


class Loading(ScriptedServer):
    """A server whose first answer takes 7 s more, for loading the model."""

    def chat(self, request: ChatRequest) -> ChatReply:
        first = not self.asked
        if first:
            self._clock.now += 7.0
        found = super().chat(request)
        return replace(found, load_seconds=7.0 if first else 0.1)


def sampled(rows: int, sequence: int = 0, asked: Sequence[int] | None = None) -> Sampled:
    return Sampled(batch(rows, sequence), tuple(range(rows)) if asked is None else tuple(asked), 1000)


Made = Callable[..., tuple[Trial, ScriptedServer]]


@pytest.fixture
def made() -> Iterator[Made]:
    """Make a trial on a scripted server; pauses pass at once, on the trial's clock."""
    some: list[Trial] = []

    def make(
        script: Script | None = None,
        server: type[ScriptedServer] = ScriptedServer,
        clock: Clock | None = None,
    ) -> tuple[Trial, ScriptedServer]:
        clock = clock or Clock()
        one = server(clock, script)

        def pass_time(seconds: float) -> None:
            clock.now += seconds

        some.append(Trial(run_record(), MODEL, [("here", one)], SETTINGS, clock, pass_time))
        return some[-1], one

    yield make
    for one in some:
        one.close()


def outcome_of(trial: Trial, *some: Sampled) -> Outcome:
    for one in some:
        trial.ask(one)
    return trial.outcome


def test_a_batch_is_one_call_and_what_it_took_is_known(made: Made) -> None:
    trial, server = made()
    found = outcome_of(trial, sampled(4), sampled(3, 1))
    assert found.taken == [Taken(4, 1000, 1, 100, 10, 0.5, 0), Taken(3, 1000, 1, 100, 10, 0.5, 0)]
    assert (found.failed.total(), found.load_seconds) == (0, 0.0)
    assert server.asked == [("id0", "id1", "id2", "id3"), ("id0", "id1", "id2")]


def test_only_the_rows_that_need_a_call_are_asked(made: Made) -> None:
    trial, server = made()
    assert outcome_of(trial, sampled(5, asked=(1, 4))).taken[0].rows == 2
    assert server.asked == [("id1", "id4")]


def test_loading_the_model_is_no_part_of_a_call(made: Made) -> None:
    trial, server = made(server=Loading)
    found = outcome_of(trial, sampled(4), sampled(4, 1))
    assert [one.seconds for one in found.taken] == [pytest.approx(0.5), pytest.approx(0.5)]
    assert found.load_seconds == 7.0
    # The first has time for it; later ones have what a worker gives them.
    assert [one.deadline_s for one in server.requests] == [pytest.approx(390.0), pytest.approx(78.0)]


def test_repairs_and_retries_count_and_pauses_do_not(made: Made) -> None:
    trial, server = made(lambda ids, _: reply(ids, id2="nonsense"))
    found = outcome_of(trial, sampled(4), sampled(2, 1))
    # The good rows are kept; the bad one is asked alone, repaired, and tried to the job's end.
    (first, second) = found.taken
    assert first.calls == len(server.asked) - 1
    assert first.calls > 3
    assert (first.failed, second.failed, second.calls) == (1, 0, 1)
    assert dict(found.failed) == {"label_not_allowed": 1}
    assert first.seconds == pytest.approx(0.5 * first.calls)
    assert first.prompt_tokens == 100 * first.calls


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelMissing("gone", "here", "pull it"), 5),
        (AccessRefused("no key"), 5),
        (QuotaExhausted("weekly limit"), 7),
        (ServerAway("connection refused", reason=AwayReason.UNREACHABLE), 5),
        (ServerAway("a web page", reason=AwayReason.NOT_ONE), 5),
    ],
)
def test_what_does_not_pass_ends_the_trial_at_the_first_call(
    made: Made, error: ModelServerError, code: int
) -> None:
    trial, server = made(lambda *_: error)
    with pytest.raises(CommandFailed, match=error.what) as ended:
        trial.ask(sampled(4))
    assert ended.value.code == code
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "error", [ServerAway("busy", reason=AwayReason.BUSY), ServerAway("lost", reason=AwayReason.BROKEN_OFF)]
)
def test_a_moment_without_room_or_connection_passes(made: Made, error: ModelServerError) -> None:
    left = [error, error]
    trial, _ = made(lambda ids, _: left.pop() if left else reply(ids), clock=Ticking())
    (taken,) = outcome_of(trial, sampled(4)).taken
    assert (taken.rows, taken.failed) == (4, 0)


def test_a_row_that_the_server_fails_at_fails_alone(made: Made) -> None:
    trial, server = made(lambda ids, _: CallFailed("500") if "id1" in ids else reply(ids), clock=Ticking())
    found = outcome_of(trial, sampled(4))
    assert dict(found.failed) == {"model_error": 1}
    assert server.canaries > 0


@pytest.mark.parametrize(
    ("error", "code"), [(CallFailed("HTTP 500"), 1), (ServerAway("busy", reason=AwayReason.BUSY), 5)]
)
def test_a_server_that_does_nothing_else_ends_the_trial(
    made: Made, error: ModelServerError, code: int
) -> None:
    clock = Ticking()
    trial, server = made(lambda *_: error, clock=clock)
    server.mute = error
    started = clock.now
    with pytest.raises(CommandFailed, match=error.what) as ended:
        trial.ask(sampled(4))
    assert ended.value.code == code
    assert 30 < clock.now - started < 120


def test_a_server_that_went_before_the_first_call_is_exit_5(made: Made) -> None:
    trial, server = made(clock=Ticking())
    server.down = ServerAway("gone", reason=AwayReason.UNREACHABLE)
    with pytest.raises(CommandFailed, match="gone") as ended:
        trial.ask(sampled(4))
    assert ended.value.code == 5
    assert server.asked == []


# Which servers


def http_server(models: Sequence[str], digest: str = "abc") -> HttpServer:
    tags = {"models": [{"name": f"{one}:latest", "digest": digest} for one in models]}
    show = {"capabilities": ["completion"], "model_info": {}, "details": {}}

    def answer(connection: socket.socket, request: Request) -> None:
        if request.path == "/api/show" and request.json["model"] not in models:
            respond_json(connection, 404, {"error": "model not found"})
        else:
            respond_json(connection, 200, tags if request.path == "/api/tags" else show)

    return HttpServer(answer)


def place(server: HttpServer) -> Endpoint:
    return Endpoint("ollama", f"http://127.0.0.1:{server.port}")


def test_the_servers_that_have_the_model_are_taken() -> None:
    with_it, without = http_server(["tiny"], "d1"), http_server(["other"])
    with closing(with_it), closing(without):
        found, digest = open_servers(
            "tiny", [place(without), Endpoint("ollama", NOBODY), place(with_it)], 3.0
        )
        for _, client in found:
            client.close()
    assert [address for address, _ in found] == [place(with_it).address]
    assert digest == "d1"


def test_without_any_the_first_ones_reason_is_told() -> None:
    without = http_server([])
    with closing(without), pytest.raises(CommandFailed, match="ollama pull tiny") as failed:
        open_servers("tiny", [place(without), Endpoint("ollama", NOBODY)], 3.0)
    assert failed.value.code == 5
    with pytest.raises(CommandFailed, match="connection refused") as failed:
        open_servers("tiny", [Endpoint("ollama", NOBODY)], 3.0)
    assert failed.value.code == 5


def test_what_is_no_address_is_exit_3() -> None:
    with pytest.raises(CommandFailed) as failed:
        open_servers("tiny", [Endpoint("ollama", "ftp://x")], 3.0)
    assert failed.value.code == 3


def test_nothing_is_left_running(made: Made) -> None:
    trial, _ = made()
    outcome_of(trial, sampled(2))
    trial.close()
    assert not [one for one in threading.enumerate() if one.name == "server-watch" and one.is_alive()]
