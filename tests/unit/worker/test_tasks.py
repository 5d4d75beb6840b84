"""Tasks that wait for their time or their server, and who takes which."""

import threading
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.kafka.records import Record
from prism.messages import BatchRow, RunState
from prism.modelserver.errors import AwayReason, ServerAway
from prism_model_worker.callers import Callers
from prism_model_worker.endpoints import Endpoint, ServerGroup
from prism_model_worker.requests.task import RequestTask
from prism_model_worker.tasks import DOUBT_S, STANDSTILL_S, BatchTask, Group, Lane, Task, TaskQueue
from tests.unit.worker.requests.samples import request, text_body
from tests.unit.worker.world import (
    MODEL,
    SERVERS,
    Bench,
    Clock,
    ScriptedServer,
    Servers,
    batch,
    context,
    task,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def tasks(clock: Clock) -> TaskQueue:
    return TaskQueue(clock)


def next_of(tasks: TaskQueue) -> Task | None:
    found, _ = tasks._next()
    return found[0] if found else None


def taken(tasks: TaskQueue) -> Task | None:
    found = tasks.take()
    return found[0] if found else None


def request_task() -> RequestTask:
    record = Record("requests", 0, 0, "", b"", 0, cast(Any, None))
    return RequestTask(record, request(text_body()), 1, MODEL, SERVERS, 4096, 0.0, lambda _: None)


def await_true(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def test_groups_are_halved() -> None:
    assert [half.indices for half in Group((1, 2, 3)).halves()] == [(1, 2), (3,)]


def test_a_task_of_rejected_rows_only_is_done() -> None:
    work = task([BatchRow(row_id="a", cells=[], rejected="nul_character")])
    assert work.done
    assert work.open_rows() == []
    assert task(0).done


def test_cancelling_ends_the_open_rows() -> None:
    work = task(
        [BatchRow(row_id="a", cells=[], rejected="nul_character"), BatchRow(row_id="b", cells=["b", "x"])]
    )
    work.cancel()
    assert work.done
    assert [getattr(work.outcomes[index], "reason", "ok") for index in (0, 1)] == [
        "nul_character",
        "cancelled",
    ]


def test_first_come_first_served(tasks: TaskQueue) -> None:
    one, two = task(), task()
    tasks.put(one)
    tasks.put(two)
    assert tasks.ready() == 2
    assert taken(tasks) is one
    assert tasks.working() == [one]
    assert taken(tasks) is two
    tasks.finished(one)
    assert tasks.working() == [two]


def test_a_delayed_task_waits_for_its_time(tasks: TaskQueue, clock: Clock) -> None:
    late, now = task(), task()
    tasks.put(late, 5.0)
    tasks.put(now)
    assert (tasks.ready(), tasks.waiting()) == (1, 2)
    assert taken(tasks) is now
    assert tasks._next() == (None, 5.0)
    clock.now += 5
    assert tasks.ready() == 1
    assert taken(tasks) is late


def test_a_task_whose_pause_is_over_goes_before_those_that_came_meanwhile(
    tasks: TaskQueue, clock: Clock
) -> None:
    before, paused, after = task(), task(), task()
    tasks.put(paused, 5.0)
    clock.now += 4
    tasks.put(before)
    clock.now += 2
    tasks.put(after)
    assert [taken(tasks) for _ in range(3)] == [before, paused, after]


def test_what_is_begun_and_put_back_goes_before_what_is_not(tasks: TaskQueue, clock: Clock) -> None:
    begun, other = task(), task()
    tasks.put(begun)
    assert taken(tasks) is begun
    clock.now += 1
    tasks.put(other)
    clock.now += 1
    tasks.put_back(begun)
    assert tasks.working() == []
    assert taken(tasks) is begun
    clock.now += 1
    tasks.put(begun)  # without its place it stands at the end
    assert [taken(tasks), taken(tasks)] == [other, begun]


def test_requests_go_before_batches_that_came_first(tasks: TaskQueue, clock: Clock) -> None:
    batches, asked = task(), request_task()
    tasks.put(batches)
    assert not tasks.requests_wait()
    clock.now += 1
    tasks.put(asked)
    assert tasks.requests_wait()
    assert [taken(tasks), taken(tasks)] == [asked, batches]
    assert not tasks.requests_wait()


def test_a_queue_that_is_kept_for_a_request_has_one_to_wait_for(tasks: TaskQueue) -> None:
    work = task()
    tasks.put(work)
    assert taken(tasks) is work
    assert not tasks.reserve(Lane.REQUESTS)
    assert tasks.requests_wait()
    tasks.put_back(work)
    assert tasks.reserve(Lane.REQUESTS)
    assert next_of(tasks) is None
    tasks.free(Lane.REQUESTS)
    assert not tasks.requests_wait()
    assert taken(tasks) is work


def test_a_closed_gate_holds_up_its_model_alone(tasks: TaskQueue, servers: Servers) -> None:
    other = task(of=context(name="other", servers=servers))
    blocked = task(of=context(servers=servers))
    servers.closed.add(MODEL)
    tasks.put(blocked)
    tasks.put(other)
    assert tasks.ready() == 1
    assert taken(tasks) is other
    assert next_of(tasks) is None
    servers.closed.clear()
    assert taken(tasks) is blocked


@given(
    put=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 0.0, 1.0, 3.0])), max_size=30),
    closed=st.sets(st.sampled_from("abc")),
    step=st.sampled_from([0.0, 0.4]),
)
def test_the_first_goes_first_of_those_that_may_be_worked_on(
    put: list[tuple[str, float]], closed: set[str], step: float
) -> None:
    """Whatever others wait for. `d` is a run that was cancelled, its server away."""
    clock, servers = Clock(), Servers()
    servers.closed = closed | {"d"}
    tasks = TaskQueue(clock)
    contexts = {name: context(name=name, servers=servers) for name in "abc"}
    contexts["d"] = context(RunState.CANCELLED, name="d", servers=servers)
    waiting: list[tuple[float, int, str, BatchTask]] = []
    for number, (name, delay_s) in enumerate(put):
        one = task(of=contexts[name], offset=number)
        waiting.append((clock.now + delay_s, number, name, one))
        tasks.put(one, delay_s)
        clock.now += step
    clock.now += 2
    able = [entry for entry in sorted(waiting, key=itemgetter(0, 1)) if entry[2] not in closed]
    assert tasks.ready() == sum(due <= clock.now and name != "d" for due, _, name, _ in able)
    assert taken_now(tasks) == [one.offset for due, _, _, one in able if due <= clock.now]
    clock.now += 10
    servers.closed = set()
    rest = {one.offset for due, _, _, one in waiting} - {one.offset for due, _, _, one in able}
    late = [entry for entry in able if entry[0] > clock.now - 10]
    assert set(taken_now(tasks)) == rest | {one.offset for _, _, _, one in late}
    assert tasks.waiting() == 0


