"""A refusal that passes: the moment in which somebody rewrites ACLs.

Argument. librdkafka goes on by itself once it may again, with a fetch and a producer that were refused (seen
with 2.16). A refused fetch is told once, and not when it is over, so the broker is asked for that. What a
refusal ends for good is the delivery of single records: whoever sent them sends them again once `reason` is
None, and until then nothing is committed for them. A membership that is refused for longer than its session
is lost as by any pause, and comes back as after one.
"""

import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaError

from prism.kafka.errors import BrokerAway, BrokerRefused, raise_if_fatal, refused
from prism.service.logs import get_logger

log = get_logger(__name__)

PATIENCE_S, ASK_EVERY_S = 15.0, 1.0
# One that comes back so soon is the same one: what was asked is not all of it. It is not borne for ever.
SAME_S = 5.0
# What ACLs of topics and groups decide.
_BORNE = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}


class Patience:
    """Bears for 15 s what the broker does not allow. Every method may be called from any thread."""

    def __init__(
        self,
        ask: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        ask_every_s: float = ASK_EVERY_S,
    ) -> None:
        """`ask` raises BrokerRefused, which names what is missing, while anything is not allowed."""
        self._ask = ask
        self._clock = clock
        self._ask_every_s = ask_every_s
        self._lock = threading.Lock()
        self._met: BrokerRefused | None = None
        self._since = self._passed_at = float("-inf")

    @property
    def reason(self) -> str | None:
        """What is not allowed; None while everything is."""
        met = self._met
        return None if met is None else str(met)

    def bear(self, error: KafkaError | None, what: str = "Kafka client") -> bool:
        """Return whether it is a refusal to be borne; raise what only a new process can cure."""
        if error is None or error.code() not in _BORNE:
            raise_if_fatal(error, what)
            return False
        with self._lock:
            if self._met is None:
                self._begin()
                self._met = refused(what, error)
        return True

    def check(self) -> None:
        """Raise the refusal that has not passed in time."""
        met = self._met
        if met is not None and self._clock() - self._since > PATIENCE_S:
            raise met

    def _begin(self) -> None:
        now = self._clock()
        if now - self._passed_at > SAME_S:
            self._since = now
        log.warning("refused_for_now", patience_s=PATIENCE_S)
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(self._ask_every_s)  # how often the broker is asked
            try:
                self._ask()
            except BrokerRefused as error:
                self._met = error
            except BrokerAway as error:
                log.debug("not_asked", error=error)
            else:
                with self._lock:
                    self._met, self._passed_at = None, self._clock()
                log.info("allowed_again")
                return
