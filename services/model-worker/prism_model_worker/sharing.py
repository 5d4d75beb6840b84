"""Rows of a run that say the same are asked once.

    batch ─► admit ─┬─► rows to ask (claimed)         ─► callers ─► settled ─► remembered
                    ├─► rows that say what has failed ─► callers too, each for itself (unclaimed)
                    ├─► rows known already            ─► their answer, without a call
                    └─► rows that another batch asks  ─► wait until they are settled

Argument. Within one run model, prompt and parameters are the same, so what a row shows the model decides
its answer. A content is remembered, or claimed by exactly one batch, or free. A batch asks what it could
claim; what others have claimed it waits for, and it is parked only when nothing of its own is left to ask,
so a parked batch holds no claim and two batches cannot wait for each other. A row is settled when it has
its outcome, though its batch may go on for long, and at the latest when its batch is finished or taken
away: then its claim ends, and those that wait are woken.

A failure is not known to be the content's, so each row that says the same is asked for itself. Were it
claimed again, they would be asked one after the other: a content that has failed is not claimed any more,
until it is answered after all.

Only the owner thread comes here, and only it changes a task's `keys` and claims. What callers learn of a
task that they still have in hand they give it by a queue (`RowOutcomes`); that may come when the task is
finished already, and then adds nothing but an answer.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from prism.annotation import Answer, Problem, PromptRow
from prism_model_worker.tasks import BatchTask, Group, RowOutcomes

# The price of a remembered row is some 400 bytes: a worker stays small however large the run is.
MOST_ROWS = 20_000
_KEY_BYTES = 16

Key = bytes


@dataclass(slots=True)
class _Claim:
    task: BatchTask
    waiting: list[BatchTask] = field(default_factory=list)


class SharedAnswers:
    """Answers that are remembered, and rows that are being asked.

    most: contents remembered as answered, and as many as failed; 0: nothing is shared.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._failed: OrderedDict[Key, None] = OrderedDict()
        self._claims: dict[Key, _Claim] = {}

    def admit(self, task: BatchTask) -> None:
        """Take out of a task's groups what need not be asked; again for one that has waited.

        Afterwards `task.pending` is what it has to ask, and `task.waiting` what others ask for it.
        """
        if not self._most or not task.context.job.dedupe:
            return
        if task.waiting:
            task.pending.append(Group(tuple(sorted(task.waiting))))
            task.waiting.clear()
        groups = [self._reduced(task, group) for group in task.pending]
        task.pending.clear()
        task.pending.extend(group for group in groups if group is not None)
        if task.span.recording:
            self._link(task)

    def _link(self, task: BatchTask) -> None:
        """Say in a task's span which others' calls answer rows of it."""
        askers = {id(one): one for index in task.waiting for one in [self._claims[task.keys[index]].task]}
        for one in askers.values():
            if one is not task:
                task.span.link(one.span)

    def park(self, task: BatchTask) -> None:
        """Keep a task that has nothing left but rows that others ask."""
        for key in {task.keys[index] for index in task.waiting}:
            self._claims[key].waiting.append(task)

    def settle(self, task: BatchTask) -> list[BatchTask]:
        """Remember what a task was answered and give up its claims; return the tasks that waited for it."""
        rows = [(key, index) for index, key in task.keys.items() if index not in task.waiting]
        return self._settled(task, ((key, task.outcomes.get(index)) for key, index in rows))

    def settle_rows(self, rows: RowOutcomes) -> list[BatchTask]:
        """Do the same for the rows of a task that goes on."""
        return self._settled(rows.task, rows.outcomes)

    def _settled(
        self, task: BatchTask, rows: Iterable[tuple[Key, Answer | Problem | None]]
    ) -> list[BatchTask]:
        woken: dict[int, BatchTask] = {}
        for key, outcome in rows:
            self._remember(key, outcome)
            claim = self._claims.get(key)
            # With an answer nobody need ask, whoever it was that asked.
            if claim is not None and (claim.task is task or isinstance(outcome, Answer)):
                del self._claims[key]
                woken.update((id(one), one) for one in claim.waiting)
        for one in woken.values():
            self._unpark(one)
        woken.pop(id(task), None)
        return list(woken.values())

    def abandon(self, task: BatchTask) -> list[BatchTask]:
        """Forget a task that was taken away; return the tasks that waited for it."""
        self._unpark(task)
        return self.settle(task)

    def _reduced(self, task: BatchTask, group: Group) -> Group | None:
        asked = tuple(index for index in group.indices if self._must_ask(task, index))
        if asked == group.indices:
            return group
        return Group(asked) if asked else None

    def _must_ask(self, task: BatchTask, index: int) -> bool:
        key = task.keys.get(index) or task.keys.setdefault(index, _key(task, index))
        known = self._answers.get(key)
        if known is not None:
            self._answers.move_to_end(key)
            task.outcomes[index] = known
            task.reused += 1
            return False
        if key in self._failed:
            self._failed.move_to_end(key)
            return True
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = _Claim(task)
            task.claimed.add(index)
            return True
        if claim.task is task and index in task.claimed:
            return True
        task.waiting.add(index)
        return False

    def _remember(self, key: Key, outcome: Answer | Problem | None) -> None:
        if isinstance(outcome, Answer):
            self._failed.pop(key, None)
            self._answers[key] = outcome
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)
        elif outcome is not None:
            self._failed[key] = None
            if len(self._failed) > self._most:
                self._failed.popitem(last=False)

    def _unpark(self, task: BatchTask) -> None:
        for index in task.waiting:
            claim = self._claims.get(task.keys[index])
            if claim is not None:
                claim.waiting = [one for one in claim.waiting if one is not task]


def _key(task: BatchTask, index: int) -> Key:
    """Return what tells rows apart: the run, the model, and what of the row it is shown."""
    (row,) = task.context.prompt_rows(task.batch, [index])
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    photo = task.context.photo_cell(task.batch, index)
    for part in (task.batch.run_id, task.model, photo, *_shown(row)):
        # With its length, so that no two rows run together to the same bytes.
        text = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % (-1 if part is None else len(text)) + text)
    return digest.digest()


def _shown(row: PromptRow) -> tuple[str | None, ...]:
    return row.title, row.message, row.sentiment
