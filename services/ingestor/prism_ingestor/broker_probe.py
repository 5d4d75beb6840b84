"""What the broker says of batches and results, asked in a thread of its own.

The order of the questions is the argument of `prism.runs.tracker`: first what the workers have committed,
then where the results end. A result that was acknowledged before its commit lies below that end.
"""

import threading
import time
from collections.abc import Callable, Mapping

from prism.kafka.admin import committed_offsets, delete_below, partition_count, topic_ends
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.kafka.errors import BrokerAway, BrokerRefused
from prism.messages import Topics
from prism.runs.tracker import BrokerView
from prism.service.logs import get_logger

log = get_logger(__name__)

ASK_EVERY_S = 2.0


class BrokerProbe:
    """Keeps `view` fresh while it is asked for, and deletes what nobody needs."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        worker_group: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view: BrokerView | None = None
        self._clock = clock
        self._admin = kafka.admin()
        self._errors = ErrorWatch()
        # In the workers' group by name only: it never subscribes.
        self._asker = kafka.group_consumer(worker_group, self._errors)
        self._topics = topics
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._trims: dict[str, Mapping[int, int]] = {}
        self._thread = threading.Thread(target=self._run, name="broker-probe", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._stopped.set()
        self._wanted.set()

    def ask(self) -> None:
        """Want a fresh view soon."""
        self._wanted.set()

    def trim(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Want everything below these offsets deleted."""
        self._trims[topic] = offsets
        self._wanted.set()

    def show(self, view: BrokerView) -> None:
        """Let `view` be what is known, unless something newer is."""
        if self.view is None or view.asked_at >= self.view.asked_at:
            self.view = view

    def look(self) -> BrokerView:
        """Ask now. Raises BrokerAway."""
        asked_at = self._clock()
        batches = range(partition_count(self._admin, self._topics.batches))
        results = range(partition_count(self._admin, self._topics.results))
        committed = committed_offsets(self._asker, self._topics.batches, batches)
        ends = topic_ends(self._admin, self._topics.batches, batches)
        results_end = topic_ends(self._admin, self._topics.results, results).high
        return BrokerView(committed, ends.low, ends.high, results_end, asked_at)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                self.show(self.look())
                while self._trims:
                    topic, offsets = self._trims.popitem()
                    delete_below(self._admin, topic, offsets)
            except (BrokerAway, BrokerRefused) as error:
                log.warning("broker_not_asked", error=error)
            # Not more often than this, however often it is wanted.
            self._stopped.wait(ASK_EVERY_S)
