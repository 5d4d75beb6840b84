"""A run and its retries: which of them did what to one output, in their order.

A retry (`prism retry`) is a run of its own whose source is the failed rows of the one before it. Its output
is the first run's, completed: the parts of the whole family, one behind the other, are what it is made of.
Where several models did a file, each model's rows have such a line of descent of their own, and the output is
what they come to side by side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prism.messages import RunState
from prism_merger.accounts import FileAccount, OutputMark, RunAccount
from prism_merger.completion import Parts, completed
from prism_merger.joining import Line, Shape, join
from prism_merger.ledger import Ledger
from prism_merger.places import Places
from prism_merger.plans import RunPlan, Unit

_DONE = (RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES)


@dataclass(frozen=True, slots=True)
class Branch:
    """One file of a run and of the retries that followed, the newest last.

    A retry without rows only publishes what was withheld.
    """

    members: tuple[tuple[RunAccount, FileAccount], ...]
    places: Places
    delimiter: str
    header: bytes

    @property
    def rows(self) -> int:
        """Rows of the whole file."""
        _, first = self.members[0]
        return first.ok + first.rows_failed

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the whole file in the input's order. Raises Mismatch, OSError."""
        asked = [(run, file) for run, file in self.members if file.ok + file.rows_failed]
        if not asked:
            return iter(())
        first, *retries = (self._parts(run.run_id, file).lines() for run, file in asked)
        return completed(first, retries)

    def _parts(self, run_id: str, file: FileAccount) -> Parts:
        numbers = range(1, file.parts + 1)
        paths = [self.places.part(run_id, file.label, number) for number in numbers]
        return Parts(paths, self.delimiter, self.header)


@dataclass(frozen=True, slots=True)
class Family:
    """What an output of a run and its retries is made of. `plan`, `unit`: the first run's.

    `before`: the first run and its earlier retries, in their order. `shape`: of several models' rows.
    """

    plan: RunPlan
    unit: Unit
    branches: tuple[Branch, ...]
    before: tuple[RunAccount, ...]
    shape: Shape | None

    @property
    def rows(self) -> int:
        """Rows of the whole output."""
        return self.branches[0].rows

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the whole output in the input's order. Raises Mismatch, OSError."""
        if self.shape is None:
            return self.branches[0].lines()
        streams = [enumerate(line.content for line in one.lines()) for one in self.branches]
        return join(self.shape, streams)

    def replaced(self, form: str) -> OutputMark | None:
        """Return the mark of the output as it was published before; None if it was withheld."""
        labels = [one.label for one in self.unit.files]
        marks = [
            run.files[label].outputs.get(form)
            for run in reversed(self.before)
            for label in labels
            if label in run.files
        ]
        return next((mark for mark in marks if mark is not None and self.is_whole(mark)), None)

    def is_whole(self, mark: OutputMark) -> bool:
        """Return whether this is the whole output, and not a retry's rows alone."""
        return mark.named and mark.rows == self.rows


def family_of(ledger: Ledger, places: Places, run: RunAccount, unit: Unit) -> Family | None:
    """Return the family whose output a retry completes; None for a run that is no retry, or alone."""
    plan = ledger.plan(run.run_id)
    parent = plan.record.parent
    if not parent or _is_retry(ledger, parent) or ledger.find(parent) is None:
        return None
    owner = ledger.plan(parent)
    if unit.lead not in plan.renderers or owner.record.file(unit.lead) is None:
        return None
    before = [one for one in map(ledger.find, _before(ledger, parent, run.run_id)) if one is not None]
    whole = owner.unit(unit.lead)
    branches = [_branch(one.label, [*before, run], owner, places) for one in whole.files]
    if any(one is None or one.members[0][0].run_id != parent for one in branches):
        return None
    shape = owner.shape(whole, "") if whole.is_joined else None
    return Family(owner, whole, tuple(one for one in branches if one), tuple(before), shape)


def _branch(label: str, runs: Sequence[RunAccount], owner: RunPlan, places: Places) -> Branch | None:
    members = tuple((one, one.files[label]) for one in runs if label in one.files)
    renderer = owner.renderers.get(label)
    if not members or renderer is None:
        return None
    return Branch(members, places, owner.file(label).delimiter, renderer.header)


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
