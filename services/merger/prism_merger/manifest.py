"""The account that a person gets: `run_manifest.json` and `failed_ranges.json`.

Rows in = ok + failed, in every file and in sum: rows of a broken-off run that never came back are failed.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.messages import RunFile, RunState
from prism.runs.catalogue import CatalogueRefused, ModelEntry
from prism.runs.costs import Cost, cost_of
from prism.runs.models import entries
from prism.runs.ranges import RowNumbers
from prism_merger.accounts import FileAccount, ModelAccount, Outcome, OutputMark, ReportsState, RunAccount
from prism_merger.failed_rows import failed_rows_name
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.rendering import FailedRow
from prism_merger.sequences import MergedSequences
from prism_merger.store import RowReader
from prism_merger.volume import replace_file


def write_manifest(
    run: RunAccount,
    plan: RunPlan,
    places: Places,
    state: RunState | None,
    retries: Sequence[RunAccount] = (),
) -> None:
    """Write the run's manifest, over an earlier one of the same run. `retries`: what did its failed rows."""
    found = manifest(run, plan, places, state)
    found["parent"] = plan.record.parent or None
    found["retries"] = [_retry(one) for one in retries]
    text = json.dumps(found, ensure_ascii=False, indent=2)
    replace_file(places.manifest(run.run_id), [text.encode(), b"\n"])


def _retry(run: RunAccount) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "outcome": run.outcome.value if run.outcome else None,
        "rows": {"in": run.ok + run.failed, "ok": run.ok, "failed": run.failed},
        "published_at": run.published_at,
    }


def manifest(run: RunAccount, plan: RunPlan, places: Places, state: RunState | None) -> dict[str, Any]:
    """Return the manifest. `state` is the run's in `prism.runs`, where that is known."""
    record, job = plan.record, plan.job
    finished = run.published_at or run.merged_at
    return {
        "run_id": run.run_id,
        "status": status(run, state),
        "detail": run.detail,
        "project": job.project.name,
        "version": job.project.version,
        "job": record.job_name,
        "model_name": ", ".join(job.model.names) or job.model.name or (run.models[0] if run.models else ""),
        **_by_model(run, plan),
        "models": run.models,
        "model_digests": run.digests,
        "created_at": record.created_at,
        "started_at": run.first_result_at,
        "finished_at": finished,
        "config_snapshot": record.job,
        "prompt_sha256": record.prompt.get("sha256"),
        "sort_by": _sort_note(plan),
        "files": [
            _file(run, run.files[one.label], one, places, plan)
            for one in record.files
            if one.label in run.files
        ],
        "rows": {"in": record.rows, "ok": run.ok, "failed": run.failed},
        "failed_by_reason": dict(sorted(run.failed_by_reason.items())),
        "failed_ranges": _failed_ranges(run, plan, places),
        "calls": run.calls,
        "repeated_calls": run.repeated_calls,
        "extra_calls": run.extra_calls,
        "tokens": {"prompt": run.prompt_tokens, "completion": run.completion_tokens},
        "cost": _cost(run, plan),
        "reused_rows": run.reused_rows,
        "model_seconds": round(run.model_seconds, 3),
        "load_seconds": round(run.load_seconds, 3),
        "timings": {
            "accepted_at": record.created_at,
            "first_result_at": run.first_result_at,
            "merged_at": run.merged_at,
            "published_at": run.published_at,
        },
        "reports": {
            "state": run.reports.value,
            "files": reports_of(run, plan, places),
            "failures": run.report_failures,
        },
    }


def _failed_ranges(run: RunAccount, plan: RunPlan, places: Places) -> str | None:
    written = run.failed and plan.job.error_handling.save_failed_ranges
    return places.relative(places.failed_ranges(run.run_id)) if written else None


def reports_of(run: RunAccount, plan: RunPlan, places: Places) -> list[str] | None:
    """Return what was written of a run's rows, as messages name it; None before it is settled."""
    if run.reports is ReportsState.DUE:
        return None
    wanted = plan.job.monitoring
    paths = [
        places.summary(run.run_id) if wanted.create_summaries else None,
        places.analytics(run.run_id) if wanted.create_analytics else None,
        places.report(run.run_id) if wanted.create_summaries else None,
        _disagreements(run, plan, places) if wanted.create_summaries else None,
    ]
    written = paths if run.reports is ReportsState.WRITTEN else []
    return [places.relative(path) for path in written if path is not None]


def _disagreements(run: RunAccount, plan: RunPlan, places: Places) -> Path | None:
    """Return the rows on which models differ; None where none were compared, or the rows were gone."""
    path = places.disagreements(run.run_id)
    compared = not plan.record.parent and any(one.is_joined for one in plan.units)
    return path if compared and path.exists() else None


def _cost(run: RunAccount, plan: RunPlan) -> dict[str, str] | None:
    """Return what the tokens cost by the prices at acceptance, None where no price is known."""
    try:
        prices = entries(plan.record, plan.job)
    except CatalogueRefused:  # of another version: no reason to keep what is merged from its readers
        return None
    return _money(cost_of(prices, run, run.by_model))


