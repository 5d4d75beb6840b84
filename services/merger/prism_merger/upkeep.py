"""What happens by the clock: progress of runs to which nothing happens, losses, deletion, gauges."""

from collections.abc import Callable, Iterator

from prism.service.logs import get_logger
from prism_merger.accounts import RunAccount, Stage
from prism_merger.ledger import Ledger
from prism_merger.losses import Loss
from prism_merger.merging import Merger
from prism_merger.metrics import Metrics
from prism_merger.places import Places
from prism_merger.plans import is_started
from prism_merger.publication import Publisher
from prism_merger.reading import ResultsReader
from prism_merger.recovery import adopt_published
from prism_merger.settings import MergerSettings
from prism_merger.status_files import LAST_BEAT_S, StatusFiles
from prism_merger.store import Store
from prism_merger.tables import Tables
from prism_merger.teller import Teller
from prism_merger.watch import TopicWatch

log = get_logger(__name__)

# The broker keeps heartbeats for a day.
_LOSSES_KEPT_S = 2 * 24 * 3600.0


class Upkeep:
    """Of the loop's thread."""

    def __init__(
        self,
        settings: MergerSettings,
        store: Store,
        ledger: Ledger,
        tables: Tables,
        merger: Merger,
        publisher: Publisher,
        teller: Teller,
        reader: ResultsReader,
        watch: TopicWatch,
        metrics: Metrics,
        status_files: StatusFiles,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._tables = tables
        self._merger = merger
        self._publisher = publisher
        self._teller = teller
        self._reader = reader
        self._watch = watch
        self._metrics = metrics
        self._status_files = status_files
        self._clock = clock
        self._wall_clock = wall_clock
        self._losses: list[Loss] = []
        self._told_at = self._deleted_at = clock()

    def start(self, places: Places) -> bool:
        """Open what `prism.runs` shows as going on; with a new store, take over what was published.

        Return True. May be done again after an error.
        """
        if self._ledger.is_new:
            self._ledger.leave_ended_alone()
        for record in list(self._tables.runs.runs.values()):
            if not record.state.ended:
                self._ledger.take_in(record)
        if self._ledger.is_new:
            for run in list(self._ledger.runs.values()):
                if run.stage is Stage.MERGING and run.first_offset is None:
                    plan = self._ledger.plan(run.run_id)
                    self._ledger.keep(adopt_published(run, plan, self._store, places, self._tables.announced))
            self._ledger.begun()
        self._tables.started()
        with self._store.transaction():
            self._store.forget_losses(self._wall_clock() - _LOSSES_KEPT_S)
        return True

    def turn(self) -> None:
        """Do what is due."""
        self._open_new()
        now = self._clock()
        if now - self._told_at >= self._settings.progress_s:
            self._told_at = now
            # Before the losses are counted: those who fell silent are forgotten then.
            self._status_files.turn()
            self._count_losses()
            self._refresh_manifests()
            self.broadcast()
            self._show()
        if now - self._deleted_at >= self._settings.delete_s:
            self._deleted_at = now
            self._delete()

    def broadcast(self) -> None:
        """Tell the progress of every run that has not ended, results or not."""
        for run in self._going_on():
            self._teller.tell(run)

    def finish(self) -> None:
        """Tell the last, and let workers tell their last of runs that have just ended."""
        self.broadcast()
        until = self._clock() + LAST_BEAT_S
        while self._status_files.waiting and self._clock() < until:
            self._tables.poll(0.05)
            self._status_files.turn()

    def _going_on(self) -> Iterator[RunAccount]:
        told = set()
        for run in self._ledger.runs.values():
            if run.stage in (Stage.MERGING, Stage.PUBLISHING, Stage.CLOSED) and self._ledger.record(
                run.run_id
            ):
                told.add(run.run_id)
                yield run
        for record in self._tables.runs.runs.values():
            if is_started(record) and self._ledger.is_mine(record) and record.run_id not in told:
                found = self._ledger.find(record.run_id)
                if found is not None and found.stage is not Stage.LEFT_ALONE:
                    yield found

    def _open_new(self) -> None:
        changed = self._tables.changed
        while changed:
            run_id, record = next(iter(changed.items()))
            run = self._ledger.take_in(record)
            del changed[run_id]
            if run is not None:
                self._teller.tell(run)

    def _count_losses(self) -> None:
        self._losses.extend(self._tables.workers.losses())
        while self._losses:
            for run in self._count_loss(self._losses[0]):
                self._teller.tell(run)
            del self._losses[0]

    def _count_loss(self, loss: Loss) -> list[RunAccount]:
        runs: list[RunAccount] = []
        with self._store.transaction():
            if not self._store.note_loss(loss.session, self._wall_clock()):
                return []
            for run_id, calls in loss.calls.items():
                run = self._ledger.find(run_id)
                if run is not None and run.stage is not Stage.LEFT_ALONE:
                    self._merger.add_extra_calls(run, calls)
                    self._store.save_run(run, [])
                    self._metrics.extra_calls.inc(calls)
                    runs.append(run)
        log.info("worker_lost", worker=loss.worker_id, session=loss.session, calls=loss.calls)
        return runs

    def _refresh_manifests(self) -> None:
        """Keep the calls true that the manifests of published runs show."""
        for run in list(self._ledger.runs.values()):
            if run.manifest_stale and run.stage in (Stage.TOLD, Stage.DONE):
                try:
                    self._publisher.refresh_manifest(run)
                except OSError as error:
                    log.warning("manifest_not_refreshed", run=run.run_id, error=error)
                    return
                if run.stage is Stage.DONE:
                    self._ledger.release(run)

    def _delete(self) -> None:
        """Let the broker forget the results below what an unpublished run has, and below what is merged."""
        identity, needed = self._teller.identity, dict(self._teller.offsets)
        if identity is None:
            return
        for run in self._ledger.runs.values():
            if run.stage in (Stage.MERGING, Stage.PUBLISHING) and run.first_offset is not None:
                partition = self._ledger.plan(run.run_id).record.results_partition
                if partition in needed:
                    needed[partition] = min(needed[partition], run.first_offset)
        self._watch.delete_soon(identity, {one: at for one, at in needed.items() if at > 0})

    def _show(self) -> None:
        runs = [one for one in self._ledger.runs.values() if one.stage in (Stage.MERGING, Stage.PUBLISHING)]
        self._metrics.open_runs.set(len(runs))
        self._metrics.reorder_buffer.set(sum(f.merged.waiting for one in runs for f in one.files.values()))
        lag: dict[tuple[str, ...], float] = {
            (str(one),): float(behind) for one, behind in self._reader.lag().items()
        }
        self._metrics.lag.read(lambda: lag)
