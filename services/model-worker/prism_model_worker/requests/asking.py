"""One call for one request, and what follows from its outcome.

Who is to blame is judged as for rows (`server_watch`): a server that is away costs a request only time; an
answer that cannot be used, or a failure that a healthy server repeats, costs it a try.
"""

import time
from collections.abc import Callable
from functools import partial

from prism.annotation import BadReply
from prism.modelserver.errors import (
    CallTimeout,
    ModelServerError,
    PromptTruncated,
    ReplyTruncated,
    RequestRefused,
)
from prism.modelserver.server import ChatReply, ChatRequest
from prism.service import fault
from prism_model_worker import metrics
from prism_model_worker.blame import RECENT_S, is_ambiguous, is_refusal, outage_reason
from prism_model_worker.call_spans import chat
from prism_model_worker.endpoints import Lease
from prism_model_worker.requests.answer import build_messages, build_repair, failure_of, sanitise, schema_of
from prism_model_worker.requests.task import RequestTask

# Calls whose outcome is the request's own fault; somebody waits for the answer.
MOST_TRIES = 3
# A failure that a healthy server repeats is the request's: once to see it, once to be sure.
MOST_FAILURES = 2
# Before a request that failed at a healthy server is asked again.
SECOND_LOOK_S = 1.0
ANSWER_TOKENS = 2048
_UNANSWERABLE = "model_error", "the model server fails at this request"
_LATE = "deadline_exceeded", "the deadline passed before there was an answer"
_OWN_FAULT: tuple[tuple[type[ModelServerError], str, str], ...] = (
    (PromptTruncated, "prompt_too_long", "the request is longer than the model can read; send less"),
    (RequestRefused, "refused", "the model server refuses this request"),
)


class RequestAnswerer:
    """Makes one call at a time for a request; many threads share one. `now`: Unix time in seconds."""

    def __init__(
        self,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._now = now

    def step(self, task: RequestTask, lease: Lease | None) -> float:
        """Make one call; afterwards the task is done, or to be put back for so many seconds."""
        if lease is None or task.request.is_late(self._now()):
            if lease is not None:
                lease.unused()
            if task.request.is_late(self._now()):
                task.fail(*_LATE)
            return 0.0
        if task.photo is not None and lease.watch.sees_images(task.model) is False:
            lease.unused()
            task.fail("no_vision", "the model that answers here cannot see photos")
            return 0.0
        fault.point("worker.before_call", task.request.prompt)
        started = self._clock()
        try:
            reply = chat(lease, self._chat_request(task), task.span, 1)
        except ModelServerError as error:
            lease.failed(error)
            return self._call_failed(task, error, lease)
        else:
            lease.answered(1)
            self._replied(task, reply)
            return 0.0
        finally:
            task.model_seconds += self._clock() - started

    def _chat_request(self, task: RequestTask) -> ChatRequest:
        schema = schema_of(task.request)
        messages = build_messages(task.request, task.photo)
        if task.repair is not None:
            messages = build_repair(messages, *task.repair)
        left_s = self._timeout_s
        if task.request.deadline_s is not None:
            left_s = min(left_s, max(0.05, task.request.deadline_s - self._now()))
        return ChatRequest(
            model=task.model,
            messages=messages,
            num_ctx=task.num_ctx,
            num_predict=ANSWER_TOKENS,
            deadline_s=left_s,
            schema=schema.for_server if schema is not None else None,
            seed=task.tries,
        )

    def _replied(self, task: RequestTask, reply: ChatReply) -> None:
        try:
            task.answer = sanitise(reply.text, schema_of(task.request))
        except BadReply as bad:
            metrics.RETRIES.labels(reason=bad.reason).inc()
            task.repair = None if task.repaired else (reply.text, bad.detail)
            task.repaired = True
            self._count(task, MOST_TRIES, *failure_of(bad))

    def _call_failed(self, task: RequestTask, error: ModelServerError, lease: Lease) -> float:
        for kind, code, message in _OWN_FAULT:
            if isinstance(error, kind):
                task.fail(code, message)
                return 0.0
        if isinstance(error, ReplyTruncated):
            self._count(task, MOST_TRIES, "answer_too_long", "the model's answer did not come to an end")
            return 0.0
        answered_since = partial(lease.watch.answered_since, task.model)
        if is_refusal(error):
            return 0.0
        if isinstance(error, CallTimeout) and task.request.is_late(self._now()):
            task.fail(*_LATE)  # its own deadline was the call's: that says nothing of the server
            return 0.0
        now, ambiguous, outage = self._clock(), is_ambiguous(error), outage_reason(error) is not None
        first = task.blamed_at is None
        repeated = task.blamed_at is not None and answered_since(task.blamed_at)
        if ambiguous and (repeated or (task.tries == 0 and not outage)):
            self._count(task, MOST_FAILURES, *_UNANSWERABLE)
        if task.done:
            return 0.0
        task.blamed_at = now
        if first and ambiguous and not outage and answered_since(now - RECENT_S):
            # One user's requests close no gate for all: whether others are answered still shows soon.
            return SECOND_LOOK_S
        lease.close_gate(error, ambiguous, task.num_ctx)
        return 0.0

    def _count(self, task: RequestTask, most: int, code: str, message: str) -> None:
        task.tries += 1
        if task.tries >= most:
            task.fail(code, message)