def _money(cost: Cost | None) -> dict[str, str] | None:
    return {"amount": f"{cost.amount:f}", "currency": cost.currency} if cost is not None else None


def _by_model(run: RunAccount, plan: RunPlan) -> dict[str, Any]:
    """Return what each of several models has done; nothing for a run with one."""
    if not run.by_model:
        return {}
    prices: dict[str, ModelEntry] = {}
    with contextlib.suppress(CatalogueRefused):
        prices = {one.name: one for one in entries(plan.record, plan.job)}
    return {
        "model_mode": plan.job.model.mode,
        "by_model": {
            name: {
                "rows": {"ok": one.ok, "failed": one.failed},
                "calls": one.calls,
                "tokens": {"prompt": one.prompt_tokens, "completion": one.completion_tokens},
                "cost": _money(cost_of([prices[name]], one, {})) if name in prices else None,
                "model_seconds": round(one.model_seconds, 3),
                "digests": one.digests,
            }
            for name, one in run.by_model.items()
        },
    }


def status(run: RunAccount, state: RunState | None) -> str:
    """Return what became of a run, in one word."""
    if state in (RunState.CANCELLED, RunState.FAILED):
        return state.value
    if run.outcome is Outcome.WITHHELD:
        return "withheld"
    return "completed_with_failures" if run.failed else "completed"


def _file(
    run: RunAccount, file: FileAccount, source: RunFile, places: Places, plan: RunPlan
) -> dict[str, Any]:
    outputs = [_output(form, mark, places) for form, mark in file.outputs.items() if mark.named]
    first: dict[str, Any] = outputs[0] if outputs else {}
    # What several models did is one output; its marks are with the first.
    of_all = run.files[plan.unit(file.label).lead].outputs
    stands = any(one.named for one in [*of_all.values(), *file.outputs.values()])
    return {
        "label": file.label,
        **({"input": source.origin, "model": source.model} if source.model else {}),
        "input_file": source.filename,
        "input_sha256": source.sha256,
        "status": ("published_partial" if run.partial else "published") if stands else "not_published",
        "rows_in": source.rows,
        "row_ranges": [{"start": first, "end": last} for first, last in source.ranges] or None,
        "rows_ok": file.ok,
        "rows_failed": file.rows_failed,
        "rows_missing": file.missing,
        "expected_outputs": _expected(file, places, plan),
        "merged_output": first.get("path"),
        "renamed_because": first.get("renamed_because"),
        "rows_out": first.get("rows", 0),
        "bytes": first.get("bytes", 0),
        "sha256": first.get("sha256"),
        "outputs": outputs,
        "parts": file.parts,
        "failed_rows": failed_rows_name(run, file, plan, places),
    }


def _output(form: str, mark: OutputMark, places: Places) -> dict[str, Any]:
    return {
        "format": form,
        "path": mark.uri or places.relative(places.output(mark.name)),
        "renamed_because": mark.renamed_because or None,
        "rows": mark.rows,
        # Only of several models' rows: those that one of them at least has not answered.
        **({} if mark.failed is None else {"rows_failed": mark.failed}),
        "bytes": mark.bytes,
        "sha256": mark.sha256,
    }


def _expected(file: FileAccount, places: Places, plan: RunPlan) -> list[str]:
    unit = plan.unit(file.label)
    if file.label != unit.lead:
        return []
    stem, output = plan.output_stem(unit.label), plan.job.output
    names = [f"{stem}.{form}" for form in output.formats]
    if output.uri:
        return [f"{output.uri}/{name}" for name in names]
    return [places.relative(places.output(name)) for name in names]


def _sort_note(plan: RunPlan) -> dict[str, Any] | None:
    wanted = plan.job.merge.sort_by
    if wanted is None:
        return None
    absent = [one.label for one in plan.units if one.files[0].columns and wanted not in plan.columns(one)]
    note = f"no such column: input order kept in {', '.join(absent)}" if absent else None
    return {"column": wanted, "ignored_because": note}


@dataclass(slots=True)
class _Range:
    label: str
    numbers: RowNumbers
    first: FailedRow
    last: FailedRow

    def is_followed_by(self, row: FailedRow) -> bool:
        """Whether a row lies next in the file, with the same reason."""
        last = self.last.ordinal
        together = row.ordinal == last + 1 and self.numbers[row.ordinal] == self.numbers[last] + 1
        return together and row.reason == self.last.reason

    def as_json(self) -> str:
        start, end = self.numbers[self.first.ordinal], self.numbers[self.last.ordinal]
        return json.dumps(
            {
                "label": self.label,
                "row_range": {"start": start, "end": end},
                "row_ids": {"first": self.first.row_id, "last": self.last.row_id},
                "reason": self.first.reason,
                "count": self.last.ordinal - self.first.ordinal + 1,
                "detail": self.first.detail or None,
            },
            ensure_ascii=False,
        )


def write_failed_ranges(run: RunAccount, plan: RunPlan, rows: RowReader, places: Places) -> None:
    """Write the stretches of rows without values, if there are any, with constant memory."""
    if run.failed:
        replace_file(places.failed_ranges(run.run_id), _ranges_text(run, plan, rows))


