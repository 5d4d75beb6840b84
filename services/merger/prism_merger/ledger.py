"""The accounts and plans in memory, for the runs for which something remains to be done.

What is settled is read from the store when it is asked for, so that memory does not grow with history.
"""

from prism.annotation.prompt_file import PromptRefused
from prism.messages import RunRecord, RunState
from prism.runs.job import JobRefused
from prism.runs.table import RunsTable
from prism.service.logs import get_logger
from prism_merger.accounts import ModelAccount, RunAccount, Stage
from prism_merger.plans import RunPlan, is_broken_off, is_started
from prism_merger.store import Store

log = get_logger(__name__)

_BEGUN = "begun"


class Ledger:
    """Runs of this merger's partitions. Changes to accounts become durable by `Store.save_run`."""

    def __init__(
        self, store: Store, table: RunsTable, ordinal: int = 0, replicas: int = 1, cluster_id: str = ""
    ) -> None:
        self._store = store
        self._table = table
        self._ordinal = ordinal
        self._replicas = replicas
        self._cluster_id = cluster_id
        self._plans: dict[str, RunPlan] = {}
        self.runs: dict[str, RunAccount] = {}
        self.reload()

    def reload(self) -> None:
        """Forget what is not in the store: after a failed commit, or at the start."""
        self.runs = {}
        for run_id in self._store.open_runs():
            run = self._store.load_run(run_id)
            if run is not None:
                self.runs[run_id] = run

    def is_mine(self, record: RunRecord) -> bool:
        """Return whether this merger owns the run's results partition."""
        return record.results_partition % self._replicas == self._ordinal

    def record(self, run_id: str) -> RunRecord | None:
        """Return what `prism.runs` says of a run now."""
        return self._table.runs.get(run_id)

    def records(self) -> list[RunRecord]:
        """Return what `prism.runs` says of all runs now."""
        return list(self._table.runs.values())

    def find(self, run_id: str) -> RunAccount | None:
        """Return a run's account, a settled one from the store; None for one never opened."""
        return self.runs.get(run_id) or self._store.load_run(run_id)

    def keep(self, run: RunAccount) -> None:
        """Hold a settled run in memory again, because something remains to be done."""
        self.runs[run.run_id] = run

    def release(self, run: RunAccount) -> None:
        """Forget a run for which nothing remains to be done."""
        self.runs.pop(run.run_id, None)
        self._plans.pop(run.run_id, None)

    def plan(self, run_id: str) -> RunPlan:
        """Return a run's plan; KeyError for a run that was never opened."""
        found = self._plans.get(run_id)
        if found is None:
            text = self._store.plan(run_id)
            if text is None:
                raise KeyError(run_id)
            found = RunPlan.from_json(text)
            if run_id in self.runs:
                self._plans[run_id] = found
        return found

    def take_in(self, record: RunRecord) -> RunAccount | None:
        """Open the accounts of a run that has begun, or take over what has changed of it.

        Return the accounts if they are new.
        """
        if not self.is_mine(record) or not (is_started(record) or is_broken_off(record)):
            return None
        run = self.find(record.run_id)
        if run is not None and self._is_another(run, record):
            self._forget(run)
            run = None
        if run is not None and (run.stage is not Stage.MERGING or is_broken_off(record)):
            return None  # an ended run's record may have lost its prompt: the plan that is kept stays
        plan = _usable_plan(record)
        if plan is None or (run is not None and plan.same_as(self.plan(record.run_id))):
            return None
        new = run is None
        with self._store.transaction():
            if run is None:
                run = self._store.add_run(
                    record.run_id, [one.label for one in record.files], plan.to_json(), Stage.MERGING
                )
                run.cluster_id = self._cluster_id
                models = plan.job.model
                run.by_model = {name: ModelAccount() for name in models.names} if models.several else {}
                self._store.save_run(run)
                log.info("run_opened", run=record.run_id, state=record.state, rows=record.rows)
            else:
                self._store.set_plan(record.run_id, plan.to_json())
        self.runs[record.run_id] = run
        self._plans[record.run_id] = plan
        return run if new else None

    def _is_another(self, run: RunAccount, record: RunRecord) -> bool:
        """Return whether a run of an earlier cluster has the name of a new one."""
        if run.cluster_id == self._cluster_id:
            return False
        return self.plan(run.run_id).record.created_at != record.created_at

    def _forget(self, run: RunAccount) -> None:
        log.warning("run_of_another_cluster_forgotten", run=run.run_id, stage=run.stage)
        with self._store.transaction():
            self._store.forget_run(run)
        self.release(run)

    @property
    def is_new(self) -> bool:
        """Whether the store is new: what earlier ones did is not taken over yet."""
        return self._store.meta(_BEGUN) is None

    def leave_ended_alone(self) -> None:
        """When the store is new: runs that have ended are not opened again.

        After a lost volume their results may be gone from the topic; their files are published.
        """
        ended = [one for one in self._table.runs.values() if one.state.ended and self.is_mine(one)]
        with self._store.transaction():
            for record in ended:
                if record.state is not RunState.REFUSED and self._store.load_run(record.run_id) is None:
                    bare = record.model_copy(update={"job": {}, "prompt": {}, "files": []})
                    run = self._store.add_run(record.run_id, [], RunPlan(bare).to_json(), Stage.LEFT_ALONE)
                    run.cluster_id = self._cluster_id
                    self._store.save_run(run)
        if ended:
            log.info("ended_runs_left_alone", runs=len(ended))

    def begun(self) -> None:
        """Note that the store is not new any more."""
        with self._store.transaction():
            self._store.set_meta(_BEGUN, "1")


def _usable_plan(record: RunRecord) -> RunPlan | None:
    try:
        plan = RunPlan.of(record)
        _ = plan.job, plan.renderers
    except (PromptRefused, JobRefused) as error:
        log.error("run_not_usable", run=record.run_id, error=error)
        return None
    return plan