def taken_now(tasks: TaskQueue) -> list[int]:
    """Take all that may be worked on now; return their offsets in the order they came."""
    found = []
    while (one := next_of(tasks)) is not None:
        assert isinstance(one, BatchTask)
        found.append(one.offset)
    return found


def test_a_cancelled_runs_task_needs_no_server(tasks: TaskQueue, servers: Servers) -> None:
    servers.closed.add(MODEL)
    cancelled = task(of=context(RunState.CANCELLED, servers=servers))
    tasks.put(cancelled)
    assert tasks.take() == (cancelled, None)


def test_a_full_server_holds_its_tasks_up_until_a_call_ends(tasks: TaskQueue, clock: Clock) -> None:
    full = ServerGroup([Endpoint("", ScriptedServer(clock), clock, lambda: None, 5.0, cap=1)])
    full.watch(MODEL)
    full.endpoints[0].watch._probe_due()
    one, two = task(of=context(servers=full)), task(of=context(servers=full))
    tasks.put(one)
    tasks.put(two)
    found = tasks.take()
    assert found is not None
    assert found[0] is one
    assert tasks._next() == (None, None)
    assert found[1] is not None
    found[1].answered(1)
    clock.now += 1
    assert taken(tasks) is two


def test_of_several_servers_the_one_with_most_room_is_asked(clock: Clock) -> None:
    endpoints = [Endpoint(url, ScriptedServer(clock), clock, lambda: None, 5.0, None) for url in "ab"]
    group = ServerGroup(endpoints)
    group.watch(MODEL)
    for one in endpoints:
        one.watch._probe_due()
    asked = []
    for _ in range(4):
        clock.now += 1  # the first permits are paced
        lease = group.acquire(MODEL)
        assert lease is not None
        asked.append(lease.endpoint.url)
    assert sorted(asked) == ["a", "a", "b", "b"]
    endpoints[0].watch.blame(MODEL, ServerAway("gone", reason=AwayReason.UNREACHABLE))
    clock.now += 1
    lease = group.acquire(MODEL)
    assert lease is not None
    assert lease.endpoint.url == "b"
    assert group.closed_reason(MODEL) is None
    endpoints[1].watch.blame(MODEL, ServerAway("lost", reason=AwayReason.UNREACHABLE))
    assert group.acquire(MODEL) is None
    assert group.closed_reason(MODEL) == "gone; lost"


def test_the_tasks_of_a_partition_are_discarded(tasks: TaskQueue) -> None:
    mine, other = task(), BatchTask.of(batch(1), context(), 7, 0, 1)
    tasks.put(mine)
    tasks.put(other, 3.0)
    assert tasks.discard(7) == 1
    assert tasks.discard(7) == 0
    assert tasks.recall() == [mine]
    assert tasks.waiting() == 0


