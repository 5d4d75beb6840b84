"""`summary_{run_id}.md`: a run told in words and tables, to be read as it is or rendered."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from prism_merger.reports import outline
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import Figures, measures, model_figures
from prism_merger.reports.findings import CrossTable, Distribution, Failure, Findings, Origin, Sample
from prism_merger.reports.texts import bar, code, duration, measure, number, one_line, percent, table

_CROSS_MOST = 8
_MOST_FILES = 50
_ORGANIC_SHOWN = 30
_MOST_PAIRS = 28
_SHOWN_ABOVE = {
    "rows_total", "rows_ok", "error_count", "models", "answers_total", "answers_ok", "answers_failed",
    "duration", "working_time", "model_seconds",
}  # fmt: skip
_MARKS = {Origin.ORGANIC: " ✻", Origin.RULED: " ·"}


def summary(facts: Facts, found: Figures, findings: Findings) -> str:
    """Return the whole document."""
    parts = [
        f"# Run {code(facts.run_id, 130)}",
        f"**{outline.state(facts)}** — {outline.headline(facts, found)}",
        *_warnings(facts, found, findings),
        *_overview(facts, found, findings),
        *_models(facts, found),
        *_agreement(facts, found, findings),
        *_answers(findings),
        *_cross(findings.cross),
        *_organic(findings),
        *_failures(facts, found, findings.failures),
        *_outputs(facts),
        *_settings(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _warnings(facts: Facts, found: Figures, findings: Findings) -> Iterator[str]:
    lines = [f"> ⚠ {_plain(one)}" for one in outline.warnings(facts, found, findings)]
    if lines:
        yield "\n>\n".join(lines)


def _overview(facts: Facts, found: Figures, findings: Findings) -> Iterator[str]:
    yield "## At a glance"
    rows = [("rows in", number(found.inputs), "")]
    if findings.complete is not None:
        share = percent(findings.complete, found.inputs)
        rows.append(("rows with every answer", number(findings.complete), share))
    for name, count in (("ok", found.ok), ("failed", found.failed)):
        rows.append((f"{found.counted}s {name}", number(count), percent(count, found.rows)))
    rows.append(("took", duration(found.total_s), f"first to last result {duration(found.working_s)}"))
    rows += [
        (one.title, number(one.value), one.unit if one.unit not in one.title else "")
        for one in measures(found)
        if one.name not in _SHOWN_ABOVE and (one.value or one.name == "total_api_calls")
    ]
    yield table(("", "", ""), rows, "lr")
    if len(facts.files) > 1:
        yield table(
            ("file", "rows", *outline.fared(found), "share failed"),
            [
                (code(one.label), number(one.rows), number(one.rows_ok), number(one.rows_failed),
                 percent(one.rows_failed, one.asked))
                for one in facts.files[:_MOST_FILES]
            ],
            "lrrrr",
        )  # fmt: skip
        if len(facts.files) > _MOST_FILES:
            yield f"… and {number(len(facts.files) - _MOST_FILES)} files more, in `run_manifest.json`."


def _models(facts: Facts, found: Figures) -> Iterator[str]:
    models = model_figures(facts)
    if not models:
        return
    yield "## The models"
    yield table(
        outline.MODEL_HEADER,
        [(code(one.name), *outline.model_cells(one, found)) for one in models],
        "lrrrrrrrr",
    )


def _agreement(facts: Facts, found: Figures, findings: Findings) -> Iterator[str]:
    if findings.complete is None or not found.side_by_side:
        return
    yield "## Agreement of the models"
    yield outline.answered_by_all(found, findings)
    for one in findings.agreement:
        yield f"### {code(one.column)}"
        yield (
            f"All alike in {number(one.same)} of {number(one.rows)} rows: **{percent(one.same, one.rows)}**."
            f" alpha: **{measure(one.alpha)}**"
        )
        yield table(
            ("models", "rows", "alike", "share", "kappa"),
            [
                (f"{code(pair.first)} and {code(pair.second)}", number(pair.rows), number(pair.same),
                 percent(pair.same, pair.rows), measure(pair.kappa))
                for pair in one.pairs[:_MOST_PAIRS]
            ],
            "lrrrr",
        )  # fmt: skip
        if one.crowded:
            yield f"*{outline.CROWDED}*"
    if findings.agreement:
        yield f"*{outline.MEASURES}*"
        yield from _differences(facts, findings)


def _differences(facts: Facts, findings: Findings) -> Iterator[str]:
    yield "### Where they differ"
    if not findings.differing:
        yield "In no row."
        return
    where = f" All of them are in {code(Path(facts.disagreements).name)}." if facts.disagreements else ""
    yield f"In {number(findings.differing)} rows.{where} For example:"
    several = len(facts.files) > 1
    yield table(
        (*(["file"] if several else []), "row", "message", "column", *(code(one) for one in facts.models)),
        [
            (*([code(one.label)] if several else []), code(one.row_id or f"row {one.row}", 40),
             code(one.message, 48), code(answers.column),
             *(code(value, 40) if value else "–" for value in answers.given))
            for one in findings.differences
            for answers in one.answers
            if answers.differ
        ],
        "l",
    )  # fmt: skip


def _answers(findings: Findings) -> Iterator[str]:
    if findings.distributions:
        yield "## Answers"
    for one in findings.distributions:
        yield f"### {code(one.column)}"
        yield _distribution(one)
    notes = []
    origins = {part.origin for one in findings.distributions for part in one.top()}
    if Origin.ORGANIC in origins:
        notes.append("✻ not in the prompt's list")
    if Origin.RULED in origins:
        notes.append("· nothing, or put there by the prompt's own rules")
    if notes:
        yield "*" + "; ".join(notes) + "*"
    if findings.free_texts:
        yield "### Free text"
        yield table(
            ("column", "texts", "shortest", "median", "mean", "longest"),
            [
                (code(one.column), number(one.lengths.count), number(one.lengths.least or 0),
                 number(one.lengths.quantile(0.5)), number(round(one.lengths.mean)), number(one.lengths.most))
                for one in findings.free_texts
            ],
            "lrrrrr",
        )  # fmt: skip
        yield "*in characters*"


def _distribution(one: Distribution) -> str:
    most = max((part.count for part in one.top()), default=0)
    rows = [
        (
            part.value if part.origin is Origin.OTHERS else code(part.value) + _MARKS.get(part.origin, ""),
            number(part.count),
            percent(part.count, one.total),
            bar(part.count, most),
        )
        for part in one.top()
    ]
    return table(("value", "rows", "share", ""), rows, "lrrl")


def _cross(cross: CrossTable | None) -> Iterator[str]:
    if cross is None or len(cross.rows) > _CROSS_MOST + 1 or len(cross.columns) > _CROSS_MOST + 1:
        return
    yield f"### {code(cross.row_column)} by {code(cross.column_column)}"
    yield table(
        ("", *map(code, cross.columns), "all"),
        [
            (code(name), *map(number, counts), number(sum(counts)))
            for name, counts in zip(cross.rows, cross.counts, strict=True)
        ],
        "l" + "r" * (len(cross.columns) + 1),
    )


def _organic(findings: Findings) -> Iterator[str]:
    if not findings.organic:
        return
    yield "## Labels proposed for the taxonomy"
    yield (
        "The model gave these answers although the prompt's lists do not have them. Take in what is missing,"
        " or set `strict: true` in the prompt file to refuse them."
    )
    shown = findings.organic[:_ORGANIC_SHOWN]
    yield table(
        ("column", "label", "rows", "for example"),
        [(code(one.column), code(one.value), number(one.count), _example(one.samples)) for one in shown],
        "llrl",
    )
    if findings.organic_values > len(shown):
        yield f"… and {number(findings.organic_values - len(shown))} more, in the analytics."


def _example(samples: Sequence[Sample]) -> str:
    return "; ".join(
        f"{code(one.row_id or f'row {one.row}', 40)}" + (f" {code(one.text, 48)}" if number_ == 0 else "")
        for number_, one in enumerate(samples)
    )


def _failures(facts: Facts, found: Figures, failures: Sequence[Failure]) -> Iterator[str]:
    if not failures:
        return
    yield "## Failed rows"
    all_of_them = sum(one.count for one in failures)
    yield table(
        ("reason", f"{found.counted}s", "share", ""),
        [
            (code(one.reason), number(one.count), percent(one.count, all_of_them),
             bar(one.count, failures[0].count))
            for one in failures
        ],
        "lrrl",
    )  # fmt: skip
    samples = [(one.reason, sample) for one in failures for sample in one.samples]
    if samples:
        yield "For example:"
        yield table(
            ("reason", "file", "row", "RowID", "what was said"),
            [
                (
                    code(reason),
                    code(one.label),
                    number(one.row),
                    code(one.row_id),
                    code(one.text) if one.text else "",
                )
                for reason, one in samples
            ],
            "llrll",
        )
    names = outline.failed_rows(facts)
    if names:
        yield f"Ask them again, and nothing else: `prism retry {facts.run_id}`. As they came they are in:"
        yield "\n".join(f"- `{one}`" for one in names[:_MOST_FILES])


def _outputs(facts: Facts) -> Iterator[str]:
    yield "## Outputs"
    rows = [
        (code(one.path, 300), number(one.rows), number(one.bytes), f"`{one.sha256}`")
        for one in islice(outline.outputs(facts), _MOST_FILES)
    ]
    yield table(("file", "rows", "bytes", "SHA-256"), rows, "lrrl") if rows else "None."


def _settings(facts: Facts) -> Iterator[str]:
    yield "## Settings"
    rows = [(name, code(value, 300)) for name, value in outline.settings(facts)]
    yield table(("", ""), [*rows, *outline.times(facts)], "ll")


def _plain(text: str) -> str:
    """Return a sentence of ours that may quote data: nothing in it is mark-up."""
    line = one_line(text, 300)
    return "".join(f"\\{one}" if one in "\\`*_[]<>#|!~&" else one for one in line)
