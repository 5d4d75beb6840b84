"""How many unmerged batches lie in each partition of `prism.batches`: the next goes where there are least.

Counted by what was fed and is not merged, which is fresher than end − committed and needs no question to
the broker. With keys hashed instead, one slow worker would drag a fleet of four to 0.3 of its capacity.
"""


class PartitionLoad:
    """Unmerged batches by partition."""

    def __init__(self, partitions: int) -> None:
        self._counts = [0] * partitions
        self._turn = 0

    @property
    def partitions(self) -> int:
        """How many partitions there are."""
        return len(self._counts)

    def lightest(self) -> int:
        """Return a partition with the least load, another one at each call among equals."""
        count = len(self._counts)
        best = min(range(count), key=lambda one: (self._counts[one], (one - self._turn) % count))
        self._turn = (best + 1) % count
        return best

    def put(self, partition: int) -> None:
        """Note a batch that was put there."""
        self._counts[partition] += 1

    def freed(self, partition: int) -> None:
        """Note a batch that is merged. One whose place nobody knew has no partition."""
        if 0 <= partition < len(self._counts) and self._counts[partition]:
            self._counts[partition] -= 1