def _ranges_text(run: RunAccount, plan: RunPlan, rows: RowReader) -> Iterator[bytes]:
    before = "[\n"
    for file in run.files.values():
        source = plan.file(file.label)
        numbers = RowNumbers(source.ranges)
        for one in _ranges(file, numbers, rows):
            yield (before + one.as_json()).encode()
            before = ",\n"
        for first, end in _missing(file, source, numbers):
            gap = _Range(
                file.label,
                numbers,
                FailedRow(first, "", run.missing_reason, ""),
                FailedRow(end - 1, "", run.missing_reason, ""),
            )
            yield (before + gap.as_json()).encode()
            before = ",\n"
    yield b"\n]\n"


def _missing(file: FileAccount, source: RunFile, numbers: RowNumbers) -> Iterator[tuple[int, int]]:
    for first, end in file.merged.gaps(source.rows) if file.missing else ():
        yield from numbers.stretches(first, end)


def _ranges(file: FileAccount, numbers: RowNumbers, rows: RowReader) -> Iterator[_Range]:
    current: _Range | None = None
    for row in rows.failures(file.file_id):
        if current and current.is_followed_by(row):
            current.last = row
            continue
        if current:
            yield current
        current = _Range(file.label, numbers, row, row)
    if current:
        yield current


def restore(run: RunAccount, plan: RunPlan, places: Places) -> RunAccount | None:
    """Return a new account filled from the manifest of the very same run, if its files stand; else None.

    After a lost volume: the manifest is written once all files have their names, before anybody is told.
    """
    filled = deepcopy(run)
    try:
        found = json.loads(places.manifest(run.run_id).read_bytes())
        if found["created_at"] != plan.record.created_at or found["status"] in ("cancelled", "failed"):
            return None
        for one in found["files"]:
            _restore_file(filled.files[one["label"]], one, plan, places)
        _restore_run(filled, found)
        _restore_reports(filled, found.get("reports", {}), places)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return filled


def _restore_file(file: FileAccount, found: dict[str, Any], plan: RunPlan, places: Places) -> None:
    source = plan.file(file.label)
    if "outputs" not in found:  # of before there were formats
        found = {**found, "outputs": [_as_csv(found)] if found["merged_output"] is not None else []}
    file.ok, file.missing, file.parts = found["rows_ok"], found["rows_missing"], found["parts"]
    file.failed = found["rows_failed"] - file.missing
    file.merged = MergedSequences(source.batches, source.rows)
    for one in found["outputs"]:
        file.outputs[one["format"]] = _restored(one, places)


def _as_csv(found: dict[str, Any]) -> dict[str, Any]:
    names = {"path": "merged_output", "rows": "rows_out", "bytes": "bytes", "sha256": "sha256"}
    return {
        "format": "csv",
        "renamed_because": found["renamed_because"],
        **{name: found[old] for name, old in names.items()},
    }


def _restored(found: dict[str, Any], places: Places) -> OutputMark:
    uri = found["path"] if "://" in found["path"] else ""
    path = places.root / found["path"]
    if not uri and path.stat().st_size != found["bytes"]:
        raise ValueError(path.name)
    return OutputMark(
        path.name, found["sha256"], found["bytes"], found["rows"], found["renamed_because"] or "", uri, True,
        failed=found.get("rows_failed"),
    )  # fmt: skip


def _restore_run(run: RunAccount, found: dict[str, Any]) -> None:
    run.outcome = Outcome.WITHHELD if found["status"] == "withheld" else Outcome.PUBLISHED
    run.detail, run.models = found["detail"], found["models"]
    run.failed_by_reason.update(found["failed_by_reason"])
    run.calls, run.extra_calls = found["calls"], found["extra_calls"]
    run.repeated_calls = found.get("repeated_calls", 0)
    run.by_model = {name: _restored_model(one) for name, one in found.get("by_model", {}).items()}
    run.prompt_tokens, run.completion_tokens = found["tokens"]["prompt"], found["tokens"]["completion"]
    run.model_seconds, run.load_seconds = found["model_seconds"], found.get("load_seconds", 0.0)
    run.reused_rows, run.digests = found.get("reused_rows", 0), found.get("model_digests", [])
    timings = found["timings"]
    run.first_result_at, run.merged_at = timings["first_result_at"], timings["merged_at"]
    run.published_at = timings["published_at"]


def _restored_model(found: dict[str, Any]) -> ModelAccount:
    return ModelAccount(
        ok=found["rows"]["ok"],
        failed=found["rows"]["failed"],
        calls=found["calls"],
        prompt_tokens=found["tokens"]["prompt"],
        completion_tokens=found["tokens"]["completion"],
        model_seconds=found["model_seconds"],
        digests=found["digests"],
    )


def _restore_reports(run: RunAccount, found: dict[str, Any], places: Places) -> None:
    if all(path.exists() for path in places.reports(run.run_id)) or found.get("state") == ReportsState.OFF:
        run.reports = ReportsState(found.get("state", ReportsState.DUE))
