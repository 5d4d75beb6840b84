"""Credit: how many batches of a run may be unmerged at once.

The window bounds what lies in the broker, what a pause has to wait for, and how long a new run waits
behind those that are there. It is refilled by merged counts, which are absolute: a lost or repeated
progress message changes nothing.
"""

MIN_WINDOW = 64
DEFAULT_PRIORITY_WEIGHT = 6


def window(limits: int, floor: int = 0) -> int:
    """Return the fleet's window: twice what the workers can have in flight, in batches."""
    return max(MIN_WINDOW, 2 * limits, floor)


def share(whole: int, priority: int, highest: int) -> int:
    """Return a run's own window. Runs of equal priority get the same; the highest gets the whole."""
    return max(1, whole * (priority + 1) // (highest + 1))
