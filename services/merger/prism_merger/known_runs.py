"""Which runs this merger can show, and where their files lie; asked by the HTTP threads.

Each question opens the store for reading by itself, so that no connection is shared between threads, and
takes one look into the table of runs (a dictionary, which the loop's thread changes by single assignments).
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from prism.messages import RunRecord
from prism.runs.table import RunsTable
from prism_merger.accounts import Stage
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.run_files import RunFiles, places_of


class UnknownRun(Exception):
    """No run of that name here."""


class ElsewhereRun(UnknownRun):
    """Another merger's run."""

    def __init__(self, ordinal: int) -> None:
        super().__init__(f"merger {ordinal} has it")
        self.ordinal = ordinal


class NotYetKnown(Exception):
    """The runs topic is not read yet."""


@dataclass
class KnownRuns:
    """The runs of one merger. `table` is None until the runs topic is read."""

    root: Path
    store: Path
    ordinal: int = 0
    replicas: int = 1
    table: RunsTable | None = None

    def files(self, run_id: str) -> RunFiles:
        """Return a run's files. Raise UnknownRun, ElsewhereRun, NotYetKnown.

        The store knows whatever this merger has merged. Runs that ended before this store was begun are in
        the runs topic; of those that even the topic has forgotten the manifest says where they wrote.
        """
        plan = self._plan(run_id)
        record = None if plan is not None else self._record(run_id)
        if plan is None and record is not None and record.results_partition % self.replicas != self.ordinal:
            raise ElsewhereRun(record.results_partition % self.replicas)
        known = plan or record
        files = RunFiles(run_id, places_of(self.root, known.job) if known else Places(self.root))
        manifest = files.manifest() if known is None else {}
        if known is None and not manifest:
            if self.table is None:
                raise NotYetKnown
            raise UnknownRun
        snapshot = manifest.get("config_snapshot")
        return RunFiles(run_id, places_of(self.root, snapshot)) if isinstance(snapshot, dict) else files

    def _plan(self, run_id: str) -> RunRecord | None:
        """Return what the store keeps of a run; None for one that it did not merge itself."""
        if not self.store.is_file():
            return None
        address = f"{self.store.absolute().as_uri()}?mode=ro"
        query = "SELECT plan, account FROM plans JOIN runs USING (run_id) WHERE run_id=?"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=5)) as database:
                row = database.execute(query, (run_id,)).fetchone()
        except sqlite3.Error:
            # Being made, or damaged: the merger says so on /ready. The topic and the manifest may know.
            return None
        if row is None or json.loads(row[1]).get("stage") == Stage.LEFT_ALONE:
            return None
        return RunPlan.from_json(row[0]).record

    def _record(self, run_id: str) -> RunRecord | None:
        return None if self.table is None else self.table.runs.get(run_id)
