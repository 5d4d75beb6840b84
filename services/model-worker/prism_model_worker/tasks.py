"""Batches in hand: what is known of each row so far, and who may work on which next.

A task is owned by one thread at a time: the owner thread until it is put, a caller thread from `take`
to `put`, `put_back` or completion. Only `TaskQueue` is shared, under one lock.
"""

import heapq
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import cast

from prism.annotation import Answer, Problem
from prism.messages import Batch, RowReason
from prism.service import tracing
from prism_model_worker.contexts import RunContext
from prism_model_worker.endpoints import Lease, ServerGroup
from prism_model_worker.requests.task import RequestTask

# Less than the group's session (6 s): who was silent for so long may have lost its partitions.
STANDSTILL_S = 4.0
# librdkafka looks once a second whether its session has ended, and tells at the next poll.
DOUBT_S = 2.0


@dataclass(slots=True)
class Group:
    """Rows of one batch that go into one call."""

    indices: tuple[int, ...]
    tries: int = 0
    repair: tuple[str, str] | None = None
    blamed_at: float | None = None

    def halves(self) -> list["Group"]:
        """Return the two halves of a group of two rows or more."""
        middle = (len(self.indices) + 1) // 2
        return [Group(self.indices[:middle]), Group(self.indices[middle:])]


