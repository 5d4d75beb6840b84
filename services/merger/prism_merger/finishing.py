"""What becomes due once results are merged: parts, publication, the dropping of rows."""

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from prism.kafka.errors import BrokerAway, BrokerFatal
from prism.runs.table import RunsTable
from prism.service.logs import get_logger
from prism.service.readiness import Readiness
from prism_merger.accounts import ReportsState, RunAccount, Stage
from prism_merger.desk import Desk
from prism_merger.ledger import Ledger
from prism_merger.plans import is_broken_off
from prism_merger.publication import Publisher, parts_order
from prism_merger.shelves import StoreAway
from prism_merger.store import Store
from prism_merger.verdict import verdict
from prism_merger.volume import no_space

log = get_logger(__name__)

_EVERY_S = 0.2
_RETRY_S = 1.0
# A store that is away is far away: asking it every second brings nothing.
_STORE_RETRY_S = 10.0
# One run's trouble must not stop the others, nor eat the processor.
_UNFORESEEN_RETRY_S = 30.0
# One turn's share of dropping a published run's rows: a few milliseconds.
_DROP_ROWS = 300
_VACUUM_PAGES = 600


class Finisher:
    """Looks at the runs that changed at once, at all others a few times a second."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        table: RunsTable,
        desk: Desk,
        publisher: Publisher,
        readiness: Readiness,
        clock: Callable[[], float],
        quiet_s: float,
        folder: Path,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._table = table
        self._desk = desk
        self._publisher = publisher
        self._readiness = readiness
        self._clock = clock
        self._quiet_s = quiet_s
        self._folder = folder
        self._last_result: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._looked = 0.0
        # Whether there is something to do even if no result comes.
        self.eager = False

    def turn(self, changed: Iterable[RunAccount]) -> None:
        """Go on with what is going on, and begin what is due."""
        for name, error in self._desk.turn():
            if error is None:
                self._succeeded(name)
            else:
                self._failed(name, error)
        now = self._clock()
        runs = [self._ledger.runs[one.run_id] for one in changed if one.run_id in self._ledger.runs]
        for run in runs:
            if run.takes_results:
                self._last_result[run.run_id] = now
        if now - self._looked >= _EVERY_S or self.eager:
            self._looked = now
            runs = list(self._ledger.runs.values())
        self.eager = False
        for run in runs:
            if run.run_id not in self._desk and now >= self._not_before.get(run.run_id, 0.0):
                self._consider(run, now)
        self._drop_some()

    def _consider(self, run: RunAccount, now: float) -> None:
        if run.stage is Stage.MERGING:
            self._consider_merging(run, now)
        if run.stage in (Stage.PUBLISHING, Stage.CLOSED) and run.run_id not in self._desk:
            self._desk.begin(run.run_id, self._publisher.publish(run))

    def _consider_merging(self, run: RunAccount, now: float) -> None:
        plan, record = self._ledger.plan(run.run_id), self._ledger.record(run.run_id)
        if record is not None and is_broken_off(record):
            self._last_result.setdefault(run.run_id, now)
        silent_s = now - self._last_result.get(run.run_id, now)
        cursor = self._table.cursors.get(run.run_id)
        parent = self._table.runs.get(plan.record.parent)
        found = verdict(run, plan, record, cursor, silent_s, self._quiet_s, parent)
        if found is not None:
            self._publisher.decide(run, found)
            return
        for file in run.files.values():
            if parts_order(run, file, plan, last=False).due:
                self._desk.begin(run.run_id, self._publisher.parts(run, file))
                return

    def _failed(self, run_id: str, error: BaseException) -> None:
        """Begin the run's task again, from what the store shows: soon, or later if nobody foresaw it."""
        if isinstance(error, BrokerFatal):
            raise error
        run = self._store.load_run(run_id)
        if run is not None:
            self._ledger.keep(run)
        foreseen = isinstance(error, OSError | sqlite3.Error | BrokerAway)
        self._not_before[run_id] = self._clock() + (_RETRY_S if foreseen else _UNFORESEEN_RETRY_S)
        reason = no_space(error, self._folder) or f"cannot publish {run_id}: {error!r}"
        if isinstance(error, StoreAway):
            reason = f"cannot publish {run_id}: {error}"
            self._not_before[run_id] = self._clock() + _STORE_RETRY_S
        if run is not None:
            run.waits_for = reason
        if not isinstance(error, BrokerAway):
            self._readiness.set("files", False, reason)
        log.error("publication_delayed", run=run_id, reason=reason)

    def _succeeded(self, run_id: str) -> None:
        if self._not_before.pop(run_id, None) is not None and not self._not_before:
            self._readiness.set("files", True)

    def _drop_some(self) -> None:
        """Drop some rows of a run of which everybody has been told, once nothing reads them any more."""
        run = next((one for one in self._ledger.runs.values() if _is_over(one)), None)
        if run is None:
            return
        self.eager = True
        with self._store.transaction():
            gone = sum(self._store.drop_rows(file.file_id, _DROP_ROWS) for file in run.files.values())
            if not gone:
                run.stage = Stage.DONE
                self._store.save_run(run)
        self._store.vacuum_some(_VACUUM_PAGES)
        if not gone:
            self._store.fold_in()
            self._last_result.pop(run.run_id, None)
            if not run.manifest_stale:
                self._ledger.release(run)


def _is_over(run: RunAccount) -> bool:
    return run.stage is Stage.TOLD and run.reports is not ReportsState.DUE
