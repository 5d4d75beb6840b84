"""A thread that asks the broker what the merging loop must not wait for.

It looks at the results topic's id, so that a topic that was deleted and made again is read from its start,
and deletes what no unpublished run needs. Deletion happens only right after a look that found the very
topic for which it was asked.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException

from prism.kafka.admin import Ends, delete_below, topic_ends, topic_id
from prism.kafka.clients import KafkaSettings
from prism.kafka.errors import BrokerAway, BrokerFatal, raise_if_fatal
from prism.service.logs import get_logger
from prism_merger.store import TopicIdentity

log = get_logger(__name__)

_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What the last look found. `identity` None: the topic is not there. `away`: nobody answered."""

    identity: TopicIdentity | None = None
    partitions: int = 0
    away: str | None = None


class TopicWatch:
    """Looks every few seconds; `sight` may be read by any thread."""

    def __init__(self, settings: KafkaSettings, topic: str, every_s: float) -> None:
        self._admin = settings.admin()
        self._topic = topic
        self._every_s = every_s
        self._wake = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._deletion: tuple[TopicIdentity, dict[int, int]] | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.sight = Sight(away="not asked yet")

    def start(self) -> None:
        """Look from now on, in a thread."""
        self._thread.start()

    def look(self) -> Sight:
        """Look once, now."""
        try:
            metadata = self._admin.list_topics(self._topic, timeout=_LOOK_S)
            found = metadata.topics.get(self._topic)
            there = found is not None and found.error is None
            raise_if_fatal(found.error if found is not None else None, f"look up {self._topic}")
            identifier = topic_id(self._admin, self._topic) if there else ""
            identity = TopicIdentity(str(metadata.cluster_id or ""), identifier) if identifier else None
            count = len(found.partitions) if found is not None and identity is not None else 0
            self.sight = Sight(identity, count)
        except KafkaException as error:
            self.sight = Sight(away=error.args[0].str())
        except (BrokerAway, BrokerFatal) as error:
            self.sight = Sight(away=str(error))
        return self.sight

    def look_for_identity(self) -> TopicIdentity | None:
        """Look once; return the topic's identity, None if it is not there. Raise BrokerAway."""
        sight = self.look()
        if sight.away is not None:
            raise BrokerAway(f"no answer: {sight.away}")
        return sight.identity

    def look_soon(self) -> None:
        """Do not wait for the next turn."""
        self._wake.set()

    def ends(self, partitions: list[int]) -> Ends:
        """Return where partitions begin and end now. Raise BrokerAway."""
        return topic_ends(self._admin, self._topic, partitions)

    def delete_soon(self, identity: TopicIdentity, offsets: Mapping[int, int]) -> None:
        """Delete below these offsets of this topic at the next look."""
        with self._lock:
            self._deletion = (identity, dict(offsets))
        self._wake.set()

    def close(self) -> None:
        """End the thread; a question on its way is not waited for long."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._closed:
            self.look()
            self._delete()
            self._wake.wait(self._every_s)
            self._wake.clear()

    def _delete(self) -> None:
        with self._lock:
            wanted, self._deletion = self._deletion, None
        if wanted is None or wanted[0] != self.sight.identity:
            return
        try:
            delete_below(self._admin, self._topic, wanted[1])
            log.debug("results_deleted", below=wanted[1])
        except (BrokerAway, BrokerFatal) as error:
            log.warning("results_not_deleted", error=error)
