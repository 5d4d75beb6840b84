"""Finished runs for the tests of reports: real rows in a real store, no broker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism.messages import Result, ResultRow, RunRecord, RunState, Usage
from prism_merger.reporting import facts_of
from prism_merger.reports.facts import Facts
from tests.unit.merger.world import World, run_record

PROMPT = {
    "system_prompt": "Say what it is.",
    "columns_to_code": ["Topic", "Mood", "Note"],
    "validation_rules": {"valid_topic": ["Billing", "=Sum", "Other"], "valid_mood": ["good", "bad"]},
    "not_applicable_defaults": {"Topic": "Other", "Mood": "neutral"},
}
HOSTILE = (
    "</script><script>document.title='taken'</script>",
    '<img src=x onerror="alert(1)">',
    '<a href="https://evil.example">x</a>',
    "=cmd|' /c calc'!A1",
    "a|b\\|c`d``e",
    "**bold** [x](https://evil.example)",
    "\u202egnp.exe",
    "two\nlines\u2028three\r",
    "&lt;b&gt; %{x} $x$",
    "x" * 9_000,
    *("`", " ", "2020-01-01", "007", "日本語", "<!--", "]]>", "'\"", "😀", "\x1b[31mred"),
)

Row = tuple[str, Sequence[str] | None]
"""A message, and its three values; None for a failed row."""


def merged(
    folder: Path,
    rows: Sequence[Row],
    batch: int = 10,
    job: dict[str, Any] | None = None,
    run_id: str = "r1",
    delimiter: str = ",",
) -> tuple[World, RunRecord]:
    """A run all of whose rows are merged; not published yet."""
    record = run_record(run_id, rows=len(rows), batch=batch, job=job)
    files = [one.model_copy(update={"delimiter": delimiter}) for one in record.files]
    record = record.model_copy(update={"prompt": PROMPT, "files": files})
    world = World(folder, [record])
    world.merge([_result(record, rows, sequence, batch) for sequence in range(-(-len(rows) // batch))])
    return world, record


def finished(folder: Path, rows: Sequence[Row], **options: Any) -> World:
    """A run that was told."""
    world, record = merged(folder, rows, **options)
    world.finish(record.run_id)
    return world


def facts(world: World, run_id: str = "r1", state: RunState = RunState.MERGING) -> Facts:
    """What the merger would hand over."""
    plan = world.ledger.plan(run_id)
    return facts_of(world.run(run_id), plan, world.places.of(plan.job), state, world.store)


def _result(record: RunRecord, rows: Sequence[Row], sequence: int, batch: int) -> Result:
    first = sequence * batch
    return Result(
        run_id=record.run_id, label="march", sequence=sequence, first_row=first, model="m", batch_size=batch,
        rows=[
            _row(first + number, *one) for number, one in enumerate(rows[first : first + batch])
        ],
        usage=Usage(calls=1, prompt_tokens=30, completion_tokens=10, model_seconds=0.5),
    )  # fmt: skip


def _row(number: int, message: str, values: Sequence[str] | None) -> ResultRow:
    cells = [str(number + 1), message, "0"]
    if values is None:
        return ResultRow(row_id=cells[0], cells=cells, reason="not_json", detail=message[:100])
    return ResultRow(row_id=cells[0], cells=cells, values=list(values))
