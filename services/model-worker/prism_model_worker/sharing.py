"""Rows of a run that say the same are asked once.

    batch ─► admit ─┬─► rows to ask (claimed)     ─► callers ─► settle ─► remembered
                    ├─► rows known already        ─► their answer, without a call
                    └─► rows that another batch asks ─► wait for its `settle`

Argument. Within one run model, prompt and parameters are the same, so what a row shows the model decides
its answer. A content is remembered, or claimed by exactly one batch, or free. A batch asks what it could
claim; what others have claimed it waits for, and it is parked only when nothing of its own is left to ask,
so a parked batch holds no claim and two batches cannot wait for each other. Whoever settles a claim, be it
without an answer, wakes those that wait, and they claim what is still open: a row that fails is asked
again for each batch, because a failure is not known to be the content's. What is taken away gives up its
claims. Only the owner thread comes here.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

from prism.annotation import Answer, PromptRow
from prism_model_worker.tasks import BatchTask, Group

# The price of a remembered row is some 400 bytes: a worker stays small however large the run is.
MOST_ROWS = 20_000
_KEY_BYTES = 16

Key = bytes


@dataclass(slots=True)
class _Claim:
    task: BatchTask
    waiting: list[BatchTask] = field(default_factory=list)


class SharedAnswers:
    """Answers that are remembered, and rows that are being asked. `most`: rows remembered; 0: none."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
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

    def park(self, task: BatchTask) -> None:
        """Keep a task that has nothing left but rows that others ask."""
        for key in {task.keys[index] for index in task.waiting}:
            self._claims[key].waiting.append(task)

    def settle(self, task: BatchTask) -> list[BatchTask]:
        """Remember what a task was answered and give up its claims; return the tasks that waited for it."""
        woken: dict[int, BatchTask] = {}
        for index, key in task.keys.items():
            claim = self._claims.get(key)
            if claim is None or claim.task is not task or index in task.waiting:
                continue
            outcome = task.outcomes.get(index)
            if isinstance(outcome, Answer):
                self._remember(key, outcome)
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
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = _Claim(task)
            task.claimed.add(index)
            return True
        if claim.task is task and index in task.claimed:
            return True
        task.waiting.add(index)
        return False

    def _remember(self, key: Key, answer: Answer) -> None:
        self._answers[key] = answer
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def _unpark(self, task: BatchTask) -> None:
        for index in task.waiting:
            claim = self._claims.get(task.keys[index])
            if claim is not None:
                claim.waiting = [one for one in claim.waiting if one is not task]


def _key(task: BatchTask, index: int) -> Key:
    """Return what tells rows apart: the run, and what of the row the model is shown."""
    (row,) = task.context.prompt_rows(task.batch, [index])
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    photo = task.context.photo_cell(task.batch, index)
    for part in (task.batch.run_id, photo, *_shown(row)):
        # With its length, so that no two rows run together to the same bytes.
        text = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % (-1 if part is None else len(text)) + text)
    return digest.digest()


def _shown(row: PromptRow) -> tuple[str | None, ...]:
    return row.title, row.message, row.sentiment
