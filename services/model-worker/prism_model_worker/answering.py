"""One call to the model for one group of rows, and what follows from its outcome.

A reply is taken apart by row: what is good is kept, and only what is bad is asked again. A group whose
reply was bad is repaired once (the model is shown its error), then halved until a bad row stands alone;
alone it has the job's `retries` tries, with growing pauses, and then fails with the reason of its last.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from prism.annotation import Answer, BadReply, Problem, Prompt, build_prompt, build_repair, read_reply
from prism.messages import RowReason
from prism.modelserver.errors import (
    CallFailed,
    CallTimeout,
    ModelServerError,
    PromptTruncated,
    ReplyTruncated,
    ReplyUnusable,
    RequestRefused,
)
from prism.modelserver.server import ChatMessage, ChatReply, ChatRequest
from prism.service import fault
from prism.service.errors import RetryLater
from prism.service.logs import get_logger
from prism_model_worker import metrics
from prism_model_worker.blame import RECENT_S, is_ambiguous, is_refusal, outage_reason, reached_no_model
from prism_model_worker.call_spans import chat
from prism_model_worker.endpoints import Lease
from prism_model_worker.photos.album import PHOTO_AGAIN_S, Album
from prism_model_worker.photos.photo import PhotoRefused
from prism_model_worker.tasks import BatchTask, Group

log = get_logger(__name__)

Role = Literal["system", "user", "assistant"]

LONGEST_DELAY_S = 60.0
# What each error of a call means for rows that stand alone once they are to blame.
_ROW_REASONS: tuple[tuple[type[ModelServerError], RowReason], ...] = (
    (PromptTruncated, RowReason.ROW_TOO_LONG),
    (ReplyTruncated, RowReason.TRUNCATED_REPLY),
    (RequestRefused, RowReason.MODEL_REFUSED),
    (CallTimeout, RowReason.MODEL_TIMEOUT),
    (CallFailed, RowReason.MODEL_ERROR),
    (ReplyUnusable, RowReason.MODEL_ERROR),
)


class _Unseen(Exception):
    def __init__(self, reason: RowReason, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(reason, detail)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a call may take: for its first row, and more for each further one."""

    first_row_s: float

    def for_rows(self, rows: int) -> float:
        """Return the total deadline of a call."""
        return self.first_row_s * (1 + (rows - 1) / 10)


