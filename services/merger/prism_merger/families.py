"""A run and its retries: which of them did what to one output, in their order.

A retry (`prism retry`) is a run of its own whose source is the failed rows of the one before it. Its output
is the first run's, completed: the parts of the whole family, one behind the other, are what it is made of.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from prism.messages import RunState
from prism_merger.accounts import FileAccount, OutputMark, RunAccount
from prism_merger.completion import Line, Parts, completed
from prism_merger.ledger import Ledger
from prism_merger.places import Places

_DONE = (RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES)


@dataclass(frozen=True, slots=True)
class Family:
    """One file of a run and of the retries that followed, the newest last; the last is being published.

    A retry without rows only publishes what was withheld.
    """

    members: tuple[tuple[RunAccount, FileAccount], ...]
    places: Places
    delimiter: str
    header: bytes

    @property
    def rows(self) -> int:
        """Rows of the whole output."""
        _, first = self.members[0]
        return first.ok + first.rows_failed

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the whole output in the input's order. Raises Mismatch, OSError."""
        asked = [(run, file) for run, file in self.members if file.ok + file.rows_failed]
        if not asked:
            return iter(())
        first, *retries = (self._parts(run.run_id, file).lines() for run, file in asked)
        return completed(first, retries)

    def replaced(self, form: str) -> OutputMark | None:
        """Return the mark of the output as it was published before; None if it was withheld."""
        marks = [file.outputs.get(form) for _, file in self.members[:-1]]
        return next((mark for mark in reversed(marks) if mark is not None and self.is_whole(mark)), None)

    def is_whole(self, mark: OutputMark) -> bool:
        """Return whether this is the whole output, and not a retry's rows alone."""
        return mark.named and mark.rows == self.rows

    def _parts(self, run_id: str, file: FileAccount) -> Parts:
        numbers = range(1, file.parts + 1)
        paths = [self.places.part(run_id, file.label, number) for number in numbers]
        return Parts(paths, self.delimiter, self.header)


def family_of(ledger: Ledger, places: Places, run: RunAccount, file: FileAccount) -> Family | None:
    """Return the family whose output a retry completes; None for a run that is no retry, or alone."""
    plan = ledger.plan(run.run_id)
    if not plan.record.parent or _is_retry(ledger, plan.record.parent):
        return None
    members = [
        (one, one.files[file.label])
        for one in (ledger.find(run_id) for run_id in _before(ledger, plan.record.parent, run.run_id))
        if one is not None and file.label in one.files
    ]
    renderer = plan.renderers.get(file.label)
    if not members or members[0][0].run_id != plan.record.parent or renderer is None:
        return None
    return Family((*members, (run, file)), places, plan.file(file.label).delimiter, renderer.header)


def _is_retry(ledger: Ledger, run_id: str) -> bool:
    """Return whether a run has a parent: its rows are some of an output's, and must never replace it."""
    record = ledger.record(run_id)
    return record is not None and bool(record.parent)


def _before(ledger: Ledger, parent: str, run_id: str) -> list[str]:
    """Return the parent and those of its retries that were done before this one, in their order."""
    done = [
        one
        for one in ledger.records()
        if one.parent == parent and one.run_id != run_id and one.state in _DONE and one.rows
    ]
    return [parent, *(one.run_id for one in sorted(done, key=lambda one: one.created_at))]
