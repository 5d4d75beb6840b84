"""One call for one request, and what follows from its outcome.

Who is to blame is judged as for rows (`server_watch`): a server that is away costs a request only time; an
answer that cannot be used, or a failure that a healthy server repeats, costs it a try.
"""

import time
from collections.abc import Callable

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
from prism_model_worker.blame import is_ambiguous, is_refusal, outage_reason
from prism_model_worker.endpoints import Lease
from prism_model_worker.requests.answer import build_messages, build_repair, sanitise, schema_of
from prism_model_worker.requests.task import RequestTask

# Calls whose outcome is the request's own fault; somebody waits for the answer.
MOST_TRIES = 3
# A failure that a healthy server repeats is the request's: once to see it, once to be sure.
MOST_FAILURES = 2
ANSWER_TOKENS = 2048
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

    def step(self, task: RequestTask, lease: Lease | None) -> None:
        """Make one call; afterwards the task is done, or to be put back."""
        if lease is None or task.request.is_late(self._now()):
            if lease is not None:
                lease.unused()
            if task.request.is_late(self._now()):
                task.fail(*_LATE)
            return
        if task.photo is not None and lease.watch.sees_images(task.model) is False:
            lease.unused()
            task.fail("no_vision", "the model that answers here cannot see photos")
            return
        fault.point("worker.before_call", task.request.prompt)
        started = self._clock()
        try:
            with metrics.CALL_SECONDS.time():
                reply = lease.server.chat(self._chat_request(task))
        except ModelServerError as error:
            lease.failed(error)
            self._call_failed(task, error, lease)
        else:
            lease.answered(1)
            self._replied(task, reply)
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
            self._count(task, MOST_TRIES, "bad_answer", "the model gave no answer of the form asked for")

    def _call_failed(self, task: RequestTask, error: ModelServerError, lease: Lease) -> None:
        metrics.CALL_ERRORS.labels(kind=type(error).__name__).inc()
        for kind, code, message in _OWN_FAULT:
            if isinstance(error, kind):
                task.fail(code, message)
                return
        if isinstance(error, ReplyTruncated):
            self._count(task, MOST_TRIES, "answer_too_long", "the model's answer did not come to an end")
            return
        if is_refusal(error):
            return
        if isinstance(error, CallTimeout) and task.request.is_late(self._now()):
            task.fail(*_LATE)  # its own deadline was the call's: that says nothing of the server
            return
        if is_ambiguous(error):
            repeated = task.blamed_at is not None and lease.watch.answered_since(task.model, task.blamed_at)
            if repeated or (task.tries == 0 and outage_reason(error) is None):
                self._count(task, MOST_FAILURES, "model_error", "the model server fails at this request")
        if not task.done:
            task.blamed_at = self._clock()
            lease.close_gate(error, is_ambiguous(error), task.num_ctx)

    def _count(self, task: RequestTask, most: int, code: str, message: str) -> None:
        task.tries += 1
        if task.tries >= most:
            task.fail(code, message)
