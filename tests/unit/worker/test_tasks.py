"""Tasks that wait for their time or their server, and who takes which."""

import threading
import time
from collections.abc import Callable

import pytest

from prism.messages import BatchRow, RunState
from prism_model_worker.callers import Callers
from prism_model_worker.tasks import BatchTask, Group, TaskQueue
from tests.unit.worker.world import MODEL, Bench, Clock, batch, context, task


class Gates:
    def __init__(self) -> None:
        self.closed: set[str] = set()

    def __call__(self, model: str) -> bool:
        return model not in self.closed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
def tasks(clock: Clock, gates: Gates) -> TaskQueue:
    return TaskQueue(clock, gates)


def next_of(tasks: TaskQueue) -> BatchTask | None:
    return tasks._next()[0]


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
    assert tasks.take() is one
    assert tasks.working() == [one]
    assert tasks.take() is two
    tasks.finished(one)
    assert tasks.working() == [two]


def test_a_delayed_task_waits_for_its_time(tasks: TaskQueue, clock: Clock) -> None:
    late, now = task(), task()
    tasks.put(late, 5.0)
    tasks.put(now)
    assert (tasks.ready(), tasks.waiting()) == (1, 2)
    assert tasks.take() is now
    assert tasks._next() == (None, 5.0)
    clock.now += 5
    assert tasks.ready() == 1
    assert tasks.take() is late


def test_a_closed_gate_holds_up_its_model_alone(tasks: TaskQueue, gates: Gates) -> None:
    other = task(of=context(name="other"))
    blocked = task()
    gates.closed.add(MODEL)
    tasks.put(blocked)
    tasks.put(other)
    assert tasks.ready() == 1
    assert tasks.take() is other
    assert next_of(tasks) is None
    gates.closed.clear()
    assert tasks.take() is blocked


def test_a_cancelled_runs_task_needs_no_server(tasks: TaskQueue, gates: Gates) -> None:
    gates.closed.add(MODEL)
    cancelled = task(of=context(RunState.CANCELLED))
    tasks.put(cancelled)
    assert tasks.take() is cancelled


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
    tasks = TaskQueue(time.monotonic, lambda _: True)
    taken: list[BatchTask | None] = []
    waiters = tasks._condition._waiters  # type: ignore[attr-defined]
    one, two = task(), task()

    def take() -> None:
        taken.append(tasks.take())

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
    tasks = TaskQueue(time.monotonic, bench.watch.may_call)
    callers = Callers(3, tasks, bench.answerer)
    callers.start()
    works = [task(3, offset=number) for number in range(20)]
    for work in works:
        tasks.put(work)
    finished = {id(callers.finished.get(timeout=10)) for _ in works}
    assert finished == {id(work) for work in works}
    assert tasks.working() == []
    assert callers.broken is None
    tasks.close()


def test_a_cancelled_run_is_answered_without_a_call() -> None:
    bench = Bench()
    tasks = TaskQueue(time.monotonic, bench.watch.may_call)
    callers = Callers(1, tasks, bench.answerer)
    callers.start()
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
    tasks = TaskQueue(time.monotonic, bench.watch.may_call)
    callers = Callers(1, tasks, bench.answerer)
    callers.start()
    tasks.put(task(1))
    await_true(lambda: callers.broken is not None, "the caller says that it is broken")
    assert isinstance(callers.broken, RuntimeError)
    tasks.close()
