"""What a failed call says of the server, and what of the rows or the request that it asked for.

The argument is in `server_watch`; batches and requests go by the same words.
"""

from prism.modelserver.errors import (
    AwayReason,
    CallFailed,
    CallTimeout,
    ModelServerError,
    QuotaExhausted,
    ReplyUnusable,
    ServerAway,
)

# A server that asks for so long a pause is not short of slots: its gate closes.
LONG_PAUSE_S = 5.0


def is_refusal(error: ModelServerError) -> bool:
    """Whether a server that is up did not take a call for want of room (429, 503)."""
    return (
        isinstance(error, ServerAway)
        and not isinstance(error, QuotaExhausted)
        and error.reason is AwayReason.BUSY
        and (error.retry_after_s or 0.0) < LONG_PAUSE_S
    )


def is_ambiguous(error: ModelServerError) -> bool:
    """Whether it may be the server or what was asked: whether others are answered tells."""
    return isinstance(error, CallFailed | CallTimeout | ReplyUnusable) or broke_off(error)


def broke_off(error: ModelServerError) -> bool:
    """Whether the server was lost during the call: it may be this prompt that ends it, each time."""
    return isinstance(error, ServerAway) and error.reason is AwayReason.BROKEN_OFF
