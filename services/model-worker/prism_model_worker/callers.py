"""The pool of threads that call the model. A slot that comes free takes the next task by itself."""

import queue
import threading

from prism.service.logs import get_logger
from prism_model_worker.answering import Answerer
from prism_model_worker.tasks import BatchTask, TaskQueue

log = get_logger(__name__)


class Callers:
    """`limit` threads between the task queue and the queue of finished tasks.

    An error that nobody foresaw ends the process (`broken`), not in silence one thread.
    """

    def __init__(self, limit: int, tasks: TaskQueue, answerer: Answerer) -> None:
        self.finished: queue.SimpleQueue[BatchTask] = queue.SimpleQueue()
        self.broken: BaseException | None = None
        self._tasks = tasks
        self._answerer = answerer
        self._threads = [
            threading.Thread(target=self._run, name=f"caller-{number}", daemon=True)
            for number in range(limit)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        try:
            while (task := self._tasks.take()) is not None:
                self._work(task)
        except BaseException as error:
            self.broken = error
            log.error("caller_broken", error=error)

    def _work(self, task: BatchTask) -> None:
        if task.context.record.state.ended or task.cancelled:
            task.cancel()
        delay_s = 0.0
        # Straight on while nothing has to be waited for: a halved batch keeps its slot.
        while not task.done and delay_s == 0.0:
            before = task.pending[0]
            delay_s = self._answerer.step(task)
            if task.pending and task.pending[0] is before:
                break  # put back as it was: the gate is closed
        if task.done:
            self._tasks.finished(task)
            self.finished.put(task)
        else:
            self._tasks.put(task, delay_s)
