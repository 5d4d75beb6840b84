"""Finding the row that kills its process.

Argument. A process that dies says nothing, so what it is about to do is committed before it does it.
In a partition that was lost uncleanly twice without progress one batch is worked on at a time, alone in
the process, and named in the commit's metadata first. Found named by the next owner, it has died alone:
then its rows are asked one by one, each named first. A row that dies alone three times is the poison and
fails as such; the other rows are answered. A process that is killed from outside while it works alone
costs its batch some calls, never a row.
"""

from dataclasses import dataclass, field

from prism.annotation import Problem
from prism.kafka.commit_note import Suspect
from prism.messages import RowReason
from prism_model_worker.holdings import Holding
from prism_model_worker.tasks import BatchTask

DEATHS_OF_A_ROW = 3


@dataclass(slots=True)
class CarefulWork:
    """One batch worked on alone: whole first; row by row once it has died alone."""

    task: BatchTask
    known: Suspect | None = None
    rows: list[int] = field(default_factory=list)
    poisoned: tuple[int, ...] = ()
    # What was named last.
    named: Suspect | None = None

    @classmethod
    def begin(cls, task: BatchTask, holding: Holding) -> "CarefulWork":
        """Return the work on a task, as far as earlier owners got to know its batch."""
        known = holding.note.suspect
        if known is None or known.offset != task.offset:
            return cls(task)
        poisoned = known.poisoned
        if known.row is not None and known.deaths >= DEATHS_OF_A_ROW:
            poisoned = (*poisoned, known.row)
        for row in poisoned:
            task.outcomes[row] = Problem(RowReason.POISON, f"its worker died {DEATHS_OF_A_ROW} times on it")
        # The one that was named last goes first: the others are not paid for again until it is judged.
        rows = sorted(task.open_rows(), key=lambda row: row != known.row)
        return cls(task, known, rows, poisoned)

    def next_suspect(self) -> Suspect | None:
        """Narrow the task to what is asked next and return what to name first; None when all is asked."""
        self.named = self._next()
        return self.named

    def _next(self) -> Suspect | None:
        if self.known is None:
            return None if self.task.done else Suspect(self.task.offset)
        if not self.rows:
            self.task.pending.clear()
            return None
        row = self.rows.pop(0)
        self.task.only(row)
        deaths = self.known.deaths if self.known.row == row else 0
        return Suspect(self.task.offset, row, deaths, self.poisoned)
