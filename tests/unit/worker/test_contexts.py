"""Each of a run's models has a context of its own, with its own servers."""

from typing import Any

import pytest

from prism.messages import Batch, BatchRow, RunRecord, RunState
from prism.modelserver.errors import AwayReason, QuotaExhausted, ServerAway
from prism_model_worker.contexts import RunContexts
from prism_model_worker.endpoints import Endpoints
from prism_model_worker.sharing import _key
from prism_model_worker.tasks import BatchTask
from tests.unit.worker.test_endpoints import endpoints as endpoints  # a fixture
from tests.unit.worker.test_endpoints import run
from tests.unit.worker.world import MODEL, batch, run_record


def several(mode: str, **entries: dict[str, Any]) -> RunRecord:
    record = run_record()
    files = record.files
    if mode == "fanout":
        files = [
            files[0].model_copy(update={"label": f"l.{name}", "origin": "l", "model": name})
            for name in entries
        ]
    job = {"model": {**record.job["model"], "names": list(entries), "mode": mode}}
    named = {name: {"name": name, **entry} for name, entry in entries.items()}
    return record.model_copy(update={"job": job, "files": files, "model_entries": named})


def asked(label: str, sequence: int = 0) -> Batch:
    return batch(2, sequence).model_copy(update={"label": label})


URLS = {"a": {"base_url": ["http://one:1"]}, "b": {"base_url": ["http://two:2"]}}


def test_a_batch_goes_to_the_model_of_its_variant(endpoints: Endpoints) -> None:
    contexts = RunContexts(MODEL, endpoints)
    record = several("fanout", **URLS)
    first, second = contexts.of(record, asked("l.a")), contexts.of(record, asked("l.b", 7))
    assert first is not None
    assert second is not None
    assert (first.model, second.model) == ("a", "b")
    assert [one.url for one in first.servers.endpoints] == ["http://one:1"]
    assert [one.url for one in second.servers.endpoints] == ["http://two:2"]
    assert contexts.of(record, asked("l.b", 8)) is second
    assert contexts.of(record, asked("l")) is None
    stranger = record.files[0].model_copy(update={"label": "l.c", "model": "c"})
    assert contexts.of(record.model_copy(update={"files": [stranger]}), asked("l.c")) is None


def test_batches_of_a_split_run_go_in_turns(endpoints: Endpoints) -> None:
    contexts = RunContexts(MODEL, endpoints)
    record = several("split", **URLS)
    found = [contexts.of(record, asked("l", sequence)) for sequence in range(4)]
    assert [one.model for one in found if one] == ["a", "b", "a", "b"]


def test_a_run_without_a_model_is_the_fleets_own(endpoints: Endpoints) -> None:
    contexts = RunContexts(MODEL, endpoints)
    found = contexts.of(run_record(), asked("l"))
    assert found is not None
    assert found.model == MODEL


def test_all_hear_of_an_end_and_are_forgotten_when_it_is_published(endpoints: Endpoints) -> None:
    contexts = RunContexts(MODEL, endpoints)
    record = several("fanout", **URLS)
    contexts.of(record, asked("l.a"))
    contexts.take_in(record.model_copy(update={"state": RunState.CANCELLED}))
    assert [one.record.state for one in contexts.all()] == [RunState.CANCELLED] * 2
    contexts.take_in(record.model_copy(update={"state": RunState.COMPLETED}))
    assert record.run_id not in contexts
    assert contexts.all() == []


@pytest.mark.promise(7)
def test_an_answer_is_never_shared_between_models(endpoints: Endpoints) -> None:
    contexts = RunContexts(MODEL, endpoints)
    record = several("fanout", **URLS)
    rows = [BatchRow(row_id="1", cells=["1", "the same text"])]
    tasks = []
    for label in ("l.a", "l.b"):
        asked_ = Batch(run_id="r", label=label, sequence=0, first_row=0, fed=1, rows=rows)
        context = contexts.of(record, asked_)
        assert context is not None
        tasks.append(BatchTask.of(asked_, context, 0, 0, 0))
    assert _key(tasks[0], 0) != _key(tasks[1], 0)


def test_a_run_is_out_of_quota_where_nothing_else_is_wrong_with_its_models(endpoints: Endpoints) -> None:
    contexts = RunContexts(MODEL, endpoints)
    one = run("one", **URLS["a"])
    contexts.watch_models(one)
    contexts.watch_models(several("split", **URLS).model_copy(update={"run_id": "two"}))
    gates = {place.url: place.watch for place in endpoints._known.values()}
    assert contexts.out_of_quota() == [], "nobody has been asked yet"
    for url, model in (("http://one:1", MODEL), ("http://one:1", "a"), ("http://two:2", "b")):
        gates[url]._opened(model, gates[url]._gates[model])
    assert contexts.out_of_quota() == []
    for model in (MODEL, "a"):
        gates["http://one:1"].blame(model, QuotaExhausted("enough for today"))
    assert contexts.out_of_quota() == ["one", "two"]
    gates["http://two:2"].blame("b", ServerAway("refused", reason=AwayReason.UNREACHABLE))
    assert contexts.out_of_quota() == ["one"]
    contexts.watch_models(one.model_copy(update={"state": RunState.CANCELLED}))
    assert contexts.out_of_quota() == []
