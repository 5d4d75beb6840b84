"""What summary and page tell of a run besides its rows: headline, settings, times, warnings."""

from collections.abc import Iterator
from dataclasses import dataclass

from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import Figures
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
    files = len(facts.files)
    what = f"{number(found.rows)} rows" + (f" of {number(files)} files" if files > 1 else "")
    if not found.rows:
        return f"{what}: there was nothing to do."
    failed = f", {number(found.failed)} failed ({percent(found.failed, found.rows)})" if found.failed else ""
    return f"{what}: {number(found.ok)} ok{failed}."


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
    yield "model", ", ".join(manifest["models"]) or manifest["model_name"] or "–"
    for digest in manifest["model_digests"]:
        yield "model digest", str(digest)
    yield "rows per call", number(facts.batch_size)
    yield "tries per row", f"{number(facts.retries)}, the second after {facts.delay:g} s"
    yield "columns to code", ", ".join(one.name for one in facts.coded) or "–"
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
        yield f"{number(missing)} rows never came back; they count as failed."
    if _RULES in manifest["models"]:
        yield f"{_RULES} answers by rules: it is no language model; its answers are for trying things out."
    if len(manifest["model_digests"]) > 1:
        yield "The model changed while the run went on: answers of two models stand side by side."
    if found.extra_calls:
        yield f"At most {number(found.extra_calls)} model calls were paid twice, after a process had died."
    sort = manifest.get("sort_by") or {}
    if sort.get("ignored_because"):
        yield f"sort_by: {sort['ignored_because']}."
    for one in outputs(facts):
        if one.renamed_because:
            yield f"{one.path}: {one.renamed_because}."
    yield from facts.warnings


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
