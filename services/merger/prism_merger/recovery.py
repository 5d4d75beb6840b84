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

Announced = Mapping[tuple[str, str, str], OutputPublished]


def adopt_published(
    run: RunAccount, plan: RunPlan, store: Store, places: Places, announced: Announced
) -> RunAccount:
    """Return a new account with what an earlier store has published taken over, saved."""
    found = restore(run, plan, places.of(plan.job))
    if found is not None:
        found.stage = Stage.CLOSED
    else:
        found = run
        adopted = [_adopt(run.run_id, file, plan, announced) for file in run.files.values()]
        if adopted and all(adopted):
            found.outcome, found.stage, found.manifest_stale = Outcome.PUBLISHED, Stage.CLOSED, True
        if found.failed:
            found.failed_by_reason["unknown"] = found.failed
    with store.transaction():
        store.save_run(found)
    if found.stage is Stage.CLOSED:
        log.info("run_found_published", run=run.run_id, outcome=found.outcome)
    return found


def _adopt(run_id: str, file: FileAccount, plan: RunPlan, announced: Announced) -> bool:
    """Take over a file of which every format was announced; return whether it was.

    Of any other all is made again: what stands already is found under its name, with the same bytes.
    """
    events = [announced.get((run_id, file.label, form)) for form in plan.job.output.formats]
    known = [one for one in events if one is not None]
    if len(known) < len(events):
        return False
    for event in known:
        name = (event.path or event.uri).rsplit("/", 1)[-1]
        uri = "" if event.path else event.uri
        mark = OutputMark(name, event.sha256, event.bytes, event.rows, uri=uri, named=True)
        file.outputs[event.format] = mark
        file.ok, file.failed = event.rows_ok, event.rows_failed
    source = plan.file(file.label)
    file.merged = MergedSequences(source.batches, source.rows)
    return True
