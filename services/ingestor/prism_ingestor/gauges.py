"""What the metrics show of the ingestor's state: looked up at each scrape, or noted once a second."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum

from prism.messages import RunState, WorkerState
from prism_ingestor import metrics
from prism_ingestor.broker_probe import BrokerProbe
from prism_ingestor.feeder import Feeder
from prism_ingestor.feeding import RunFeed
from prism_ingestor.fleet_view import FleetView
from prism_ingestor.ledger import Ledger
from prism_ingestor.showcase import Showcase, ShownRun
from prism_ingestor.stalls import StallCause

# A slow model's batch takes a minute; of a run that is worked on something is merged more often than this.
LATE_S = 300.0
# The broker is asked every two seconds, while there is something to ask for.
VIEW_KEPT_S = 15.0

_OPEN = [one for one in RunState if not one.ended]
_LIVE = [one for one in WorkerState if one is not WorkerState.STOPPED]
_FED = (RunState.RUNNING, RunState.MERGING)

Values = dict[tuple[str, ...], float]


class Gauges:
    """Of the loop's thread but for what scrapes look up: that only reads. A stand-by shows none of it."""

    def __init__(
        self,
        ledger: Ledger,
        feeder: Feeder,
        view: FleetView,
        probe: BrokerProbe,
        clock: Callable[[], float],
    ) -> None:
        # Of each run that is stalled, why.
        self.stalls: Mapping[str, StallCause] = {}
        self.showcase = Showcase()
        self._ledger = ledger
        self._feeder = feeder
        self._view = view
        self._probe = probe
        self._clock = clock
        self._active = False

    def start(self) -> None:
        """Let the metrics show what is here."""
        self.showcase.start()
        metrics.RUNS_OPEN.read(self._open_runs)
        metrics.RUNS_STALLED.read(self._stalled_runs)
        metrics.WORKERS_LAG.read(self._workers_lag)
        self.stand_by()

    def stand_by(self) -> None:
        """Show that there is nothing to show here."""
        self._active = False
        self.stalls = {}
        self.showcase.clear()
        metrics.UNMERGED.set(0)
        metrics.WINDOW.set(0)
        for progress in ("moving", "late"):
            metrics.UNMERGED_ROWS.labels(progress).set(0)
        metrics.WORKERS.read(lambda: {(one,): 0.0 for one in _LIVE})

    def turn(self, now: float) -> None:
        """Show what is so now; once a second."""
        self._active = True
        feeds = self._feeder.feeds
        metrics.UNMERGED.set(sum(feed.unmerged for feed in feeds.values()))
        late = sum(feed.unmerged_rows for feed in feeds.values() if self._is_late(feed, now))
        metrics.UNMERGED_ROWS.labels("late").set(late)
        metrics.UNMERGED_ROWS.labels("moving").set(sum(one.unmerged_rows for one in feeds.values()) - late)
        workers = _counted(_LIVE, Counter(one.state for one in self._view.live_workers()))
        metrics.WORKERS.read(lambda: workers)
        self.showcase.show(self._shown(), now)

    def _is_late(self, feed: RunFeed, now: float) -> bool:
        record = self._ledger.runs.get(feed.run_id)
        fed = record is not None and record.state in _FED
        held_up = feed.out_of_budget is not None or self.stalls.get(feed.run_id) is StallCause.QUOTA
        return fed and not held_up and now - feed.moved_at > LATE_S

    def _shown(self) -> Iterator[ShownRun]:
        for run_id, record in self._ledger.runs.items():
            feed = self._feeder.feeds.get(run_id)
            unmerged = feed.unmerged if feed is not None else 0
            progress = self._view.progress.get(run_id)
            yield ShownRun(run_id, record.rows, unmerged, run_id in self.stalls, progress)

    def _open_runs(self) -> Values:
        runs = list(self._ledger.runs.values()) if self._active else []
        return _counted(_OPEN, Counter(one.state for one in runs))

    def _stalled_runs(self) -> Values:
        return _counted(StallCause, Counter(self.stalls.values()))

    def _workers_lag(self) -> Values:
        view = self._probe.view
        if not self._active or view is None:
            return {}
        if self._clock() - view.asked_at > VIEW_KEPT_S:
            # Nothing is fed, so nobody asks. An autoscaler without a value takes no pod away.
            return {} if self._feeder.feeds else {(str(one),): 0.0 for one in view.high}
        behind = {one: high - view.committed.get(one, 0) for one, high in view.high.items()}
        return {(str(one),): float(max(0, lag)) for one, lag in behind.items()}


def _counted(names: Iterable[StrEnum], counts: Mapping[StrEnum, int]) -> Values:
    """Return a count for every name, 0 included: a series that comes and goes cannot be compared."""
    return {(one.value,): float(counts.get(one, 0)) for one in names}