def test_closing_lets_everybody_go(tasks: TaskQueue) -> None:
    taken: list[object] = []
    threads = [threading.Thread(target=lambda: taken.append(tasks.take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    tasks.close()
    for thread in threads:
        thread.join(5)
    assert taken == [None] * 3


def test_a_delayed_task_is_not_forgotten_by_who_knew_its_time() -> None:
    """A waits for T1's time, B waits behind A; A is given T2: now B must wait for T1's time."""
    tasks = TaskQueue(time.monotonic)
    taken: list[Task | None] = []
    waiters = tasks._condition._waiters  # type: ignore[attr-defined]
    one, two = task(), task()

    def take() -> None:
        found = tasks.take()
        taken.append(found[0] if found else None)

    threads = [threading.Thread(target=take, daemon=True) for _ in range(2)]
    threads[0].start()
    await_true(lambda: len(waiters) == 1, "A waits")
    tasks.put(one, 0.3)
    await_true(lambda: len(waiters) == 1 and tasks.waiting() == 1, "A waits for T1")
    threads[1].start()
    await_true(lambda: len(waiters) == 2, "B waits")
    tasks.put(two)
    await_true(lambda: len(taken) == 2, "both are taken")
    assert taken == [two, one]


def test_callers_work_until_all_is_answered() -> None:
    bench = Bench()
    tasks = TaskQueue(time.monotonic)
    callers = Callers(tasks, bench.answerer)
    callers.grow_to(3)
    works = [task(3, context(servers=bench.servers), number) for number in range(20)]
    for work in works:
        tasks.put(work)
    finished = {id(callers.finished.get(timeout=10)) for _ in works}
    assert finished == {id(work) for work in works}
    assert tasks.working() == []
    assert callers.broken is None
    tasks.close()


def test_a_cancelled_run_is_answered_without_a_call() -> None:
    bench = Bench()
    tasks = TaskQueue(time.monotonic)
    callers = Callers(tasks, bench.answerer)
    callers.grow_to(1)
    tasks.put(task(3, of=context(RunState.CANCELLED)))
    work = callers.finished.get(timeout=10)
    assert {getattr(one, "reason", "ok") for one in work.outcomes.values()} == {"cancelled"}
    assert bench.server.asked == []
    tasks.close()


@pytest.mark.promise(10)
def test_an_error_that_nobody_foresaw_ends_the_process_and_not_a_thread() -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("a bug")

    bench = Bench(broken)
    tasks = TaskQueue(time.monotonic)
    callers = Callers(tasks, bench.answerer)
    callers.grow_to(1)
    tasks.put(task(1, context(servers=bench.servers)))
    await_true(lambda: callers.broken is not None, "the caller says that it is broken")
    assert isinstance(callers.broken, RuntimeError)
    tasks.close()


@pytest.mark.promise(5)
@pytest.mark.promise(6)
def test_after_a_standstill_no_batch_is_begun_before_the_owner_knows_what_is_lost(
    tasks: TaskQueue, clock: Clock
) -> None:
    tasks.owner_turned()
    lost, kept, request = task(), task(), request_task()
    lost.partition = 1
    tasks.put(lost)
    tasks.put(kept)
    clock.now += STANDSTILL_S + 0.1
    assert next_of(tasks) is None, "a caller that wakes up first"
    tasks.put(request)
    assert next_of(tasks) is request, "nobody else may have begun a request"
    tasks.owner_turned()
    assert next_of(tasks) is None
    tasks.discard(1)
    clock.now += DOUBT_S
    tasks.owner_turned()
    assert next_of(tasks) is kept


def test_callers_that_waited_for_the_owner_go_on_by_themselves() -> None:
    tasks = TaskQueue(time.monotonic)
    tasks.owner_turned()
    tasks._turned_at = time.monotonic() - STANDSTILL_S - 1
    one = task()
    tasks.put(one)
    found: list[Task | None] = []
    thread = threading.Thread(target=lambda: found.append(taken(tasks)), daemon=True)
    thread.start()
    await_true(lambda: len(tasks._condition._waiters) == 1, "it waits")  # type: ignore[attr-defined]
    tasks.owner_turned()
    thread.join(DOUBT_S + 5)
    assert found == [one]


def test_a_caller_that_looks_at_the_clock_beside_the_owner_is_not_left_asleep() -> None:
    owner = threading.current_thread()
    now, found = [0.0], list[Task | None]()
    caller = threading.Thread(target=lambda: found.append(taken(waiting)), daemon=True)

    def clock() -> float:
        told = now[0]
        if threading.current_thread() is owner and told == STANDSTILL_S and not caller.is_alive():
            # The owner has looked, and is held up before it says so.
            now[0] += 0.1
            caller.start()
            caller.join(0.2)
        return told

    waiting = TaskQueue(clock)
    one = task()
    waiting.put(one)
    waiting.owner_turned()
    now[0] = STANDSTILL_S
    waiting.owner_turned()
    caller.join(2.0)
    assert found == [one]
