"""What becomes of a run: started after pass 1, paused, resumed, cancelled, ended by what is merged."""

import queue
from collections.abc import Callable
from functools import partial

from prism.messages import CommandName, FileReason, MergeState, Progress, RunRecord, RunState
from prism.service.logs import get_logger
from prism_ingestor.checking import Checked, Checker
from prism_ingestor.feeder import Feeder
from prism_ingestor.feeding import RunFeed
from prism_ingestor.fleet_view import FleetView
from prism_ingestor.ledger import Ledger
from prism_ingestor.sources import SourceChanged, Sources

log = get_logger(__name__)

_BEFORE_MERGING = (RunState.RUNNING, RunState.PAUSED)


class RunStates:
    """Writes every change of state but the first one, and starts and ends what hangs on it.

    Argument. The ledger holds the unended runs, and an end is for good: whatever comes in for a run is
    looked up there first, so that a check that ends late, a progress that comes late or a command given
    twice finds no run, or an ended one, and changes nothing. A run that is cancelled before pass 1 is over
    has no cursor: for the merger that means that no batch was fed, so that there is none to wait for.
    """

    def __init__(
        self,
        ledger: Ledger,
        feeder: Feeder,
        checker: Checker,
        sources: Sources,
        view: FleetView,
        clock: Callable[[], float],
        hear: Callable[[Progress], None],
    ) -> None:
        """`hear` is told again what was merged of a run before its feed was there."""
        self._ledger = ledger
        self._feeder = feeder
        self._checker = checker
        self._sources = sources
        self._view = view
        self._clock = clock
        self._hear = hear

    def known(self, run_id: str) -> RunRecord | None:
        """Return a run as it stands. Of what has just been written here `prism.runs` may know nothing yet."""
        return self._ledger.known(run_id) or self._view.runs.runs.get(run_id)

    # After pass 1

    def start_checked(self) -> None:
        """Start or refuse what pass 1 is through with."""
        while True:
            try:
                checked = self._checker.done.get_nowait()
            except queue.Empty:
                return
            record = self._ledger.runs.get(checked.run_id)
            if record is None:
                self._sources.forget(checked.run_id)  # it has ended meanwhile
            elif checked.run_id not in self._feeder.feeds:
                self._start(record, checked)

    def _start(self, record: RunRecord, checked: Checked) -> None:
        first = record.state is RunState.ACCEPTED
        if checked.reason is not None:
            self._ledger.write(
                record,
                state=RunState.REFUSED if first else RunState.FAILED,
                reason=checked.reason,
                detail=checked.detail,
                line=checked.line,
                column=checked.column,
            )
            self._sources.forget(record.run_id)
            return
        begin = partial(self._begin, self._feeder.feed_of(record, checked))
        if not first:
            begin()
            return
        changes = {
            "state": RunState.RUNNING,
            "stalled": None,
            "prompt": checked.prompt,
            "files": list(checked.files),
        }
        # Only then: a worker that meets a batch finds the run by reading `prism.runs` to its end.
        self._ledger.write(record, begin, **changes)

    def _begin(self, feed: RunFeed) -> None:
        if feed.run_id in self._ledger.runs:
            self._feeder.begin(feed)
        # It may have come before the feed was here to hear of it.
        progress = self._view.progress.get(feed.run_id)
        if progress is not None:
            self._hear(progress)

    # Commands

    def obey(self, record: RunRecord, command: CommandName) -> bool:
        """Carry a command out, one that changes nothing included; return False while it has to wait."""
        if record.state is RunState.ACCEPTED and command is not CommandName.CANCEL:
            # Nothing is fed that a pause could hold back; and `paused` would say that pass 1 is over.
            return False
        log.info("command", run_id=record.run_id, command=command, state=record.state)
        if command is CommandName.PAUSE and record.state is RunState.RUNNING:
            self._ledger.write(record, state=RunState.PAUSED)
        elif command is CommandName.RESUME and record.state is RunState.PAUSED:
            self._ledger.write(record, state=RunState.RUNNING)
            if record.run_id in self._feeder.feeds:
                self._feeder.feeds[record.run_id].moved_at = self._clock()
        elif command is CommandName.MERGE and not record.state.ended:
            self._ledger.change(record.run_id, merge_asked=True)
        elif command is CommandName.CANCEL and not record.state.ended:
            self.end(record, RunState.CANCELLED, "cancelled", "cancelled by command")
        return True

    # Ends

    def progressed(self, progress: Progress) -> None:
        """Take credit from what is merged, and end the run with its publication."""
        feed = self._feeder.feeds.get(progress.run_id)
        record = self._ledger.runs.get(progress.run_id)
        if feed is None or record is None or not self._feeder.take_credit(feed, progress):
            return
        changed = _changed_model(progress)
        if changed:
            digests = ", ".join(one[:12] for one in changed)
            detail = f"the model changed in the middle: {digests}; send the file again under another run id"
            self.end(record, RunState.FAILED, FileReason.MODEL_CHANGED, detail)
        elif record.state in _BEFORE_MERGING and feed.stops_at_failure and progress.rows_failed:
            detail = f"{progress.rows_failed} rows failed, and error_handling.strategy is stop"
            self.end(record, RunState.FAILED, FileReason.ROW_FAILED, detail)
        elif progress.state is MergeState.PUBLISHED:
            failed = progress.rows_failed > 0
            state = RunState.COMPLETED_WITH_FAILURES if failed else RunState.COMPLETED
            self.end(record, state, None, progress.detail)
        elif progress.state is MergeState.WITHHELD:
            self.end(record, RunState.COMPLETED_WITH_FAILURES, "withheld", progress.detail)
        elif record.state is RunState.RUNNING and feed.all_fed and feed.unmerged == 0:
            self._ledger.change(record.run_id, state=RunState.MERGING, stalled=None)

    def source_changed(self, run_id: str, error: SourceChanged) -> None:
        """Fail a run whose source is not what was accepted."""
        self.end(self._ledger.runs[run_id], RunState.FAILED, error.reason, error.detail)

    def end(self, record: RunRecord, state: RunState, reason: str | None, detail: str | None) -> None:
        """End a run for good. Its last cursor is written before its end, for whoever reads that."""
        self._feeder.remove(record.run_id)
        self._ledger.write(record, state=state, reason=reason, detail=detail, stalled=None)
        self._checker.drop(record.run_id)
        self._sources.forget(record.run_id)


def _changed_model(progress: Progress) -> list[str]:
    """Return the digests of a model that has had more than one."""
    found = [one.digests for one in progress.models.values()] or [progress.model_digests]
    return next((one for one in found if len(one) > 1), [])
