"""Credit: how many batches of a run may be unmerged at once.

The window bounds what lies in the broker, what a pause has to wait for, and how long a new run waits
behind those that are there. It is refilled by merged counts, which are absolute: a lost or repeated
progress message changes nothing.
"""

import math
from collections.abc import Callable

MIN_WINDOW = 64
# Seconds that a batch may spend outside a model call (fed, fetched, produced, merged, credited) before a
# fast fleet runs dry. Some 0.05 are usual; a busy machine needs several times as much.
PIPELINE_S = 0.3
RATE_WINDOW_S = 2.0


def window(limits: int, floor: int = 0, rate: float = 0.0) -> int:
    """Return the fleet's window in batches.

    Twice what the workers can have in flight; where batches take less time than the way around takes,
    what is in flight and on the way at `rate` merged batches a second (Little's law).
    """
    return max(MIN_WINDOW, 2 * limits, limits + math.ceil(PIPELINE_S * rate), floor)


class MergeRate:
    """Merged batches a second, over the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._rate = 0.0

    def count(self, batches: int) -> None:
        """Count merged batches."""
        self._count += batches

    def per_second(self) -> float:
        """Return the rate; it follows a change within RATE_WINDOW_S."""
        elapsed = self._clock() - self._since
        if elapsed >= RATE_WINDOW_S:
            self._rate = self._count / elapsed
            self._since, self._count = self._clock(), 0
        return self._rate


def share(whole: int, priority: int, highest: int) -> int:
    """Return a run's own window. Runs of equal priority get the same; the highest gets the whole."""
    return max(1, whole * (priority + 1) // (highest + 1))
