"""What summary and page tell of a run besides its rows: headline, settings, times, warnings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import Figures, ModelFigures
from prism_merger.reports.findings import Findings
from prism_merger.reports.texts import moment, number, one_line, percent

# The embedded default's model, which is never passed off as more than it is.
_RULES = "prism-embedded"
_STATES = {
    "completed": "completed",
    "completed_with_failures": "completed, with failed rows",
    "withheld": "withheld: nothing was published",
    "cancelled": "cancelled",
    "failed": "failed",
}


def state(facts: Facts) -> str:
    """Return what became of the run, in words."""
    word = str(facts.manifest["status"])
    return _STATES.get(word, word)


def headline(facts: Facts, found: Figures) -> str:
    """Return the run in one sentence."""
    again = {one.model for one in facts.files if one.model}
    what = f"{number(found.inputs)} rows" + _files(facts) + _models(facts, found)
    if again:  # a retry has a file of its own for each model
        what = f"{number(found.rows)} answers of {number(len(again))} model{'s' if len(again) > 1 else ''}"
    if not found.rows:
        return f"{what}: there was nothing to do."
    failed = f", {number(found.failed)} failed ({percent(found.failed, found.rows)})" if found.failed else ""
    answers = f"{number(found.rows)} answers, " if found.side_by_side else ""
    return f"{what}: {answers}{number(found.ok)} ok{failed}."


def _files(facts: Facts) -> str:
    files = len(facts.files)
    return f" of {number(files)} files" if files > 1 else ""


def _models(facts: Facts, found: Figures) -> str:
    if facts.models:
        return f" by {number(found.models)} models"
    shared = facts.manifest.get("model_mode") == "split" and found.models > 1
    return f" shared by {number(found.models)} models" if shared else ""


def answered_by_all(found: Figures, findings: Findings) -> str:
    """Return how many rows can be compared, in a sentence or two."""
    complete = findings.complete or 0
    rest = found.inputs - complete
    text = f"{number(complete)} of {number(found.inputs)} rows have an answer of every model."
    if rest:
        text += f" The other {number(rest)} lack one at least: there only those that answered are compared."
    return text


def fared(found: Figures) -> tuple[str, str]:
    """Return what the counts of a file, ok and failed, are called."""
    return ("answers ok", "answers failed") if found.side_by_side else ("ok", "failed")


MODEL_HEADER = ("model", "rows", "of all", "ok", "failed", "calls", "tokens", "cost", "seconds a row")


def model_cells(one: ModelFigures, found: Figures) -> tuple[str, ...]:
    """Return one model's figures under MODEL_HEADER, its name left out."""
    cost = "–" if one.cost is None else f"{one.cost} {one.currency}"
    seconds = "–" if one.seconds_per_row is None else number(one.seconds_per_row)
    counts = map(number, (one.ok, one.failed, one.calls, one.tokens))
    return (number(one.rows), percent(one.rows, found.inputs), *counts, cost, seconds)


MEASURES = (
    "kappa (Cohen's, of two models) and alpha (Krippendorff's, nominal, of the rows that all have answered):"
    " 1 is full agreement, 0 is what chance alone would give; – where nothing could have differed"
)
CROWDED = "too many different labels came up for some of the measures"


def settings(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield what the run was asked to do: name and value."""
    manifest = facts.manifest
    yield "project", f"{manifest['project']} {manifest['version']}"
    if manifest.get("job"):
        yield "job file", str(manifest["job"])
    if facts.description:
        yield "description", one_line(facts.description, 300)
    if facts.parent:
        yield "retries the failed rows of", facts.parent
    for one in facts.completed_by:
        rows = f"{number(one.ok)} of {number(one.ok + one.failed)} answers"
        yield "completed by", f"{one.run_id}: {rows}, {moment(one.published_at)}"
    yield "model", ", ".join(manifest["models"]) or manifest["model_name"] or "–"
    for digest in manifest["model_digests"]:
        yield "model digest", str(digest)
    yield "rows per call", number(facts.batch_size)
    yield "tries per row", f"{number(facts.retries)}, the second after {facts.delay:g} s"
    yield "columns to code", ", ".join(dict.fromkeys(one.name for one in facts.coded)) or "–"
    yield "prompt SHA-256", str(manifest.get("prompt_sha256") or "–")
    if manifest.get("sort_by"):
        yield "sorted by", str(manifest["sort_by"]["column"])


def times(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield when what happened."""
    timings = facts.manifest["timings"]
    yield "accepted", moment(timings["accepted_at"])
    yield "first result", moment(timings["first_result_at"])
    yield "last result", moment(timings["merged_at"])
    yield (
        "published" if facts.manifest["status"].startswith("completed") else "closed",
        moment(timings["published_at"]),
    )


def warnings(facts: Facts, found: Figures, findings: Findings) -> Iterator[str]:
    """Yield what a reader should know before trusting the rest."""
    manifest = facts.manifest
    if manifest.get("detail"):
        yield str(manifest["detail"])
    if findings.problem:
        yield f"What the rows say is left out here: {findings.problem}."
    missing = sum(one.rows_missing for one in facts.files)
    if missing:
        yield f"{number(missing)} {found.counted}s never came back; they count as failed."
    if _RULES in manifest["models"]:
        yield f"{_RULES} answers by rules: it is no language model; its answers are for trying things out."
    yield from _changed(manifest)
    if found.extra_calls:
        yield f"At most {number(found.extra_calls)} model calls were paid twice, after a process had died."
    sort = manifest.get("sort_by") or {}
    if sort.get("ignored_because"):
        yield f"sort_by: {sort['ignored_because']}."
    for one in outputs(facts):
        if one.renamed_because:
            yield f"{one.path}: {one.renamed_because}."
    yield from facts.warnings


def _changed(manifest: dict[str, Any]) -> Iterator[str]:
    by_model = manifest.get("by_model", {})
    digests = {f"{name} ": one["digests"] for name, one in by_model.items()} or {
        "": manifest["model_digests"]
    }
    for name, found in digests.items():
        if len(found) > 1:
            what = f"The model {name}changed while the run went on"
            yield f"{what}: answers of two models stand side by side."


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One published file, as the manifest has it."""

    label: str
    path: str
    rows: int
    bytes: int
    sha256: str
    renamed_because: str


def outputs(facts: Facts) -> Iterator[PublishedFile]:
    """Yield what was published: of each file one output, or one in each format."""
    for file in facts.manifest["files"]:
        single = {"path": file["merged_output"], "rows": file["rows_out"], **file}
        for one in file.get("outputs", [single] if file["merged_output"] else []):
            because = one.get("renamed_because") or ""
            yield PublishedFile(file["label"], one["path"], one["rows"], one["bytes"], one["sha256"], because)


def failed_rows(facts: Facts) -> list[str]:
    """Return the files with failed rows, which `prism retry` can ask again."""
    return [str(one["failed_rows"]) for one in facts.manifest["files"] if one.get("failed_rows")]
