"""`analytics_{run_id}.csv`: performance and distributions as one long table, for programs and spreadsheets.

Sections: performance (one figure a row), throughput (over time), rows (of a file), distribution (of a
column's values), failures (by reason), crosstab (of two columns), organic (labels that the prompt's lists do
not have), length_… (of texts). Of several models: model (one figure of one model a row), and where all do
every row agreement (share of the rows in which all, or two, give the same), krippendorff_alpha (of all),
cohen_kappa (of two) and contingency (of two: what the one and the other give).
"""

from collections.abc import Iterator, Sequence

from prism.tables import neutralise, render_line
from prism_merger.reports import outline
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import Figures, measures, model_figures, paces
from prism_merger.reports.findings import ColumnAgreement, CrossTable, Findings, TextLengths

HEADER = ("section", "column", "value", "by_column", "by_value", "count", "percent", "unit", "origin")


def analytics(facts: Facts, found: Figures, findings: Findings) -> Iterator[bytes]:
    """Yield the file's lines; what comes from rows or the job starts no formula."""
    yield render_line(HEADER).encode()
    for row in _rows(facts, found, findings):
        yield render_line([neutralise(cell) for cell in row]).encode()


def _rows(facts: Facts, found: Figures, findings: Findings) -> Iterator[tuple[str, ...]]:
    for one in measures(found, findings.complete):
        yield _row("performance", one.name, str(one.value), unit=one.unit)
    for file in facts.files:
        for name, count in zip(outline.fared(found), (file.rows_ok, file.rows_failed), strict=True):
            yield _row("rows", file.label, name.replace(" ", "_"), count=count, whole=file.asked)
    yield from _models(facts)
    for pace in paces(facts.timeline):
        at = ("seconds", f"{pace.start:.3f}")
        yield _row("throughput", "rows_per_second", f"{pace.rows_per_s:.3f}", *at, unit="rows/s")
        yield _row("throughput", "tokens_per_second", f"{pace.tokens_per_s:.3f}", *at, unit="tokens/s")
    for failure in findings.failures:
        yield _row("failures", "Error", failure.reason, count=failure.count, whole=found.failed)
    yield from _distributions(findings)
    yield from _crosstab("crosstab", findings.cross)
    for agreement in findings.agreement:
        yield from _agreement(agreement, facts.models)
    for organic in findings.organic:
        yield _row("organic", organic.column, organic.value, count=organic.count, whole=found.ok)
    for lengths in (*findings.message_lengths, *findings.free_texts):
        yield from _lengths(lengths)


def _distributions(findings: Findings) -> Iterator[tuple[str, ...]]:
    for one in findings.distributions:
        for part in one.slices:
            yield _row(
                "distribution", one.column, part.value, count=part.count, whole=one.total, origin=part.origin
            )
        if one.beyond:
            yield _row("distribution", one.column, "", count=one.beyond, whole=one.total, origin="others")


def _models(facts: Facts) -> Iterator[tuple[str, ...]]:
    for one in model_figures(facts):
        by = ("Model_Name", one.name)
        yield _row("model", "rows_ok", str(one.ok), *by, count=one.ok, whole=one.rows, unit="rows")
        yield _row(
            "model", "rows_failed", str(one.failed), *by, count=one.failed, whole=one.rows, unit="rows"
        )
        yield _row("model", "calls", str(one.calls), *by, unit="calls")
        yield _row("model", "tokens", str(one.tokens), *by, unit="tokens")
        if one.cost is not None:
            yield _row("model", "cost", one.cost, *by, unit=one.currency)
        if one.seconds_per_row is not None:
            yield _row("model", "seconds_per_row", f"{one.seconds_per_row:.3f}", *by, unit="s/row")


def _agreement(one: ColumnAgreement, models: Sequence[str]) -> Iterator[tuple[str, ...]]:
    yield _alike(one.column, models, one.same, one.rows)
    yield _row("krippendorff_alpha", one.column, _value(one.alpha), *_by(models), count=one.rows)
    for pair in one.pairs:
        both = (pair.first, pair.second)
        if len(one.pairs) > 1:
            yield _alike(one.column, both, pair.same, pair.rows)
        yield _row("cohen_kappa", one.column, _value(pair.kappa), *_by(both), count=pair.rows)
        yield from _crosstab("contingency", pair.table)


def _alike(column: str, models: Sequence[str], same: int, rows: int) -> tuple[str, ...]:
    share = same / rows if rows else None
    return _row("agreement", column, _value(share), *_by(models), count=same, whole=rows, unit="rows")


def _by(models: Sequence[str]) -> tuple[str, str]:
    return "Model_Name", ", ".join(models)


def _value(measure: float | None) -> str:
    return "" if measure is None else f"{measure:z.6f}"


def _crosstab(section: str, cross: CrossTable | None) -> Iterator[tuple[str, ...]]:
    if cross is None:
        return
    for name, counts in zip(cross.rows, cross.counts, strict=True):
        for other, count in zip(cross.columns, counts, strict=True):
            yield _row(
                section, cross.row_column, name, cross.column_column, other, count=count, whole=cross.total
            )


def _lengths(one: TextLengths) -> Iterator[tuple[str, ...]]:
    lengths = one.lengths
    by = (one.column, one.group) if one.group else ("", "")
    column = "Message" if one.group else one.column
    for name, value in (
        ("shortest", str(lengths.least or 0)), ("median", str(lengths.quantile(0.5))),
        ("mean", f"{lengths.mean:.1f}"), ("longest", str(lengths.most)),
    ):  # fmt: skip
        yield _row(f"length_{name}", column, value, *by, count=lengths.count, unit="characters")


def _row(
    section: str,
    column: str,
    value: str,
    by_column: str = "",
    by_value: str = "",
    count: int | None = None,
    whole: int | None = None,
    unit: str = "",
    origin: str = "",
) -> tuple[str, ...]:
    share = f"{100 * count / whole:.3f}" if count is not None and whole else ""
    shown = "" if count is None else str(count)
    return (section, column, value, by_column, by_value, shown, share, unit, origin)
