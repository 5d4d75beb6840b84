"""The slow steps of publishing (writing, hashing, fsync) beside the loop that merges.

Argument. A task is a generator that runs in the loop's thread, step by step; what it yields are jobs,
which one thread of the desk runs in order, reading merged rows over a connection of its own. So the store
has one writer, accounts belong to one thread, and a task reads top to bottom like the promise that it
keeps. `reset` forgets all tasks: what their jobs still answer is dropped, and since each step can be done
again, they are simply begun anew from what the store shows.
"""

import threading
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from typing import Any

from prism_merger.store import RowReader

Job = Callable[[RowReader], Any]


class Errand:
    """A job that waits for somebody else (a store far away): it has a thread of its own, so that no other
    run's publication waits with it. It reads no rows."""

    def __init__(self, step: Callable[[], Any]) -> None:
        self._step = step

    def __call__(self, rows: RowReader | None = None) -> Any:
        del rows
        return self._step()


Steps = Generator[Job, Any, None]

_CLOSE_S = 20.0


class Desk:
    """Runs one task per name; of the loop's thread, its own thread aside."""

    def __init__(self, open_reader: Callable[[], RowReader]) -> None:
        self._open_reader = open_reader
        self._orders: SimpleQueue[tuple[int, str, Job] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, str, Any, BaseException | None]] = SimpleQueue()
        self._tasks: dict[str, Steps] = {}
        self._ended: list[tuple[str, BaseException | None]] = []
        self._generation = 0
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    @property
    def busy(self) -> bool:
        """Whether a task is going on, or one's end was not told yet."""
        return bool(self._tasks or self._ended)

    def begin(self, name: str, steps: Steps) -> None:
        """Run a task up to its first job."""
        self._tasks[name] = steps
        self._advance(name, None, None)

    def turn(self) -> list[tuple[str, BaseException | None]]:
        """Go on with the tasks whose jobs are done; return those that have ended, with their errors."""
        while True:
            try:
                generation, name, value, error = self._answers.get_nowait()
            except Empty:
                ended, self._ended = self._ended, []
                return ended
            if generation == self._generation and name in self._tasks:
                self._advance(name, value, error)

    def reset(self) -> None:
        """Forget every task."""
        self._generation += 1
        self._ended = []
        for steps in self._tasks.values():
            steps.close()
        self._tasks.clear()

    def close(self) -> None:
        """Forget every task and end the thread after the job that it is at."""
        self.reset()
        self._orders.put(None)
        self._thread.join(_CLOSE_S)

    def _advance(self, name: str, value: Any, error: BaseException | None) -> None:
        steps = self._tasks[name]
        try:
            job = steps.throw(error) if error is not None else steps.send(value)
        except StopIteration:
            self._ended.append((name, None))
        except Exception as ended:
            self._ended.append((name, ended))
        else:
            if isinstance(job, Errand):
                run = (self._generation, name, job)
                threading.Thread(target=self._run_errand, args=run, name="errand", daemon=True).start()
            else:
                self._orders.put((self._generation, name, job))
            return
        del self._tasks[name]

    def _run_errand(self, generation: int, name: str, errand: Errand) -> None:
        try:
            self._answers.put((generation, name, errand(), None))
        except Exception as error:
            self._answers.put((generation, name, None, error))

    def _work(self) -> None:
        reader: RowReader | None = None
        while (order := self._orders.get()) is not None:
            generation, name, job = order
            if generation != self._generation:
                continue
            try:
                reader = reader or self._open_reader()
                self._answers.put((generation, name, job(reader), None))
            except Exception as error:
                self._answers.put((generation, name, None, error))
        if reader is not None:
            reader.close()


def run_through(steps: Steps, reader: RowReader) -> None:
    """Run a task to its end in this thread."""
    try:
        job = next(steps)
        while True:
            try:
                value = job(reader)
            except Exception as error:
                job = steps.throw(error)
            else:
                job = steps.send(value)
    except StopIteration:
        return
