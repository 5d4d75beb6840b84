"""Batches in hand: what is known of each row so far, and who may work on which next.

A task is owned by one thread at a time: the owner thread until it is put, a caller thread from `take`
to `put` or completion. Only `TaskQueue` is shared, under one lock.
"""

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from prism.annotation import Answer, Problem
from prism.messages import Batch, RowReason
from prism_model_worker.contexts import RunContext


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
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = 0.0
    load_seconds: float = 0.0
    model_digest: str = ""
    repaired: bool = False
    cancelled: bool = False
    # What `sharing` knows of the rows: their contents, which are asked for here, and which elsewhere.
    keys: dict[int, bytes] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    reused: int = 0

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
        if asked:
            task.pending.append(Group(tuple(asked)))
        return task

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

    def cancel(self) -> None:
        """End every open row as cancelled, without a call."""
        self.cancelled = True
        self.pending.clear()
        self.waiting.clear()
        for index in self.open_rows():
            self.outcomes[index] = Problem(RowReason.CANCELLED, "the run was cancelled")


class TaskQueue:
    """Tasks that wait for a caller: some for their time, some for their model's server.

    `may_call(model)` says whether a model's server is up; `wake` must be called when that changes.
    """

    def __init__(self, clock: Callable[[], float], may_call: Callable[[str], bool]) -> None:
        self._clock = clock
        self._may_call = may_call
        self._condition = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, BatchTask]] = []
        self._working: dict[int, BatchTask] = {}
        self._closed = False

    def put(self, task: BatchTask, delay_s: float = 0.0) -> None:
        """Let a task be taken after a delay."""
        with self._condition:
            self._working.pop(id(task), None)
            heapq.heappush(self._heap, (self._clock() + delay_s if delay_s else 0.0, next(self._order), task))
            self._condition.notify()

    def take(self) -> BatchTask | None:
        """Return the next task that may be worked on, waiting for one; None once the queue is closed."""
        with self._condition:
            while not self._closed:
                task, wait_s = self._next()
                if task is not None:
                    self._working[id(task)] = task
                    if self._heap:
                        # Who waited for the next one's time may be the one that leaves now.
                        self._condition.notify()
                    return task
                self._condition.wait(wait_s)
            return None

    def _next(self) -> tuple[BatchTask | None, float | None]:
        blocked: list[tuple[float, int, BatchTask]] = []
        found: BatchTask | None = None
        wait_s: float | None = None
        while self._heap:
            entry = self._heap[0]
            remaining = entry[0] - self._clock() if entry[0] else 0.0
            if remaining > 0:
                wait_s = remaining
                break
            heapq.heappop(self._heap)
            # A cancelled run's batches are answered without a call.
            if entry[2].context.record.state.ended or self._may_call(entry[2].context.model):
                found = entry[2]
                break
            blocked.append(entry)
        for entry in blocked:
            heapq.heappush(self._heap, entry)
        return found, wait_s

    def finished(self, task: BatchTask) -> None:
        """Note that a taken task needs no caller any more."""
        with self._condition:
            self._working.pop(id(task), None)

    def discard(self, partition: int) -> int:
        """Forget the waiting tasks of a partition that was taken away; return how many."""
        with self._condition:
            kept = [entry for entry in self._heap if entry[2].partition != partition]
            gone = len(self._heap) - len(kept)
            heapq.heapify(kept)
            self._heap = kept
            return gone

    def recall(self) -> list[BatchTask]:
        """Take back every waiting task."""
        with self._condition:
            waiting = [entry[2] for entry in sorted(self._heap)]
            self._heap = []
            return waiting

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
        """Return how many tasks could be taken now."""
        with self._condition:
            now = self._clock()
            return sum(due <= now and self._may_call(task.context.model) for due, _, task in self._heap)

    def waiting(self) -> int:
        """Return how many tasks wait, for whatever reason."""
        with self._condition:
            return len(self._heap)

    def working(self) -> list[BatchTask]:
        """Return the tasks that caller threads have in hand."""
        with self._condition:
            return list(self._working.values())
