"""The batch that is worked on alone, and those that are set aside: what `careful.py` argues, in the process.

Only the owner thread comes here. What is asked next is named in a commit that is durable before it reaches
the queue; a name whose commit was refused is given again at the next turn.
"""

from collections.abc import Callable

from prism.service.logs import get_logger
from prism_model_worker.careful import CarefulWork
from prism_model_worker.holdings import Holding
from prism_model_worker.membership import Membership
from prism_model_worker.tasks import BatchTask, TaskQueue

log = get_logger(__name__)

# What is worked on alone, and has had no server for so long, lets the others go on.
SET_ASIDE_S = 5.0


class Quarantine:
    """At most one batch that is asked alone.

    `recall` takes back what waits in the queue, and returns it; `done` is given a batch that is asked whole.
    """

    def __init__(
        self,
        membership: Membership,
        tasks: TaskQueue,
        recall: Callable[[], list[BatchTask]],
        done: Callable[[BatchTask], None],
        clock: Callable[[], float],
    ) -> None:
        self._membership = membership
        self._tasks = tasks
        self._recall = recall
        self._done = done
        self._clock = clock
        self._work: CarefulWork | None = None
        self._unnamed = False
        # Work whose model's servers went away in the middle.
        self._aside: dict[tuple[int, int, int], CarefulWork] = {}
        self._aside_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a batch is worked on alone now."""
        return self._work is not None

    def holds(self, task: BatchTask) -> bool:
        """Return whether it is this batch that is worked on alone."""
        return self._work is not None and self._work.task is task

    def is_careful(self, task: BatchTask) -> bool:
        """Return whether a batch lies in a partition that was lost uncleanly too often."""
        held = self._held(task)
        return held is not None and held.careful

    def is_suspect(self, task: BatchTask) -> bool:
        """Return whether a batch is to be worked on alone, and can be: a server of its model is up."""
        if not self.is_careful(task) or not (task.needs_no_call or task.servers.may_call(task.model)):
            return False
        # A partition has one name to remember: that of the one that was set aside.
        aside = [place for place in self._aside if place[0] == task.partition]
        return not aside or task.place in aside

    def mind(self) -> None:
        """Name what could not be named before; let the others go on while the work has no server."""
        if self._work is not None and self._unnamed:
            self._name_and_ask(self._work)
        work = self._work
        if work is None or self._unnamed or self.is_suspect(work.task):
            self._aside_at = self._clock() + SET_ASIDE_S
        elif self._clock() >= self._aside_at and work.task in self._recall():
            log.warning("suspect_set_aside", batch_id=work.task.batch.id)
            self._aside[work.task.place] = work  # it stays named
            self._work = None

    def resume(self, task: BatchTask, held: Holding) -> bool:
        """Go on with a batch that was set aside; return whether it was."""
        known = self._aside.pop(task.place, None)
        if known is None:
            return False
        self._work = known
        held.suspect(known.named)
        self._name_and_ask(known)
        return True

    def begin(self, task: BatchTask, held: Holding) -> None:
        """Begin with a batch."""
        self._work = CarefulWork.begin(task, held)
        log.warning("working_alone", batch_id=task.batch.id, row_by_row=self._work.known is not None)
        self.go_on()

    def go_on(self) -> None:
        """Name what is asked next, wait until that is durable, and only then let it be asked."""
        assert self._work is not None
        work, held = self._work, self._held(self._work.task)
        suspect = work.next_suspect()
        if held is None:
            self._work = None
        elif suspect is None:
            self._work = None
            self._done(work.task)
        else:
            held.suspect(suspect)
            self._name_and_ask(work)

    def lose(self, partitions: list[int]) -> None:
        """Forget what lies in partitions that have gone."""
        if self._work is not None and self._work.task.partition in partitions:
            self._work = None
        for place in [place for place in self._aside if place[0] in partitions]:
            del self._aside[place]

    def _name_and_ask(self, work: CarefulWork) -> None:
        """Commit the suspect's name and put its task; again at the next turn if the commit was refused."""
        held = self._held(work.task)
        if held is None:
            self._work = None  # the partition has moved on, and its new owner knows
        self._unnamed = held is not None and not self._membership.commit_now(held)
        if held is not None and not self._unnamed:
            self._tasks.put(work.task)

    def _held(self, task: BatchTask) -> Holding | None:
        return self._membership.holdings.get(task.partition, task.epoch)
