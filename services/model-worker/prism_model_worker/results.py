"""A finished task as the message that the merger reads."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from prism.annotation import Answer, Problem
from prism.messages import BatchRow, Result, ResultRow, RowReason, Usage
from prism.messages.topics import RESULT_MAX_BYTES
from prism_model_worker import metrics
from prism_model_worker.tasks import BatchTask

_MAX_DETAIL = 300
_MAX_WARNINGS = 8


def result_of(task: BatchTask, worker_id: str) -> Result:
    """Return the result of a task whose every row has an outcome."""
    columns = task.context.prompt_file.columns_to_code
    rows = [_row(row, task.outcomes[index], columns) for index, row in enumerate(task.batch.rows)]
    return Result(
        run_id=task.batch.run_id,
        label=task.batch.label,
        sequence=task.batch.sequence,
        first_row=task.batch.first_row,
        rows=rows,
        model=task.context.model,
        model_digest=task.model_digest,
        batch_size=task.context.job.model.batch_size,
        usage=Usage(
            calls=task.calls,
            repeated_calls=task.repeated_calls,
            prompt_tokens=task.prompt_tokens,
            completion_tokens=task.completion_tokens,
            model_seconds=round(task.model_seconds, 6),
            load_seconds=round(task.load_seconds, 6),
            reused_rows=task.reused,
        ),
        worker_id=worker_id,
        finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


def encode(task: BatchTask, worker_id: str) -> tuple[Result, bytes]:
    """Return result and bytes; a result too large for a message becomes failures that say so."""
    result = result_of(task, worker_id)
    value = result.to_bytes()
    if len(value) <= RESULT_MAX_BYTES:
        return result, value
    too_large = Problem(RowReason.RESULT_TOO_LARGE, f"the batch's result has {len(value)} bytes")
    kept = replace(task, outcomes=dict.fromkeys(task.outcomes, too_large))
    result = result_of(kept, worker_id)
    return result, result.to_bytes()


def _row(row: BatchRow, outcome: Answer | Problem, columns: tuple[str, ...]) -> ResultRow:
    if isinstance(outcome, Answer):
        values = [outcome.values[name] for name in columns]
        warnings = list(outcome.warnings[:_MAX_WARNINGS])
        return ResultRow.model_construct(
            row_id=row.row_id, cells=row.cells, values=values, warnings=warnings, reason=None, detail=None
        )
    return ResultRow(
        row_id=row.row_id, cells=row.cells, reason=outcome.reason, detail=outcome.detail[:_MAX_DETAIL] or None
    )


def measure(result: Result) -> None:
    """Count a result that is acknowledged."""
    failed = Counter(row.reason for row in result.rows if row.reason is not None)
    ok = len(result.rows) - failed.total()
    metrics.ROWS.labels("ok", "").inc(ok)
    for reason, rows in failed.items():
        metrics.ROWS.labels("failed", metrics.REASON(reason)).inc(rows)
    metrics.REUSED_ROWS.inc(result.usage.reused_rows)
    metrics.BATCHES.labels("ok" if not failed else "partial" if ok else "failed").inc()
