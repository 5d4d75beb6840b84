"""The pool of threads that call the model. A slot that comes free takes the next task by itself."""

import queue
import threading

from prism.service.logs import get_logger
from prism_model_worker.answering import Answerer
from prism_model_worker.endpoints import Lease
from prism_model_worker.requests.asking import RequestAnswerer
from prism_model_worker.requests.task import RequestTask
from prism_model_worker.tasks import BatchTask, Group, RowOutcomes, TaskQueue

log = get_logger(__name__)

# A thread that waits for an answer costs little; beyond this it is Python that is full.
MOST_THREADS = 512


class Callers:
    """Threads between the task queue and the queue of finished tasks: as many as calls may run at once.

    settled: rows of tasks that go on which have their outcome, for those that wait for the same content.
    An error that nobody foresaw ends the process (`broken`), not in silence one thread.
    """

    def __init__(self, tasks: TaskQueue, answerer: Answerer, requests: RequestAnswerer | None = None) -> None:
        self.finished: queue.SimpleQueue[BatchTask] = queue.SimpleQueue()
        self.settled: queue.SimpleQueue[RowOutcomes] = queue.SimpleQueue()
        self.broken: BaseException | None = None
        self._tasks = tasks
        self._answerer = answerer
        self._requests = requests
        self._threads: list[threading.Thread] = []

    def grow_to(self, number: int) -> None:
        """Have at least so many threads, MOST_THREADS at most; they are never taken back."""
        while len(self._threads) < min(number, MOST_THREADS):
            thread = threading.Thread(target=self._run, name=f"caller-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        try:
            while (taken := self._tasks.take()) is not None:
                task, lease = taken
                if isinstance(task, RequestTask):
                    self._ask(task, lease)
                else:
                    self._work(task, lease)
        except BaseException as error:
            self.broken = error
            log.error("caller_broken", error=error)

    def _ask(self, task: RequestTask, lease: Lease | None) -> None:
        assert self._requests is not None, "a request without a lane"
        delay_s = self._requests.step(task, lease)
        if not task.done:
            self._tasks.put(task, delay_s)
            return
        self._tasks.finished(task)
        task.on_done(task)

    def _work(self, task: BatchTask, lease: Lease | None) -> None:
        delay_s, refused = 0.0, False
        # Straight on while nothing has to be waited for, and nobody who goes before waits for this permit.
        while not task.done:
            if task.context.record.state.ended or task.cancelled:
                task.cancel()
            elif lease is None:
                break
            else:
                group = task.pending[0]
                delay_s = self._answerer.step(task, lease)
                refused = bool(task.pending) and task.pending[0] is group
                if not task.done:  # what is finished is settled as a whole
                    self._settle(task, group)
                stops = delay_s or refused or task.done or self._tasks.requests_wait()
                lease = None if stops else task.servers.acquire(task.model)
        if lease is not None:
            lease.unused()
        if task.done:
            self._tasks.finished(task)
            self.finished.put(task)
        elif delay_s or refused:
            # To the end: others may be answered where it was not.
            self._tasks.put(task, delay_s)
        else:
            self._tasks.put_back(task)

    def _settle(self, task: BatchTask, group: Group) -> None:
        """Hand over what a step has answered: others may wait for it, and the task may take long."""
        rows = RowOutcomes.of(task, group.indices)
        if rows.outcomes:
            self.settled.put(rows)