class Answerer:
    """Makes one call at a time for a task; many threads share one."""

    def __init__(
        self,
        deadlines: Deadlines,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        album: Album | None = None,
    ) -> None:
        self._deadlines = deadlines
        self._album = album
        self._clock = clock
        self._jitter = jitter

    def step(self, task: BatchTask, lease: Lease) -> float:
        """Make one call for the task's next group; return the seconds to wait before its next step."""
        group = task.pending.popleft()
        rows = task.context.prompt_rows(task.batch, group.indices)
        prompt = build_prompt(task.context.prompt_file, rows)
        cell = task.context.photo_cell(task.batch, group.indices[0])
        if cell is not None:
            try:
                prompt = replace(prompt, images=self._photos(cell, task, lease))
            except _Unseen as unseen:
                lease.unused()
                task.outcomes[group.indices[0]] = unseen.problem
                return 0.0
            except (RetryLater, OSError) as error:
                lease.unused()
                log.warning("photo_postponed", batch_id=task.batch.id, error=error)
                task.pending.appendleft(group)
                return PHOTO_AGAIN_S
        started = self._clock()
        try:
            reply = self._call(task, group, prompt, lease)
        except ModelServerError as error:
            lease.failed(error)
            return self._call_failed(task, group, error, started, lease)
        return self._replied(task, group, prompt, reply)

    def _photos(self, cell: str, task: BatchTask, lease: Lease) -> tuple[str, ...]:
        """Return the row's photo for the model. Raises _Unseen, and RetryLater or OSError."""
        if not cell.strip():
            raise _Unseen(RowReason.NO_PHOTO, "the cell is empty")
        if lease.watch.sees_images(task.context.model) is False:
            raise _Unseen(RowReason.NO_VISION, f"the model {task.context.model} cannot see photos")
        assert self._album is not None, "a run with photos, and no album"
        try:
            return (self._album.photo(cell).base64,)
        except PhotoRefused as error:
            raise _Unseen(RowReason.BAD_PHOTO, str(error)) from None

    def _call(self, task: BatchTask, group: Group, prompt: Prompt, lease: Lease) -> ChatReply:
        context = task.context
        request = ChatRequest(
            model=context.model,
            messages=_chat(
                build_repair(prompt, *group.repair) if group.repair else prompt.messages, prompt.images
            ),
            schema=prompt.schema,
            num_ctx=context.num_ctx,
            num_predict=context.num_predict,
            # At temperature 0 the same seed would give the same bad reply again.
            seed=group.tries,
            deadline_s=self._deadlines.for_rows(len(group.indices)),
        )
        fault.point("worker.before_call", prompt.user)
        task.calls += 1
        reply = chat(lease, request, task.span, len(group.indices))
        lease.answered(len(group.indices))
        fault.point("worker.after_call")
        task.count_asked(group)
        task.refusals = 0
        task.prompt_tokens += reply.prompt_tokens
        task.completion_tokens += reply.completion_tokens
        task.model_seconds += reply.seconds
        task.load_seconds += reply.load_seconds
        task.model_digest = lease.watch.digest(context.model)
        return reply

    def _call_failed(
        self, task: BatchTask, group: Group, error: ModelServerError, started: float, lease: Lease
    ) -> float:
        reason = next((reason for kind, reason in _ROW_REASONS if isinstance(error, kind)), None)
        reason = reason or outage_reason(error)
        refused = is_refusal(error)
        task.refusals = task.refusals + 1 if refused else 0
        if reached_no_model(error):
            task.calls -= 1
        else:
            task.count_asked(group)
        if reason is None or (
            is_ambiguous(error) and not self._row_is_to_blame(task, group, error, started, lease)
        ):
            # Not the row's fault: back to the front as it was.
            task.pending.appendleft(group)
            if not refused:  # want of room is the limit's to deal with: no gate closes
                group.blamed_at = self._clock()
                lease.close_gate(error, reason is not None, task.context.num_ctx)
            return 0.0
        problem = Problem(reason, str(error))
        return self._again(task, group, group.indices, problem, repair=None)

    def _row_is_to_blame(
        self, task: BatchTask, group: Group, error: ModelServerError, started: float, lease: Lease
    ) -> bool:
        """Return whether the server was seen to work since these rows failed, or while they were asked.

        What looks like an outage, and the failure that would be a row's last, take the former: when an
        outage begins, others were answered a moment ago.
        """
        if group.blamed_at is not None:
            return lease.watch.answered_since(task.context.model, group.blamed_at)
        last = len(group.indices) == 1 and group.tries + 1 >= task.context.job.model.retries
        if last or outage_reason(error) is not None:
            return False
        return lease.watch.answered_since(task.context.model, max(started, self._clock() - RECENT_S))

    def _replied(self, task: BatchTask, group: Group, prompt: Prompt, reply: ChatReply) -> float:
        try:
            answers = read_reply(reply.text, prompt, task.context.prompt_file)
        except BadReply as error:
            problem = Problem(error.reason, error.detail)
            return self._again(task, group, group.indices, problem, (reply.text, error.detail))
        bad: list[int] = []
        problem = Problem(RowReason.MISSING_ROW, "")
        for index, answer in zip(group.indices, answers, strict=True):
            if isinstance(answer, Answer):
                task.outcomes[index] = answer
            else:
                bad.append(index)
                problem = answer
        if not bad:
            return 0.0
        # The repair shows the reply to the whole prompt: it only fits when no row of it is done.
        repair = (reply.text, problem.detail) if len(bad) == len(group.indices) else None
        return self._again(task, group, bad, problem, repair)

    def _again(
        self,
        task: BatchTask,
        group: Group,
        bad: Sequence[int],
        problem: Problem,
        repair: tuple[str, str] | None,
    ) -> float:
        """Decide what becomes of rows that were not answered; return the seconds to wait."""
        metrics.RETRIES.labels(reason=problem.reason).inc()
        if repair is not None and not task.repaired:
            task.repaired = True
            task.pending.appendleft(Group(tuple(bad), tries=group.tries + 1, repair=repair))
            return 0.0
        if len(bad) > 1:
            left = Group(tuple(bad))
            # Fewer rows are a new question; the same rows have to be parted.
            task.pending.extendleft([left] if len(bad) < len(group.indices) else reversed(left.halves()))
            return 0.0
        tries = group.tries + 1 if len(group.indices) == 1 else 0
        if tries >= task.context.job.model.retries:
            task.outcomes[bad[0]] = problem
            return 0.0
        task.pending.append(Group(tuple(bad), tries=tries))
        return self._pause(task, tries)

    def _pause(self, task: BatchTask, tries: int) -> float:
        """Exponential back-off with full jitter: a job's `delay`, doubled for each further try."""
        longest: float = min(LONGEST_DELAY_S, task.context.job.model.delay * 2 ** max(0, tries - 1))
        return longest * (0.5 + self._jitter() / 2)


def _chat(messages: Sequence[Mapping[str, str]], images: tuple[str, ...]) -> tuple[ChatMessage, ...]:
    """Return the messages; the photo belongs to the first question, in a repair too."""
    chat = [ChatMessage(role=cast(Role, one["role"]), content=one["content"]) for one in messages]
    if images:
        first = next(index for index, one in enumerate(chat) if one.role == "user")
        chat[first] = replace(chat[first], images=images)
    return tuple(chat)
