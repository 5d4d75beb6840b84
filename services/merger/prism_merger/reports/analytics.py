"""`analytics_{run_id}.csv`: performance and distributions as one long table, for programs and spreadsheets.

Sections: performance (one figure a row), throughput (over time), rows (of a file), distribution (of a
column's values), failures (by reason), crosstab (of two columns), organic (labels that the prompt's lists do
not have), length_… (of texts).
"""

from collections.abc import Iterator

from prism.tables import neutralise, render_line
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import Figures, measures, paces
from prism_merger.reports.findings import Findings, TextLengths

HEADER = ("section", "column", "value", "by_column", "by_value", "count", "percent", "unit", "origin")


def analytics(facts: Facts, found: Figures, findings: Findings) -> Iterator[bytes]:
    """Yield the file's lines; what comes from rows or the job starts no formula."""
    yield render_line(HEADER).encode()
    for row in _rows(facts, found, findings):
        yield render_line([neutralise(cell) for cell in row]).encode()


def _rows(facts: Facts, found: Figures, findings: Findings) -> Iterator[tuple[str, ...]]:
    for one in measures(found):
        yield _row("performance", one.name, str(one.value), unit=one.unit)
    for file in facts.files:
        for name, count in (("ok", file.rows_ok), ("failed", file.rows_failed)):
            yield _row("rows", file.label, name, count=count, whole=file.rows)
    for pace in paces(facts.timeline):
        at = ("seconds", f"{pace.start:.3f}")
        yield _row("throughput", "rows_per_second", f"{pace.rows_per_s:.3f}", *at, unit="rows/s")
        yield _row("throughput", "tokens_per_second", f"{pace.tokens_per_s:.3f}", *at, unit="tokens/s")
    for failure in findings.failures:
        yield _row("failures", "Error", failure.reason, count=failure.count, whole=found.failed)
    yield from _distributions(findings)
    yield from _crosstab(findings)
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


def _crosstab(findings: Findings) -> Iterator[tuple[str, ...]]:
    cross = findings.cross
    if cross is None:
        return
    for name, counts in zip(cross.rows, cross.counts, strict=True):
        for other, count in zip(cross.columns, counts, strict=True):
            yield _row(
                "crosstab", cross.row_column, name, cross.column_column, other, count=count, whole=cross.total
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
