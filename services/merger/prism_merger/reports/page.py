"""`report_{run_id}.html`: one file that needs nothing else, with plots.

Everything that comes from data is escaped. Besides, the page says which two scripts may run (by their hashes)
and that nothing may be fetched: what slipped through would still not run, nor tell anybody.
"""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path

from plotly.offline import get_plotlyjs

from prism_merger.reports import outline
from prism_merger.reports.facts import Facts
from prism_merger.reports.figures import Figures, ModelFigures, model_figures
from prism_merger.reports.findings import ColumnAgreement, Failure, Findings
from prism_merger.reports.plots import (
    Plot,
    agreement_plots,
    cross_plots,
    distribution_plots,
    failure_plots,
    length_plots,
    pace_plots,
)
from prism_merger.reports.texts import duration, measure, number, one_line, percent

_MOST_FILES = 200
_ORGANIC_SHOWN = 100
_MOST_PAIRS = 28
_BADGES = {"completed": "", "completed_with_failures": " part", "withheld": " part"}
# What a number column holds, for aligning it.
_NUMERIC = frozenset("0123456789,.%<>– ")


class _Plots:
    """The plots of a page, numbered as they come."""

    def __init__(self) -> None:
        self._plots: list[Plot] = []

    def cards(self, plots: Iterable[Plot]) -> Iterator[str]:
        """Yield a card for each plot, with its numbers folded away."""
        for plot in plots:
            yield _card(plot, len(self._plots))
            self._plots.append(plot)

    def as_json(self) -> str:
        """Return what draws them, fit for a script element."""
        text = json.dumps([{"data": one.data, "layout": one.layout} for one in self._plots])
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(facts: Facts, found: Figures, findings: Findings) -> Iterator[bytes]:
    """Yield the page."""
    plots = _Plots()
    body = "\n".join(_body(facts, found, findings, plots))
    # A closing tag in a library's string would end its element.
    library = get_plotlyjs().replace("</script", "<\\/script")
    program = _resource("page.js")
    yield "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(library, program)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(facts.run_id, 130)}</title>",
            f"<style>{_resource('page.css')}</style>\n</head>\n<body>",
            body,
            f'<script type="application/json" id="plots">{plots.as_json()}</script>',
        ]
    ).encode()
    yield f"\n<script>{library}</script>".encode()
    yield f"\n<script>{program}</script>\n</body>\n</html>\n".encode()


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _body(facts: Facts, found: Figures, findings: Findings, plots: _Plots) -> Iterator[str]:
    yield from _head(facts, found, findings)
    models = model_figures(facts)
    if models:
        yield _section("The models", _models(models, found))
    if findings.complete is not None and found.side_by_side:
        cards = [*_agreement(found, findings), *_differences(facts, findings)]
        yield _section("Agreement of the models", [*cards, *plots.cards(agreement_plots(findings))])
    if findings.distributions:
        yield _section("Answers", plots.cards(distribution_plots(findings)))
    if findings.cross is not None:
        yield _section("Two columns together", plots.cards(cross_plots(findings)))
    if findings.organic:
        yield _section("Labels proposed for the taxonomy", _organic(findings))
    if findings.failures:
        cards = [*plots.cards(failure_plots(findings, found.counted)), *_failed(facts, findings.failures)]
        yield _section("Failed rows", cards)
    if findings.message_lengths or findings.free_texts:
        yield _section("Texts", plots.cards(length_plots(findings)))
    yield _section("The run", [*plots.cards(pace_plots(facts.timeline, found.counted)), *_run(facts, found)])
    yield f"<footer>PRISM · <span class=mono>{_text(facts.run_id, 130)}</span></footer>"


def _head(facts: Facts, found: Figures, findings: Findings) -> Iterator[str]:
    manifest = facts.manifest
    badge = _BADGES.get(str(manifest["status"]), " bad")
    yield "<header>"
    yield f"<p class=eyebrow>{_text(manifest['project'])} {_text(manifest['version'])}</p>"
    yield f"<h1>{_text(facts.run_id, 130)}</h1>"
    yield (
        f'<p class=lead><span class="badge{badge}">{_text(outline.state(facts))}</span>'
        f"{_text(outline.headline(facts, found))}</p>"
    )
    if found.rows:
        good = 100 * found.ok / found.rows
        parts = "".join(f'<i style="width:{part:.3f}%"></i>' for part in (good, 100 - good))
        yield f"<div class=share>{parts}</div>"
    yield '<div class="tiles">'
    for value, title in _tiles(found):
        yield f"<div class=tile><b>{_text(value)}</b><span>{_text(title)}</span></div>"
    yield "</div>"
    lines = [f"<li>{_text(one, 300)}</li>" for one in outline.warnings(facts, found, findings)]
    if lines:
        yield f'<ul class="warnings">{"".join(lines)}</ul>'
    yield "</header>"


