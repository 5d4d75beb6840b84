"""A run whose servers cannot even be asked waits and says why; others go on, and so does the owner thread."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from prism.kafka.commit_note import CommitNote
from prism.kafka.records import Record
from prism.messages import Heartbeat, RunRecord, RunState, Topics, WorkerState
from prism.modelserver.errors import AwayReason, ModelServerError, QuotaExhausted, ServerAway
from prism.runs.catalogue import ModelEntry, entry_of
from prism_model_worker import server_watch
from prism_model_worker.__main__ import connector
from prism_model_worker.concurrency import STARVED_S
from prism_model_worker.contexts import RunContext, RunContexts
from prism_model_worker.endpoints import Endpoints, ServerGroup
from prism_model_worker.holdings import Holdings
from prism_model_worker.settings import WorkerSettings
from prism_model_worker.status import Status
from prism_model_worker.worker import Worker
from tests.unit.worker.world import MODEL, Bench, Clock, batch, run_record

ENVIRON = {"LINE_KEY": "sk-1\n", "TWO_KEY": "sk-1\nsk-2"}
UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"api_key_env": "NO_KEY"}, "NO_KEY is not set"),
    "two lines": ({"api_key_env": "TWO_KEY"}, "set it to the key alone"),
    "port": ({"backend": "openai", "base_url": ["http://gpu:80000"]}, "'http://gpu:80000' is no address"),
    "brackets": ({"base_url": ["http://[::::]:80"]}, "correct it"),
    "newer": ({"backend": "vllm", "base_url": ["http://gpu"]}, "knows no backend vllm"),
    "newer, of the default server": ({"backend": "vllm"}, "knows no backend vllm"),
}


def run(run_id: str = "r", **entry: Any) -> RunRecord:
    return run_record().model_copy(update={"run_id": run_id, "model_entry": {"name": MODEL, **entry}})


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Endpoints:
    monkeypatch.setattr(server_watch.ServerWatch, "start", lambda _: None)
    settings = WorkerSettings(BOOTSTRAP_SERVER="127.0.0.1:1", OLLAMA_HOST="http://127.0.0.1:1")
    return Endpoints(connector(settings, ENVIRON), Clock(), lambda: None, 5.0, None)


@pytest.mark.promise(9)
@pytest.mark.parametrize(("entry", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_run_whose_servers_cannot_be_asked_waits_and_says_why(
    endpoints: Endpoints, entry: dict[str, Any], says: str
) -> None:
    context = RunContext.of(run(**entry), MODEL, endpoints.group)
    endpoints.watch(context.servers, context.model)
    context.servers.endpoints[0].watch._probe_due()
    assert context.servers.acquire(MODEL) is None
    assert says in (endpoints.closed_reason() or "")
    assert "sk-1" not in (endpoints.closed_reason() or "")
    with pytest.raises(ModelServerError):
        context.servers.endpoints[0].server.assert_model(MODEL)
    # Nor are the default's servers taken for its own.
    assert endpoints.group(entry_of({}, MODEL)) is not context.servers


def test_a_key_that_ends_in_a_line_break_is_used(endpoints: Endpoints) -> None:
    context = RunContext.of(run(api_key_env="LINE_KEY"), MODEL, endpoints.group)
    assert context.servers.endpoints[0].url == "http://127.0.0.1:1"


class DeadLetters:
    """Remembers what was buried, and why."""

    crowded = False

    def __init__(self) -> None:
        self.details: list[str] = []

    def send(self, record: Record, reason: str, detail: str, done: Any) -> None:
        self.details.append(f"{record.offset} {reason}: {detail}")
        done()


def owner(endpoints: Endpoints, *runs: RunRecord) -> tuple[Worker, DeadLetters]:
    """Return a worker as it is between two turns, with a partition and no broker."""
    worker, buried = Worker.__new__(Worker), DeadLetters()
    holdings = Holdings()
    holdings.take(0, 0, CommitNote())
    parts: dict[str, Any] = {
        "_membership": SimpleNamespace(holdings=holdings),
        "_runs": SimpleNamespace(runs={one.run_id: one for one in runs}),
        "_settings": SimpleNamespace(ollama_model=MODEL, consumer_group="workers"),
        "_dead_letters": buried,
        "_endpoints": endpoints,
        "_contexts": RunContexts(MODEL, endpoints),
        "_open": {},
        "_backlog": deque(),
        "status": Status("w", "s", MODEL, "", Clock()),
    }
    for name, part in parts.items():
        setattr(worker, name, part)
    return worker, buried


def record(run_id: str, offset: int) -> Record:
    value = batch(2, offset).model_copy(update={"run_id": run_id}).to_bytes()
    return Record("prism.batches", 0, offset, "", value, 0, SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.promise(9)
def test_no_runs_entry_ends_the_owner_thread(endpoints: Endpoints) -> None:
    runs = [run(f"r{number}", **entry) for number, (entry, _) in enumerate(UNUSABLE.values())]
    unreadable = run("unreadable", price={"prompt": "free", "completion": 0})
    worker, buried = owner(endpoints, *runs, unreadable, run("good"))
    for offset, one in enumerate((*runs, unreadable, run("good"))):
        worker._contexts.watch_models(one)
        worker._take(record(one.run_id, offset))
    taken = [task.batch.run_id for task in worker._backlog]
    assert taken == [*(one.run_id for one in runs), "good"]
    (letter,) = buried.details
    assert letter.startswith(f"{len(runs)} not_parsed: model_entry: price.prompt: ")


def test_a_heartbeat_says_which_runs_wait_for_a_quota_alone(endpoints: Endpoints) -> None:
    worker, _ = owner(endpoints)
    worker._calls = SimpleNamespace(limit=4)  # type: ignore[assignment]
    worker._topics = Topics()
    beats: list[Heartbeat] = []
    produce = SimpleNamespace(produce=lambda _, **sent: beats.append(Heartbeat.parse(sent["value"])))
    worker._producer = produce  # type: ignore[assignment]
    worker._contexts.watch_models(run())
    (server,) = endpoints.group(entry_of({"name": MODEL}, MODEL)).endpoints
    for error in (ServerAway("refused", reason=AwayReason.UNREACHABLE), QuotaExhausted("usage limit")):
        server.watch.blame(MODEL, error)
        worker._heartbeat(WorkerState.WAITING, str(error))
    assert [one.out_of_quota for one in beats] == [[], ["r"]]


@pytest.mark.usefixtures("endpoints")  # no watch runs by itself
@pytest.mark.promise(10)
def test_a_server_that_refuses_a_single_call_is_tried_again_after_a_while() -> None:
    bench = Bench()
    known = Endpoints(lambda _: [("", bench.server)], bench.clock, lambda: None, 5.0, None)
    group = known.group(ModelEntry.model_construct(name=MODEL))
    known.watch(group, MODEL)
    (one,) = group.endpoints
    one.watch._probe_due()
    lease = group.acquire(MODEL)
    assert lease is not None
    lease.failed(ServerAway("HTTP 503", reason=AwayReason.BUSY))
    assert "refuses even a single call" in (known.starved_reason() or "")
    # Who left because of it makes no call that could end it.
    bench.clock.now += STARVED_S
    assert known.starved_reason() is None
    again = group.acquire(MODEL)
    assert again is not None
    again.failed(ServerAway("HTTP 503", reason=AwayReason.BUSY))
    assert known.starved_reason() is not None
    bench.clock.now += 10
    last = group.acquire(MODEL)
    assert last is not None
    last.answered(1)
    assert known.starved_reason() is None


@pytest.mark.usefixtures("endpoints")
def test_what_nobody_foresaw_ends_no_watch_in_silence() -> None:
    bench = Bench()
    known = Endpoints(lambda _: [("", bench.server)], bench.clock, lambda: None, 5.0, None)
    group = known.group(ModelEntry.model_construct(name=MODEL))
    (one,) = group.endpoints
    bench.server.assert_model = lambda _: 1 / 0  # type: ignore[method-assign, assignment]
    one.watch.watch(MODEL)
    one.watch._probe_due()
    assert isinstance(known.broken, ZeroDivisionError)


@pytest.mark.usefixtures("endpoints")
def test_the_metrics_say_why_a_server_is_not_called_and_forget_models_that_nobody_wants() -> None:
    bench = Bench()
    known = Endpoints(lambda _: [("", bench.server)], bench.clock, lambda: None, 5.0, None)
    contexts = RunContexts(MODEL, known)
    contexts.watch_models(run())
    assert known.closed_causes(MODEL) == ["starting"]
    (one,) = known.group(entry_of({"name": MODEL}, MODEL)).endpoints
    one.watch._probe_due()
    assert known.closed_causes(MODEL) == [None]
    lease = ServerGroup([one]).acquire(MODEL)
    assert lease is not None
    lease.close_gate(QuotaExhausted("HTTP 429: usage limit"))
    assert known.closed_causes(MODEL) == ["quota"]
    other = run_record().model_copy(update={"run_id": "other"})
    job = {**other.job, "model": {**other.job.get("model", {}), "name": "other-model"}}
    contexts.watch_models(other.model_copy(update={"job": job}))
    assert contexts.wanted_models() == {MODEL, "other-model"}
    contexts.watch_models(other.model_copy(update={"job": job, "state": RunState.COMPLETED}))
    assert contexts.wanted_models() == {MODEL}
