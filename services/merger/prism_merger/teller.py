"""Tells a run's progress, and never more than is committed."""

from collections.abc import Callable, Sequence

from prism.messages import Progress
from prism_merger.accounts import RunAccount
from prism_merger.ledger import Ledger
from prism_merger.outlet import Outlet
from prism_merger.plans import RunPlan
from prism_merger.progress import Position, ProgressMaker
from prism_merger.store import TopicIdentity

# Whoever else wants to know what is told; it must not wait for anything.
Listener = Callable[[RunAccount, RunPlan, Progress], None]


class Teller:
    """Sends progress as committed; knows which topic the offsets belong to."""

    def __init__(
        self,
        ledger: Ledger,
        progress: ProgressMaker,
        outlet: Outlet,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._listeners = listeners
        self._ledger = ledger
        self._progress = progress
        self._outlet = outlet
        self.identity: TopicIdentity | None = None
        self.offsets: dict[int, int] = {}
        # Why nothing is committed at present; None while all is well.
        self.blocked: str | None = None

    def tell(self, run: RunAccount) -> None:
        """Send a run's progress."""
        plan = self._ledger.plan(run.run_id)
        partition = plan.record.results_partition
        topic = self.identity.topic_id if self.identity is not None else ""
        position = Position(partition, topic, self.offsets.get(partition, 0))
        message = self._progress.make(run, plan, position, self.blocked)
        self._outlet.progress(message)
        for listener in self._listeners:
            listener(run, plan, message)