def _tiles(found: Figures) -> Iterator[tuple[str, str]]:
    yield number(found.inputs), "rows in"
    if found.models > 1:
        yield number(found.models), "models"
    yield percent(found.ok, found.rows), f"ok, {number(found.ok)} {found.counted}s"
    yield duration(found.total_s), "from start to publication"
    if found.rows_per_s is not None:
        yield number(found.rows_per_s), f"{found.counted}s a second"
    if found.tokens_per_s:
        yield number(found.tokens_per_s), "tokens a second"
    if found.tokens_per_row:
        yield number(found.tokens_per_row), f"tokens per {found.counted}"
    yield number(found.calls), "model calls"
    if found.reused:
        yield number(found.reused), "rows answered as their equals"
    if found.cost is not None:
        yield f"{found.cost} {found.currency}", "cost"


def _models(models: Sequence[ModelFigures], found: Figures) -> Iterator[str]:
    rows = [(f"<code>{_text(one.name)}</code>", *outline.model_cells(one, found)) for one in models]
    yield _wide(_table(outline.MODEL_HEADER, rows, "lrrrrrrrr"))


def _agreement(found: Figures, findings: Findings) -> Iterator[str]:
    intro = f"<p class=note>{_text(outline.answered_by_all(found, findings), 300)}</p>"
    rows = [
        (
            f"<code>{_text(one.column)}</code>", _text(who, 200), number(compared), number(same),
            percent(same, compared), kappa, alpha,
        )
        for one in findings.agreement
        for who, compared, same, kappa, alpha in _compared(one)
    ]  # fmt: skip
    header = ("column", "models", "rows", "alike", "share", "kappa", "alpha")
    notes = [outline.MEASURES] if rows else []
    notes += [outline.CROWDED] if any(one.crowded for one in findings.agreement) else []
    shown = _table(header, rows, "llrrrrr") if rows else ""
    yield _wide(f"{intro}{shown}" + "".join(f"<p class=note>{_text(one, 300)}</p>" for one in notes))


def _compared(one: ColumnAgreement) -> Iterator[tuple[str, int, int, str, str]]:
    """Yield the models, rows, rows alike, kappa and alpha of each line of a column."""
    if len(one.pairs) > 1:
        yield "all", one.rows, one.same, "", measure(one.alpha)
    for pair in one.pairs[:_MOST_PAIRS]:
        alpha = measure(one.alpha) if len(one.pairs) == 1 else ""
        yield f"{pair.first} and {pair.second}", pair.rows, pair.same, measure(pair.kappa), alpha


def _differences(facts: Facts, findings: Findings) -> Iterator[str]:
    if not findings.differences:
        return
    rows = [
        (
            _text(one.label), f"<code>{_text(one.row_id or f'row {one.row}')}</code>",
            _text(one.message, 120), _text(answers.column),
            *(f"<code>{_text(value)}</code>" if value else "–" for value in answers.given),
        )
        for one in findings.differences
        for answers in one.answers
        if answers.differ
    ]  # fmt: skip
    header = ("file", "row", "message", "column", *(_text(one) for one in facts.models))
    where = f" of {number(findings.differing)}"
    where += f"; all are in {_text(Path(facts.disagreements).name)}" if facts.disagreements else ""
    yield _wide(
        f"<h3>Where they differ</h3><p class=note>{len(findings.differences)} rows{where}</p>"
        + _table(header, rows, "l" * len(header))
    )


