"""From what a server answers to the error that it stands for: what all backends share.

A row's text may come back inside an error's text. So an error that closes the way for other rows too is
told by its status, code and type; by words only in a 404, a 429 and an error under 200, whose texts are the
server's own, and at the very start of a 400's.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prism.modelserver import bodies, errors
from prism.modelserver.bodies import Said
from prism.modelserver.errors import AwayReason, UnusableReason
from prism.modelserver.transport import Answer
from prism.modelserver.waits import seconds_to_wait

_TOO_LONG = re.compile(
    r"(exceeds?|(longer|larger|greater) than|too long)\b.*\bcontext|context\b.*\b(exceed|overflow)"
    r"|maximum (context|model) length|context_length_exceeded|exceed_context_size|context length of only"
    r"|prompt is too long|token count\b.*\bexceeds|max_new_tokens\W+must be",
    re.I | re.S,
)
# More tokens at once than the account's limit of a minute: it never gets through.
_NEVER = re.compile(r"request too large", re.I)
_EXHAUSTED = re.compile(
    r"usage limit|insufficient_quota|\bper (day|week|month)\b|budget\b.{0,12}\bexceeded", re.I
)
_QUOTA = re.compile(r"quota", re.I)
# Some call each rate a quota: one that is over within minutes is a rate.
_A_RATE_S = 300.0
_NO_MODEL = re.compile(r"model_not_found|\bmodel\b", re.I)
# What says it under 400 (OpenRouter, DeepSeek, LiteLLM): at the text's start, where no row's text stands.
_NO_MODEL_400 = re.compile(r"\S+ is not a valid model|model not exist|\S{0,30} ?invalid model name", re.I)
_FILTERED = re.compile(r"content_filter|moderation|flagged", re.I)
_CONSOLE = "see the server's log"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do next, in the words of one backend. `missing` takes the model's name as `{model}`."""

    missing: str
    access: str
    address: str
    nobody: str
    too_long: str
    request: str


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, for the words of an error: the URL, and the model if it was about one."""

    where: str
    model: str | None
    advice: Advice


def checked(answer: Answer, question: Question) -> dict[str, Any]:
    """Return the answer's object if it is one, or raise what the status or the error inside stands for."""
    value = bodies.decode(answer.body)
    said = bodies.said(value, answer.status != 200)
    if answer.status != 200:
        head = f"HTTP {answer.status}"
        raise _refusal(answer.status, head, said, answer.retry_after, question)
    if not isinstance(value, dict):
        what = "the answer is no JSON object"
        raise errors.ReplyUnusable(what, question.where, _CONSOLE, reason=UnusableReason.NOT_JSON)
    if said:
        raise error_inside(said, answer.retry_after, question)
    return value


def error_inside(said: Said, retry_after: str | None, question: Question) -> errors.ModelServerError:
    """Return the error that an error under HTTP 200 stands for: by its own status if it has one."""
    head = "an error under HTTP 200"
    status = said.status
    if not status and (_EXHAUSTED.search(said.signs) or _QUOTA.search(said.signs)):
        status = 429
    if not status and _TOO_LONG.search(said.signs):
        status = 400
    if status:
        return _refusal(status, head, said, retry_after, question)
    what = f"{head}: {said.text}"
    return errors.ReplyUnusable(what, question.where, _CONSOLE, reason=UnusableReason.ERROR_INSIDE)


def _refusal(
    status: int, head: str, said: Said, retry_after: str | None, question: Question
) -> errors.ModelServerError:
    where, advice = question.where, question.advice
    what = f"{head}: {said.text}" if said else head
    if _does_not_fit(status, said):
        return errors.PromptTruncated(what, where, advice.too_long)
    if status in (402, 429, 502, 503):
        return _away(status, what, said, retry_after, where)
    if question.model is not None and _names_no_model(status, said):
        what = f"the model {question.model} is missing: {said.text}"
        return errors.ModelMissing(what, where, advice.missing.format(model=question.model))
    if status in (401, 403) and not _FILTERED.search(said.signs):
        return errors.AccessRefused(what, where, advice.access)
    if status in (408, 504):
        return errors.CallTimeout(what, where, _CONSOLE)
    if status >= 500:
        return errors.CallFailed(what, where, _CONSOLE)
    if status < 400 or status in (404, 405):
        what = f"{what}: {advice.nobody}"
        return errors.ServerAway(what, where, advice.address, reason=AwayReason.NOT_ONE)
    return errors.RequestRefused(what, where, advice.request)


def _does_not_fit(status: int, said: Said) -> bool:
    if status in (400, 413, 422, 500) and _TOO_LONG.search(said.signs):
        return True
    return status in (413, 429) and _NEVER.search(said.signs) is not None


def _names_no_model(status: int, said: Said) -> bool:
    if status == 404:
        return _NO_MODEL.search(said.signs) is not None
    return status == 400 and ("model_not_found" in said.kind or _NO_MODEL_400.match(said.text) is not None)


def _away(status: int, what: str, said: Said, retry_after: str | None, where: str) -> errors.ServerAway:
    now = datetime.now(UTC)
    seconds = seconds_to_wait(retry_after, said.text, now)
    if status == 402 or (status == 429 and _is_quota(said, seconds)):
        until = now + timedelta(seconds=seconds) if seconds is not None else None
        advice = "wait, or raise the account's limit"
        return errors.QuotaExhausted(what, where, advice, retry_after_s=seconds, until=until)
    reason = AwayReason.GATEWAY if status == 502 else AwayReason.BUSY
    return errors.ServerAway(what, where, "wait", reason=reason, retry_after_s=seconds)


def _is_quota(said: Said, seconds: float | None) -> bool:
    if _EXHAUSTED.search(said.signs):
        return True
    return _QUOTA.search(said.signs) is not None and (seconds is None or seconds >= _A_RATE_S)
