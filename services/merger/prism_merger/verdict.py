"""When a run is complete, and what becomes of its output: pure."""

from dataclasses import dataclass

from prism.messages import Cursor, RowReason, RunRecord, RunState
from prism.runs.job import Merge
from prism_merger.accounts import Outcome, RunAccount
from prism_merger.plans import RunPlan, fed_batches, is_broken_off

# The last cursor may be a second old: what was fed after it must have time to come back.
CURSOR_AGE_S = 1.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a run of which nothing more will come."""

    outcome: Outcome
    detail: str | None = None
    partial: bool = False
    missing_reason: str = RowReason.CANCELLED.value


def is_complete(run: RunAccount, plan: RunPlan) -> bool:
    """Return whether every row has its record."""
    return all(
        one.columns and one.label in run.files and run.files[one.label].merged.through == one.batches
        for one in plan.record.files
    )


def verdict(
    run: RunAccount,
    plan: RunPlan,
    record: RunRecord | None,
    cursor: Cursor | None,
    silent_s: float,
    quiet_s: float,
    parent: RunRecord | None = None,
) -> Verdict | None:
    """Return what becomes of the run; None while results are to come.

    `silent_s`: seconds since its last result, or since its end was seen. `quiet_s`: after so many a
    broken-off run gets no more. `parent`: whose failed rows these are, and whose output is judged.
    """
    if record is not None and is_broken_off(record):
        return _broken_off(run, plan, record, cursor, silent_s, quiet_s)
    asked = record is not None and record.merge_asked
    rows = plan.record.rows if parent is None else parent.rows
    return _complete(run, plan, asked, rows) if is_complete(run, plan) else None


def _complete(run: RunAccount, plan: RunPlan, asked: bool, rows: int) -> Verdict | None:
    merge = plan.job.merge
    if not merge.auto_merge and not asked:
        return None
    if merge.condition == "any_success" and rows and run.failed == rows:
        return Verdict(Outcome.WITHHELD, "merge.condition is any_success, and no row has an answer")
    # Of several models that do every row, rows are counted when their answers stand side by side.
    excess = None if plan.job.model.fans_out else excess_of(merge, rows, run.failed)
    return Verdict(Outcome.PUBLISHED) if excess is None else Verdict(Outcome.WITHHELD, excess)


def excess_of(merge: Merge, rows: int, failed: int) -> str | None:
    """Return why an output with so many failed rows is withheld; None if it is not."""
    if merge.allows(rows, failed):
        return None
    return f"{failed} of {rows} rows failed, merge.max_failed allows {merge.max_failed}"


def _broken_off(
    run: RunAccount, plan: RunPlan, record: RunRecord, cursor: Cursor | None, silent_s: float, quiet_s: float
) -> Verdict | None:
    waiting = any(
        one.label in run.files and run.files[one.label].merged.through < fed_batches(cursor, one.label)
        for one in plan.record.files
    )
    if silent_s < quiet_s and (waiting or silent_s < CURSOR_AGE_S):
        return None
    cancelled = record.state is RunState.CANCELLED
    reason = RowReason.CANCELLED.value if cancelled else (record.reason or "failed")
    why = "the run was cancelled" if cancelled else f"the run failed: {record.reason or 'unknown'}"
    if plan.job.merge.condition == "always" and plan.renderers:
        return Verdict(
            Outcome.PUBLISHED, f"{why}; the output is partial", partial=True, missing_reason=reason
        )
    return Verdict(Outcome.WITHHELD, why, missing_reason=reason)
