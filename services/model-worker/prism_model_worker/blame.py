"""What a failed call says of the server, and what of the rows or the request that it asked for.

The argument is in `server_watch`; batches and requests go by the same words.
"""

from prism.messages import RowReason
from prism.modelserver.errors import (
    AccessRefused,
    AwayReason,
    CallFailed,
    CallTimeout,
    ModelMissing,
    ModelServerError,
    QuotaExhausted,
    ReplyUnusable,
    ServerAway,
)

# A server that asks for so long a pause is not short of slots: its gate closes.
LONG_PAUSE_S = 5.0
# "While they were being asked": a call that timed out may have begun long before an outage did.
RECENT_S = 5.0


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
    return isinstance(error, CallFailed | CallTimeout | ReplyUnusable) or outage_reason(error) is not None


def outage_reason(error: ModelServerError) -> RowReason | None:
    """Return why a row fails for which alone the server is away, each time; None: no row can do that.

    A prompt may end the server's process, before a gateway too, and a proxy may refuse a text.
    """
    if isinstance(error, AccessRefused | ModelMissing):
        return RowReason.MODEL_REFUSED
    away = isinstance(error, ServerAway) and error.reason in (AwayReason.BROKEN_OFF, AwayReason.GATEWAY)
    return RowReason.MODEL_ERROR if away else None


def reached_no_model(error: ModelServerError) -> bool:
    """Whether no model can have worked at it: such a call is not counted."""
    broke_off = isinstance(error, ServerAway) and error.reason is AwayReason.BROKEN_OFF
    return isinstance(error, ServerAway | AccessRefused | ModelMissing) and not broke_off
