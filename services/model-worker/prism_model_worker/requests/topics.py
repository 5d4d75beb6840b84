"""The topics of requests and replies: a worker without them does its batches, and looks for them again."""

import threading
from collections.abc import Callable

from prism.kafka.errors import BrokerAway, TopicAbsent
from prism.service.logs import get_logger

log = get_logger(__name__)

LOOK_AGAIN_S, ASK_AGAIN_S = 10.0, 1.0


def await_topics(
    ask: Callable[[], None],
    stop: threading.Event,
    tell: Callable[[str | None], None],
    look_again_s: float = LOOK_AGAIN_S,
) -> bool:
    """Ask until the topics are there; return whether they are: not, where the stop comes first.

    `ask` raises TopicAbsent while one is missing; `tell` hears why nothing is answered, and None once it is.
    Raises BrokerRefused.
    """
    missing = None
    while not stop.is_set():
        try:
            ask()
            tell(None)
            return True
        except TopicAbsent as error:
            if missing is None:
                log.warning("requests_off", reason=error, next="make it: prism admin topics --create")
            missing = f"off: {error}; make it: prism admin topics --create"
            tell(missing)
        except BrokerAway:
            pass  # `/ready` says so
        stop.wait(look_again_s if missing else ASK_AGAIN_S)
    return False