def _organic(findings: Findings) -> Iterator[str]:
    rows = [
        (
            _text(one.column),
            f"<code>{_text(one.value)}</code>",
            number(one.count),
            "<br>".join(
                f"<code>{_text(sample.row_id or f'row {sample.row}')}</code> {_text(sample.text, 120)}"
                for sample in one.samples
            ),
        )
        for one in findings.organic[:_ORGANIC_SHOWN]
    ]
    more = findings.organic_values - len(rows)
    note = "Given by the model although the prompt’s lists do not have them."
    note += f" {number(more)} more are in the analytics." if more else ""
    yield _wide(f"<p class=note>{note}</p>{_table(('column', 'label', 'rows', 'for example'), rows, 'llrl')}")


def _failed(facts: Facts, failures: Sequence[Failure]) -> Iterator[str]:
    rows = [
        (
            f"<code>{_text(one.reason)}</code>", _text(sample.label), number(sample.row),
            f"<code>{_text(sample.row_id)}</code>", _text(sample.text, 120),
        )
        for one in failures
        for sample in one.samples
    ]  # fmt: skip
    if rows:
        header = ("reason", "file", "row", "RowID", "what was said")
        yield _wide(f"<h3>For example</h3>{_table(header, rows, 'llrll')}{_retry(facts)}")


def _retry(facts: Facts) -> str:
    names = outline.failed_rows(facts)
    if not names:
        return ""
    shown = ", ".join(f"<code>{_text(one, 300)}</code>" for one in names[:5]) + (", …" if names[5:] else "")
    return (
        f"<p>Ask them again, and nothing else: <code>prism retry {_text(facts.run_id, 130)}</code>."
        f" As they came they are in {shown}.</p>"
    )


def _run(facts: Facts, found: Figures) -> Iterator[str]:
    entries = [*outline.settings(facts), *outline.times(facts)]
    rows = "".join(
        f"<tr><td class=name>{_text(name)}<td class=mono>{_text(value, 300)}</tr>" for name, value in entries
    )
    yield _wide(f"<h3>Settings</h3><table>{rows}</table>")
    per_file = [
        (_text(one.label), number(one.rows), number(one.rows_ok), number(one.rows_failed))
        for one in facts.files[:_MOST_FILES]
    ]
    yield _wide(f"<h3>Files</h3>{_table(('file', 'rows', *outline.fared(found)), per_file, 'lrrr')}")
    published = [
        (
            f"<span class=mono>{_text(one.path, 300)}</span>", number(one.rows), number(one.bytes),
            f"<span class=mono>{_text(one.sha256, 70)}</span>",
        )
        for one in islice(outline.outputs(facts), _MOST_FILES)
    ]  # fmt: skip
    if published:
        header = ("output", "rows", "bytes", "SHA-256")
        yield _wide(f"<h3>Outputs</h3>{_table(header, published, 'lrrl')}")


def _card(plot: Plot, place: int) -> str:
    header, *rows = plot.rows
    align = "".join(
        "r" if rows and _are_numbers(row[one] for row in rows) else "l" for one in range(len(header))
    )
    escaped = [tuple(map(_text, row)) for row in rows]
    numbers = _table(tuple(map(_text, header)), escaped, align)
    wide = " wide" if plot.data[0]["type"] in ("heatmap", "scatter") else ""
    return (
        f'<article class="card{wide}"><h3>{_text(plot.title)}</h3><p class=note>{_text(plot.note, 200)}</p>'
        f'<div class=plot id="plot-{place}"></div>'
        f"<details><summary>numbers</summary>{numbers}</details></article>"
    )


def _are_numbers(cells: Iterable[str]) -> bool:
    return all(cell and set(cell) <= _NUMERIC for cell in cells)


def _section(title: str, cards: Iterable[str]) -> str:
    return f'<section><h2>{title}</h2><div class="cards">{"".join(cards)}</div></section>'


def _wide(content: str) -> str:
    return f'<article class="card wide">{content}</article>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a table; its cells are HTML already."""
    kinds = [" class=n" if side == "r" else "" for side in align]
    head = "".join(f"<th{kind}>{cell}" for kind, cell in zip(kinds, header, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}" for kind, cell in zip(kinds, row, strict=True)) for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</thead><tbody>{body}</tbody></table></div>'


def _text(text: str, most: int = 80) -> str:
    """Return any text as one line of HTML."""
    return html.escape(one_line(str(text), most))


def _resource(name: str) -> str:
    return files("prism_merger.reports").joinpath(name).read_text(encoding="utf-8")