@dataclass(slots=True)
class BatchTask:
    """One batch, from its offset to its result."""

    batch: Batch
    context: RunContext
    partition: int
    offset: int
    epoch: int
    pending: deque[Group] = field(default_factory=deque)
    outcomes: dict[int, Answer | Problem] = field(default_factory=dict)
    calls: int = 0
    # Of these, about rows that the model had been asked about before.
    repeated_calls: int = 0
    asked: set[int] = field(default_factory=set)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    load_seconds: float = 0.0
    model_digest: str = ""
    repaired: bool = False
    # In a row, for want of room.
    refusals: int = 0
    cancelled: bool = False
    # What `sharing` knows of the rows: their contents, which are asked for here, and which elsewhere.
    keys: dict[int, bytes] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    reused: int = 0
    # Its place among the tasks that wait for a caller: the queue's own.
    turn: tuple[float, int] = (0.0, 0)
    # Bytes of its record.
    size: int = 0
    span: tracing.Span = tracing.OFF

    @classmethod
    def of(cls, batch: Batch, context: RunContext, partition: int, offset: int, epoch: int) -> "BatchTask":
        """Return a task whose open rows stand in one group; rejected rows have their outcome already."""
        task = cls(batch, context, partition, offset, epoch)
        asked = []
        for index, row in enumerate(batch.rows):
            if row.rejected is None:
                asked.append(index)
            else:
                # A newer ingestor may know a reason that this worker does not.
                reason = cast(RowReason, row.rejected)
                task.outcomes[index] = Problem(reason, "rejected before any model saw it")
        if context.prompt_file.image_column is not None:
            task.pending.extend(Group((index,)) for index in asked)  # a photo has a call of its own
        elif asked:
            task.pending.append(Group(tuple(asked)))
        return task

    @property
    def place(self) -> tuple[int, int, int]:
        """Partition, epoch and offset: what names it while it is held."""
        return self.partition, self.epoch, self.offset

    @property
    def servers(self) -> ServerGroup:
        """The servers of its run's model."""
        return self.context.servers

    @property
    def model(self) -> str:
        """Its run's model."""
        return self.context.model

    @property
    def needs_no_call(self) -> bool:
        """Whether its run has ended: a cancelled run's batches are answered without a call."""
        return self.context.record.state.ended

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask."""
        return not self.pending

    def open_rows(self) -> list[int]:
        """Return the rows without an outcome."""
        return [index for index in range(len(self.batch.rows)) if index not in self.outcomes]

    def only(self, index: int) -> None:
        """Narrow what is asked next to one row, whoever else asks for it."""
        self.pending = deque([Group((index,))])
        self.waiting.clear()

    def count_asked(self, group: Group) -> None:
        """Note that the model was asked about a group of rows."""
        self.repeated_calls += not self.asked.isdisjoint(group.indices)
        self.asked.update(group.indices)

    def cancel(self) -> None:
        """End every open row as cancelled, without a call."""
        self.cancelled = True
        self.pending.clear()
        self.waiting.clear()
        for index in self.open_rows():
            self.outcomes[index] = Problem(RowReason.CANCELLED, "the run was cancelled")


@dataclass(frozen=True, slots=True)
class RowOutcomes:
    """Rows of a task that goes on, which have their outcome: by what they show the model (`keys`)."""

    task: BatchTask
    outcomes: tuple[tuple[bytes, Answer | Problem], ...]

    @classmethod
    def of(cls, task: BatchTask, indices: Iterable[int]) -> "RowOutcomes":
        """Return those of some rows that have an outcome, and that others may wait for."""
        return cls(
            task,
            tuple(
                (task.keys[index], task.outcomes[index])
                for index in indices
                if index in task.outcomes and index in task.keys
            ),
        )


class Lane(StrEnum):
    """What a task belongs to."""

    BATCHES = "batches"
    REQUESTS = "requests"


Task = BatchTask | RequestTask
_Entry = tuple[float, int, Task]
# Heaps of tasks of which either each could be taken now or none: many may wait for one server that is away.
_Shelves = dict[int, list[_Entry]]


class TaskQueue:
    """Tasks that wait for a caller: some for their time, some for room at their model's server.

    Requests go before batches: somebody waits for them. Of either kind the one whose time came first goes
    first: nothing waits for ever behind those that come later. A task leaves with a lease: leave for one
    call. One of the waiting callers watches the clock for all: hundreds that wake up together would find
    one permit. `wake` must be called when a gate opens. A lane that looks for the task that kills its
    process reserves the queue: then nothing of the other lane is begun, and what dies, dies alone.

    A process that stood still (SIGSTOP, a machine that slept) has lost its partitions, and its callers may
    wake up before its owner thread has heard so. So no batch is begun while the owner has not turned for
    STANDSTILL_S, nor for DOUBT_S after that: in that time it is told what it has lost.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._order = itertools.count()
        self._shelves: dict[Lane, _Shelves] = {Lane.REQUESTS: {}, Lane.BATCHES: {}}
        self._working: dict[int, Task] = {}
        self._reserved: Lane | None = None
        self._alarm_at = math.inf
        self._turned_at: float | None = None
        self._in_doubt_until = -math.inf
        self._closed = False

    def put(self, task: Task, delay_s: float = 0.0) -> None:
        """Let a task be taken after a delay, and after those whose time comes before."""
        due = self._clock() + delay_s
        with self._condition:
            turn = due, next(self._order)
            if isinstance(task, BatchTask):
                task.turn = turn
            self._push(task, turn)

    def put_back(self, task: BatchTask) -> None:
        """Let a task that was taken be taken again, where it stood: what is begun goes before what is not."""
        with self._condition:
            self._push(task, task.turn)

    def _push(self, task: Task, turn: tuple[float, int]) -> None:
        self._working.pop(id(task), None)
        heapq.heappush(self._shelves[_lane(task)].setdefault(_shelf(task), []), (*turn, task))
        self._condition.notify()

    def requests_wait(self) -> bool:
        """Whether a request waits, or the queue is kept for one: a batch that is begun then stands back."""
        with self._condition:
            return bool(self._shelves[Lane.REQUESTS]) or self._reserved is Lane.REQUESTS

    def take(self) -> tuple[Task, Lease | None] | None:
        """Return the next task that may be worked on, waiting for one; None once the queue is closed.

        It comes with leave for one call, or with none when no call is needed any more.
        """
        with self._condition:
            while not self._closed:
                found, wait_s = self._next()
                if found is not None:
                    self._working[id(found[0])] = found[0]
                    if any(self._shelves.values()):
                        # There may be room for another, and the next one's time may be near.
                        self._condition.notify()
                    return found
                self._wait(wait_s)
            return None

    def _wait(self, wait_s: float | None) -> None:
        alarm_at = math.inf if wait_s is None else self._clock() + wait_s
        if alarm_at >= self._alarm_at:
            self._condition.wait()
            return
        self._alarm_at = alarm_at
        self._condition.wait(wait_s)
        if self._alarm_at == alarm_at:
            self._alarm_at = math.inf

    def _next(self) -> tuple[tuple[Task, Lease | None] | None, float | None]:
        """Return a task that may be worked on and its lease, or the seconds until there may be one."""
        full: set[tuple[int, str]] = set()
        waits: list[float] = []
        now = self._clock()
        for lane, shelves in self._shelves.items():
            if shelves and self._reserved in (None, lane) and self._is_sure(lane, now, waits):
                found = self._pick(shelves, now, full, waits)
                if found is not None:
                    return found, None
        return None, min(waits, default=None)

    def owner_turned(self) -> None:
        """Note that the owner thread is there: it goes through its partitions' news at each turn."""
        with self._condition:
            now = self._clock()  # not before: a caller that looked at it later would wait for news that came
            if self._turned_at is not None and now - self._turned_at > STANDSTILL_S:
                self._in_doubt_until = now + DOUBT_S
                self._condition.notify()  # somebody has to watch the clock
            self._turned_at = now

    def _is_sure(self, lane: Lane, now: float, waits: list[float]) -> bool:
        """Return whether a lane's tasks are known to be still ours."""
        if lane is Lane.REQUESTS or self._turned_at is None:
            return True
        if now < self._in_doubt_until:
            waits.append(self._in_doubt_until - now)
            return False
        return now - self._turned_at <= STANDSTILL_S

    def _pick(
        self, shelves: _Shelves, now: float, full: set[tuple[int, str]], waits: list[float]
    ) -> tuple[Task, Lease | None] | None:
        """Take the first task that may be worked on. full: rooms found to have none."""
        for heap in sorted(shelves.values(), key=itemgetter(0)):
            due, _, task = heap[0]
            if due > now:
                waits.append(due - now)
                break
            free = task.needs_no_call
            lease = None if free else self._lease(task, full, waits)
            if free or lease is not None:
                heapq.heappop(heap)
                if not heap:
                    del shelves[_shelf(task)]
                return task, lease
        return None

    @staticmethod
    def _lease(task: Task, full: set[tuple[int, str]], waits: list[float]) -> Lease | None:
        """Return leave for a call of a task, or note in how many seconds there may be room."""
        room = (id(task.servers), task.model)
        if room in full:
            return None
        urgent = _lane(task) is Lane.REQUESTS
        lease = task.servers.acquire(task.model, urgent)
        if lease is None:
            full.add(room)
            hint = task.servers.wait_hint_s(task.model, urgent)
            waits += [hint] if hint is not None else []
        return lease

    def reserve(self, lane: Lane) -> bool:
        """Let nothing of the other lane begin; return whether the queue is ours and nothing is worked on."""
        with self._condition:
            if self._reserved is None:
                self._reserved = lane
            return self._reserved is lane and not self._working

    def free(self, lane: Lane) -> None:
        """End a lane's reservation, if it has one."""
        if self._reserved is lane:
            with self._condition:
                self._reserved = None
                self._condition.notify_all()

    def finished(self, task: Task) -> None:
        """Note that a taken task needs no caller any more."""
        with self._condition:
            self._working.pop(id(task), None)

    def discard(self, partition: int) -> int:
        """Forget the waiting batches of a partition that was taken away; return how many."""
        return len(self._discard(Lane.BATCHES, partition))

    def discard_requests(self, partition: int) -> list[RequestTask]:
        """Forget the waiting requests of a partition that was taken away; return them."""
        return [task for task in self._discard(Lane.REQUESTS, partition) if isinstance(task, RequestTask)]

    def _discard(self, lane: Lane, partition: int) -> list[Task]:
        with self._condition:
            waiting = self._entries(lane)
            self._shelves[lane] = {}
            for entry in waiting:  # sorted, so that each shelf is a heap
                if entry[2].partition != partition:
                    self._shelves[lane].setdefault(_shelf(entry[2]), []).append(entry)
            return [entry[2] for entry in waiting if entry[2].partition == partition]

    def _entries(self, lane: Lane) -> list[_Entry]:
        """Return what waits, in its order."""
        entries = itertools.chain.from_iterable(self._shelves[lane].values())
        return sorted(entries, key=itemgetter(0, 1))

    def recall(self) -> list[BatchTask]:
        """Take back every waiting batch."""
        with self._condition:
            waiting = self._entries(Lane.BATCHES)
            self._shelves[Lane.BATCHES] = {}
            return [task for _, _, task in waiting if isinstance(task, BatchTask)]

    def wake(self) -> None:
        """Look again: a model's server came back."""
        with self._condition:
            self._condition.notify_all()

    def close(self) -> None:
        """Let every caller thread end."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def ready(self) -> int:
        """Return how many batches could be taken now, but for want of room."""
        with self._condition:
            now = self._clock()
            heads = ((heap[0][2], heap) for heap in self._shelves[Lane.BATCHES].values())
            callable_ = (heap for task, heap in heads if task.servers.may_call(task.model))
            return sum(due <= now for heap in callable_ for due, _, _ in heap)

    def waiting(self) -> int:
        """Return how many batches wait, for whatever reason."""
        with self._condition:
            return sum(map(len, self._shelves[Lane.BATCHES].values()))

    def working(self) -> list[BatchTask]:
        """Return the batches that caller threads have in hand."""
        with self._condition:
            return [task for task in self._working.values() if isinstance(task, BatchTask)]


def _lane(task: Task) -> Lane:
    return Lane.BATCHES if isinstance(task, BatchTask) else Lane.REQUESTS


def _shelf(task: Task) -> int:
    """Return what tells a task's shelf: its run's context; a request has one of its own, it may be late."""
    return id(task.context) if isinstance(task, BatchTask) else id(task)
