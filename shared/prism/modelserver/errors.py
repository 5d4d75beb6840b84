"""What a model server's call can end in, split by what the caller must do.

Wait, the row is not to blame:        ServerAway, QuotaExhausted
Stop or wait until somebody acts:     ModelMissing, AccessRefused
The server or this prompt, unclear:   CallFailed, CallTimeout (another row's success tells)
This prompt or this reply:            RequestRefused, ReplyUnusable, PromptTruncated, ReplyTruncated
"""

from datetime import datetime
from enum import StrEnum


class ModelServerError(Exception):
    """Says what happened, where, and what to do next, in one line."""

    def __init__(self, what: str, where: str = "", next: str = "") -> None:
        super().__init__(what, where, next)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f"; {self.next}" if self.next else ""
        return f"{self.what}{place}{advice}"


class AwayReason(StrEnum):
    """In which way a server is away."""

    UNREACHABLE = "unreachable"  # refused, no route, no such host, connect timeout, TLS
    BROKEN_OFF = "broken_off"  # the connection was lost while the call ran
    BUSY = "busy"  # 429, 503: it is there, and has no room
    GATEWAY = "gateway"  # 502: something before it is there
    NOT_ONE = "not_one"  # something else answers at this address: a redirect, an unknown path


class ServerAway(ModelServerError):
    """The server did not take the call. Says nothing about any row: wait `retry_after_s`, or as you like."""

    def __init__(
        self,
        what: str,
        where: str = "",
        next: str = "",
        *,
        reason: AwayReason,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(what, where, next)
        self.reason = reason
        self.retry_after_s = retry_after_s


class QuotaExhausted(ServerAway):
    """The account's limit is reached: a matter of hours. `until` is known only if the server says it."""

    def __init__(
        self,
        what: str,
        where: str = "",
        next: str = "",
        *,
        retry_after_s: float | None = None,
        until: datetime | None = None,
    ) -> None:
        super().__init__(what, where, next, reason=AwayReason.BUSY, retry_after_s=retry_after_s)
        self.until = until


class ModelMissing(ModelServerError):
    """The server does not have the model; the message says how to get it."""


# The name in the Models Processor's document.
ModelNotRunningError = ModelMissing


class AccessRefused(ModelServerError):
    """The server does not let us in (401, 403)."""


class CallFailed(ModelServerError):
    """The server failed at this call (500 and other 5xx)."""


class CallTimeout(ModelServerError):
    """The call was not done by its deadline."""


class RequestRefused(ModelServerError):
    """The server refuses this request (400 and other 4xx)."""


class UnusableReason(StrEnum):
    """In which way a reply under HTTP 200 cannot be used."""

    NOT_JSON = "not_json"
    ERROR_INSIDE = "error_inside"
    NO_MESSAGE = "no_message"
    NOT_DONE = "not_done"
    TOO_LARGE = "too_large"


class ReplyUnusable(ModelServerError):
    """The server says 200 and sends something that is no reply."""

    def __init__(self, what: str, where: str = "", next: str = "", *, reason: UnusableReason) -> None:
        super().__init__(what, where, next)
        self.reason = reason


class PromptTruncated(ModelServerError):
    """The prompt does not fit the context: the server refused it, or answered a shortened one."""


class ReplyTruncated(ModelServerError):
    """The reply was cut at its limit of tokens or at the end of the context."""


_TYPES: tuple[tuple[type[ModelServerError], str], ...] = (
    (QuotaExhausted, "quota"),
    (ModelMissing, "model_missing"),
    (AccessRefused, "access_refused"),
    (CallFailed, "server_error"),
    (CallTimeout, "timeout"),
    (RequestRefused, "request_refused"),
    (ReplyUnusable, "reply_unusable"),
    (PromptTruncated, "prompt_truncated"),
    (ReplyTruncated, "reply_truncated"),
)


def error_type(error: ModelServerError) -> str:
    """Return the kind of a failed call, from a closed list: OpenTelemetry's `error.type`."""
    found = next((name for kind, name in _TYPES if isinstance(error, kind)), None)
    if found is None and isinstance(error, ServerAway):
        return error.reason.value
    return found or "_OTHER"
