"""Who is asked next when a call ends, and what is told of a batch that goes on."""

import queue
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import pytest

from prism.annotation import Answer
from prism.kafka.records import Record
from prism.messages import BatchRow, RowReason, RunState
from prism.modelserver.errors import AwayReason, ModelServerError, RequestRefused, ServerAway
from prism.modelserver.server import ChatRequest
from prism_model_worker.callers import Callers
from prism_model_worker.requests.asking import RequestAnswerer
from prism_model_worker.requests.task import RequestTask
from prism_model_worker.sharing import SharedAnswers
from prism_model_worker.tasks import BatchTask, Group, TaskQueue
from tests.unit.worker.requests.samples import request, text_body
from tests.unit.worker.world import MODEL, Bench, Script, batch, context, reply


def request_task(bench: Bench) -> RequestTask:
    record = Record("requests", 0, 0, "", b"", 0, cast(Any, None))
    return RequestTask(
        record, request(text_body()), 1, MODEL, bench.servers, 4096, 0.0, on_done=lambda _: None
    )


def work_of(bench: Bench, *texts: str, sequence: int = 0, **model: str) -> BatchTask:
    """Return a batch whose rows are named `<sequence>-<n>`."""
    rows = [BatchRow(row_id=f"{sequence}-{n}", cells=[f"id{n}", text]) for n, text in enumerate(texts)]
    return BatchTask.of(
        batch(rows, sequence), context(RunState.RUNNING, bench.servers, **model), 0, sequence, 1
    )


def row_by_row(work: BatchTask) -> BatchTask:
    """Let each row be a call, as those with photos are."""
    work.pending = deque(Group((index,)) for index in work.pending[0].indices)
    return work


class House:
    """One caller thread, and the order in which the server was asked; a request is `REQUEST`."""

    def __init__(self, script: Script | None = None) -> None:
        self.asked: list[str] = []
        self.bench = Bench(self._script)
        self._instead = script
        self.tasks = TaskQueue(time.monotonic)
        self.callers = Callers(self.tasks, self.bench.answerer, _Requests(self.asked))

    def _script(self, row_ids: Sequence[str], call: ChatRequest) -> str | ModelServerError:
        self.asked.append("+".join(row_ids))
        return self._instead(row_ids, call) if self._instead is not None else reply(row_ids)

    def finish(self, *works: BatchTask) -> None:
        """Let the caller begin, and wait until these are finished."""
        self.callers.grow_to(1)
        left = {id(work) for work in works}
        while left:
            left.remove(id(self.callers.finished.get(timeout=10)))
        assert self.callers.broken is None
        self.tasks.close()


class _Requests(RequestAnswerer):
    def __init__(self, asked: list[str]) -> None:
        super().__init__(60.0)
        self._asked = asked

    def step(self, task: RequestTask, lease: object) -> float:  # noqa: ARG002
        self._asked.append("REQUEST")
        task.answer = "hello"
        return 0.0


def test_a_request_waits_for_one_call_of_a_batch_and_not_for_the_batch() -> None:
    def ask_too(row_ids: Sequence[str], _call: ChatRequest) -> str:
        if row_ids == ("0-1",):
            house.tasks.put(request_task(house.bench))
        return reply(row_ids)

    house = House(ask_too)
    begun, fresh = row_by_row(work_of(house.bench, *"abcd")), work_of(house.bench, "a", sequence=1)
    house.tasks.put(begun)
    house.tasks.put(fresh)
    house.finish(begun, fresh)
    # What is begun then goes on before what is not.
    assert house.asked == ["0-0", "0-1", "REQUEST", "0-2", "0-3", "1-0"]


def test_a_request_whose_server_is_away_holds_no_batch_up() -> None:
    house, elsewhere = House(), Bench()
    elsewhere.servers.closed.add(MODEL)
    begun, fresh = row_by_row(work_of(house.bench, *"abc")), work_of(house.bench, "a", sequence=1)
    house.tasks.put(request_task(elsewhere))
    house.tasks.put(begun)
    house.tasks.put(fresh)
    house.finish(begun, fresh)
    assert house.asked == ["0-0", "0-1", "0-2", "1-0"]


def test_what_a_server_has_no_room_for_goes_to_the_end() -> None:
    def busy_once(row_ids: Sequence[str], _call: ChatRequest) -> str | ModelServerError:
        busy = ServerAway("HTTP 503", reason=AwayReason.BUSY)
        return busy if house.asked == ["0-0"] else reply(row_ids)

    house = House(busy_once)
    refused, other = work_of(house.bench, "a"), work_of(house.bench, "a", sequence=1)
    house.tasks.put(refused)
    house.tasks.put(other)
    house.finish(refused, other)
    assert house.asked == ["0-0", "1-0", "0-0"]


def test_who_waits_for_a_row_does_not_wait_for_the_pauses_of_its_batch() -> None:
    house = House(lambda row_ids, _: RequestRefused("HTTP 400") if row_ids[-1] == "0-1" else reply(row_ids))
    shared = SharedAnswers()
    leader = work_of(house.bench, "hello", "bad", delay="300", retries="2")
    follower = work_of(house.bench, "hello", sequence=1)
    shared.admit(leader)
    shared.admit(follower)
    shared.park(follower)
    house.tasks.put(leader)
    house.callers.grow_to(1)
    rows = house.callers.settled.get(timeout=10)
    assert shared.settle_rows(rows) == [follower]
    shared.admit(follower)
    assert (follower.reused, follower.pending) == (1, deque())
    assert isinstance(follower.outcomes[0], Answer)
    assert house.callers.finished.empty()
    house.tasks.close()


def test_a_row_that_has_failed_is_told_too_and_what_is_finished_is_not_told_twice() -> None:
    house = House(lambda row_ids, _: RequestRefused("HTTP 400") if "0-0" in row_ids else reply(row_ids))
    work = row_by_row(work_of(house.bench, "bad", "good", retries="1"))
    SharedAnswers().admit(work)
    house.tasks.put(work)
    house.finish(work)
    rows = house.callers.settled.get_nowait()
    assert [getattr(one, "reason", "ok") for _, one in rows.outcomes] == [RowReason.MODEL_REFUSED]
    with pytest.raises(queue.Empty):
        house.callers.settled.get_nowait()


def test_nothing_is_told_of_a_batch_that_shares_nothing() -> None:
    house = House()
    work = row_by_row(work_of(house.bench, *"abc"))
    house.tasks.put(work)
    house.finish(work)
    assert house.callers.settled.empty()
