"""A new store in an old world: after a lost volume, what was published stays as it is.

The rest comes back by itself: `prism.results` is read from its start, and holds everything that an
unpublished run needs.
"""

from collections.abc import Mapping

from prism.messages import OutputPublished
from prism.service.logs import get_logger
from prism_merger.accounts import FileAccount, Outcome, OutputMark, RunAccount, Stage
from prism_merger.manifest import restore
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.sequences import MergedSequences
from prism_merger.store import Store

log = get_logger(__name__)

Announced = Mapping[tuple[str, str], OutputPublished]


def adopt_published(
    run: RunAccount, plan: RunPlan, store: Store, places: Places, announced: Announced
) -> RunAccount:
    """Return a new account with what an earlier store has published taken over, saved."""
    found = restore(run, plan, places.of(plan.job))
    if found is not None:
        found.stage = Stage.CLOSED
    else:
        found = run
        for label, file in run.files.items():
            event = announced.get((run.run_id, label))
            if event is not None:
                _adopt(file, event, plan)
        if run.files and all(file.has_name for file in run.files.values()):
            found.outcome, found.stage, found.manifest_stale = Outcome.PUBLISHED, Stage.CLOSED, True
        if found.failed:
            found.failed_by_reason["unknown"] = found.failed
    with store.transaction():
        store.save_run(found)
    if found.stage is Stage.CLOSED:
        log.info("run_found_published", run=run.run_id, outcome=found.outcome)
    return found


def _adopt(file: FileAccount, event: OutputPublished, plan: RunPlan) -> None:
    source = plan.file(file.label)
    name = event.path.rsplit("/", 1)[-1]
    file.output = OutputMark(name, event.sha256, event.bytes, event.rows)
    file.has_name = True
    file.ok, file.failed = event.rows_ok, event.rows_failed
    file.merged = MergedSequences(source.batches, source.rows)
