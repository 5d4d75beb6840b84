"""Finished runs for the tests of reports: real rows in a real store, no broker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prism.messages import Cursor, CutPosition, FileCursor, Result, ResultRow, RunRecord, RunState, Usage
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

Compared = tuple[str, Sequence[Sequence[str] | None]]
"""A message, and of each model its three values; None where it failed."""


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


def compared(
    folder: Path,
    rows: Sequence[Compared],
    models: Sequence[str] = ("a", "b"),
    batch: int = 10,
    labels: Sequence[str] = ("march",),
    job: dict[str, Any] | None = None,
    without: Sequence[tuple[str, int]] = (),
) -> World:
    """A run in which each of several models did every row of each file; told.

    `without`: variants and sequences that never came back, of a run that was cancelled.
    """
    names = {"model": {"names": list(models), "batch_size": batch}}
    record = run_record("r1", rows=len(rows), batch=batch, job=names | (job or {}), labels=labels)
    variants = [
        one.model_copy(update={"label": f"{one.label}.{model}", "origin": one.label, "model": model})
        for one in record.files
        for model in models
    ]
    record = record.model_copy(update={"prompt": PROMPT, "files": variants})
    world = World(folder, [record])
    answers = {
        model: [(text, values[number]) for text, values in rows] for number, model in enumerate(models)
    }
    world.merge(
        _result(record, answers[one.model], sequence, batch, one.label, one.model)
        for one in variants
        for sequence in range(one.batches)
        if (one.label, sequence) not in without
    )
    if without:
        fed = {one.label: FileCursor(next=CutPosition(sequence=one.batches)) for one in variants}
        world.cursor = Cursor(run_id="r1", epoch=1, files=fed)
        world.take_in(record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2}))
    world.finish(silent_s=1_000.0)
    return world


def retried(folder: Path, answers: dict[str, Sequence[Sequence[str] | None]], batch: int = 10) -> World:
    """A retry of a run of several models; told. `answers`: to each model's own failed rows."""
    record = run_record("r1", batch=batch, job={"model": {"names": list(answers)}}, parent="r0")
    files = [
        record.files[0].model_copy(
            update={
                "label": f"march.{model}",
                "origin": "march",
                "model": model,
                "rows": len(rows),
                "batches": 1,
            }
        )
        for model, rows in answers.items()
    ]
    record = record.model_copy(update={"prompt": PROMPT, "files": files})
    world = World(folder, [record])
    world.merge(
        _result(record, [("m", one) for one in rows], 0, batch, f"march.{model}", model)
        for model, rows in answers.items()
    )
    world.finish()
    return world


def finished(folder: Path, rows: Sequence[Row], **options: Any) -> World:
    """A run that was told."""
    world, record = merged(folder, rows, **options)
    world.finish(record.run_id)
    return world


def facts(world: World, run_id: str = "r1", state: RunState = RunState.MERGING) -> Facts:
    """What the merger would hand over."""
    plan = world.ledger.plan(run_id)
    return facts_of(world.run(run_id), plan, world.places.of(plan.job), state, world.store)


def _result(
    record: RunRecord, rows: Sequence[Row], sequence: int, batch: int, label: str = "march", model: str = "m"
) -> Result:
    first = sequence * batch
    return Result(
        run_id=record.run_id, label=label, sequence=sequence, first_row=first, model=model, batch_size=batch,
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
