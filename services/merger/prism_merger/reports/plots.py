"""The plots of a report, as what plotly.js draws: data and layout; colours are the page's.

Values stand at whole numbers of an axis and are its tick texts: no value is taken for a date, a number or
another's double. Plotly reads a little HTML in texts, so that every text of ours is escaped before.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prism_merger.reports.counting import Lengths
from prism_merger.reports.figures import paces
from prism_merger.reports.findings import (
    CrossTable,
    Distribution,
    Failure,
    Findings,
    Origin,
    Stretch,
)
from prism_merger.reports.texts import duration, measure, number, one_line, percent

_BAR_PIXELS = 30
_TICK_CHARACTERS = 36
_LEAST_STEPS = 3
_MOST_COMPARED = 3
_TONES = {Origin.ORGANIC: "accent", Origin.RULED: "muted", Origin.OTHERS: "muted"}


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot. `rows`: its numbers as a table; the first is the header."""

    title: str
    note: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    rows: list[tuple[str, ...]]


def distribution_plots(findings: Findings) -> Iterator[Plot]:
    """Yield a bar chart for each column with labels."""
    for one in findings.distributions:
        yield _distribution(one)


def cross_plots(findings: Findings) -> Iterator[Plot]:
    """Yield the heat map of the first two columns with lists, if there are two."""
    if findings.cross is not None:
        yield _heat_map(findings.cross)


def agreement_plots(findings: Findings) -> Iterator[Plot]:
    """Yield what two models make of the same rows, for the first columns and pairs."""
    for column in findings.agreement[:_MOST_COMPARED]:
        for pair in column.pairs[:_MOST_COMPARED]:
            if pair.table is not None:
                plot = _heat_map(pair.table)
                alike = f"{percent(pair.same, pair.rows)} alike, kappa {measure(pair.kappa)}"
                yield replace(plot, note=f"{plot.note}, {alike}")


def failure_plots(findings: Findings, counted: str = "row") -> Iterator[Plot]:
    """Yield the failures by reason, and where in the files they are. `counted`: see Figures."""
    if findings.failures:
        yield _reasons(findings.failures, counted)
    if any(any(one.failed) and len(one.rows) > 1 for one in findings.stretches):
        yield _positions(findings.stretches)


def pace_plots(timeline: Sequence[tuple[float, int, int, int]], counted: str = "row") -> Iterator[Plot]:
    """Yield rows per second over time, where there are moments enough. `counted`: see Figures."""
    steps = list(paces(timeline))
    if len(steps) < _LEAST_STEPS:
        return
    unit, seconds = ("min", 60) if timeline[-1][0] >= 600 else ("s", 1)
    ends = [*(one.start for one in steps), timeline[-1][0]]
    yield Plot(
        title=f"{counted.capitalize()}s a second",
        note="from the first result to the last",
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hv", "width": 2},
                "fill": "tozeroy",
                "tone": "main",
                "x": [round(one / seconds, 3) for one in ends],
                "y": [round(one.rows_per_s, 3) for one in [*steps, steps[-1]]],
                "text": [f"{number(one.tokens_per_s)} tokens/s" for one in [*steps, steps[-1]]],
                "hovertemplate": f"%{{y:,.2f}} {counted}s/s" + "<br>%{text}<extra></extra>",
            }
        ],
        layout={
            "height": 260,
            "xaxis": {"ticksuffix": f" {unit}", "range": [0, ends[-1] / seconds]},
            "yaxis": {"rangemode": "tozero"},
        },
        rows=[
            ("after", f"{counted}s/s", "tokens/s"),
            *((duration(one.start), number(one.rows_per_s), number(one.tokens_per_s)) for one in steps),
        ],
    )


def length_plots(findings: Findings) -> Iterator[Plot]:
    """Yield box plots of the lengths of messages by label, and of free texts."""
    if findings.message_lengths:
        by = next((one.column for one in findings.message_lengths if one.group), "")
        title = f"Length of messages by {one_line(by)}" if by else "Length of messages"
        yield _boxes(title, [(one.group or "all", one.lengths) for one in findings.message_lengths])
    if findings.free_texts:
        yield _boxes("Length of free text", [(one.column, one.lengths) for one in findings.free_texts])


def _distribution(one: Distribution) -> Plot:
    parts = one.top()
    names = [part.value for part in parts]
    tones = [_TONES.get(part.origin, "main") for part in parts]
    values = f"{number(len(one.slices))} values" if len(one.slices) != 1 else "one value"
    note = f"{number(one.total)} rows, {values}"
    if Origin.ORGANIC in {part.origin for part in parts}:
        note += "; highlighted: not in the prompt's list"
    return Plot(
        title=one_line(one.column),
        note=note,
        data=[_bars(names, [part.count for part in parts], one.total, tones)],
        layout=_bar_layout(names),
        rows=[
            ("value", "rows", "share", "origin"),
            *((one_line(part.value), number(part.count), percent(part.count, one.total), part.origin.value)
              for part in parts),
        ],
    )  # fmt: skip


def _reasons(failures: Sequence[Failure], counted: str) -> Plot:
    names, counts = [one.reason for one in failures], [one.count for one in failures]
    return Plot(
        title="Why rows failed",
        note=f"{number(sum(counts))} failed {counted}s by reason",
        data=[_bars(names, counts, sum(counts), ["bad"] * len(names))],
        layout=_bar_layout(names),
        rows=[
            ("reason", f"{counted}s", "share"),
            *((one_line(one.reason), number(one.count), percent(one.count, sum(counts))) for one in failures),
        ],
    )


def _bars(names: Sequence[str], counts: Sequence[int], whole: int, tones: Sequence[str]) -> dict[str, Any]:
    shown = [f"{number(count)} · {percent(count, whole)}" for count in counts]
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(counts),
        "y": list(range(len(counts))),
        "text": shown,
        "textposition": "outside",
        "cliponaxis": False,
        "customdata": [_escaped(name, 300) for name in names],
        "hovertemplate": "%{customdata}<br>%{text}<extra></extra>",
        "marker": {"tones": list(tones)},
    }


def _bar_layout(names: Sequence[str]) -> dict[str, Any]:
    return {
        "height": 60 + _BAR_PIXELS * len(names),
        "margin": {"l": 8, "r": 112, "t": 8, "b": 8},
        "bargap": 0.35,
        "xaxis": {"visible": False, "rangemode": "tozero"},
        "yaxis": {**_named(names), "autorange": "reversed"},
    }


def _heat_map(cross: CrossTable) -> Plot:
    text = [
        [
            f"{_escaped(name)} · {_escaped(other)}<br>{number(count)} · {percent(count, cross.total)}"
            for other, count in zip(cross.columns, counts, strict=True)
        ]
        for name, counts in zip(cross.rows, cross.counts, strict=True)
    ]
    shown = [[number(count) for count in counts] for counts in cross.counts]
    return Plot(
        title=f"{one_line(cross.row_column)} by {one_line(cross.column_column)}",
        note=f"{number(cross.total)} rows",
        data=[
            {
                "type": "heatmap",
                "z": [list(counts) for counts in cross.counts],
                "x": list(range(len(cross.columns))),
                "y": list(range(len(cross.rows))),
                "hovertext": text,
                "hovertemplate": "%{hovertext}<extra></extra>",
                "text": shown,
                "texttemplate": "%{text}",
                "xgap": 3,
                "ygap": 3,
                "showscale": False,
            }
        ],
        layout={
            "height": 130 + 36 * max(2, len(cross.rows)),
            "xaxis": {**_named(cross.columns), "side": "top"},
            "yaxis": {**_named(cross.rows), "autorange": "reversed"},
        },
        rows=[
            ("", *(one_line(name) for name in cross.columns)),
            *((one_line(name), *map(number, counts))
              for name, counts in zip(cross.rows, cross.counts, strict=True)),
        ],
    )  # fmt: skip


def _positions(stretches: Sequence[Stretch]) -> Plot:
    failing = [one for one in stretches if any(one.failed) and len(one.rows) > 1]
    return Plot(
        title="Where in the file",
        note="share of failed rows, from the first row to the last",
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hv", "width": 2},
                "fill": "tozeroy" if len(failing) == 1 else "none",
                **({"tone": "bad"} if len(failing) == 1 else {}),
                "name": _escaped(one.label),
                "x": [_percent_at(place, one) for place in range(len(one.rows) + 1)],
                "y": _shares(one),
                "hovertemplate": "%{y:.1%} of the rows at %{x} %<extra>%{fullData.name}</extra>",
            }
            for one in failing
        ],
        layout={
            "height": 280,
            "showlegend": len(failing) > 1,
            "xaxis": {"ticksuffix": " %", "range": [0, 100]},
            "yaxis": {"tickformat": ".0%", "rangemode": "tozero"},
        },
        rows=[
            ("file", "at", "rows", "failed"),
            *(
                (one_line(one.label), f"{_percent_at(place, one):g} %", number(rows), number(bad))
                for one in failing
                for place, (rows, bad) in enumerate(zip(one.rows, one.failed, strict=True))
                if bad
            ),
        ],
    )


def _shares(one: Stretch) -> list[float | None]:
    """Return each stretch's share of failed rows; the last twice: a step ends where the next begins."""
    shares = [bad / rows if rows else None for rows, bad in zip(one.rows, one.failed, strict=True)]
    return [*shares, *shares[-1:]]


def _percent_at(place: int, one: Stretch) -> float:
    return round(100 * place / len(one.rows), 1)


def _boxes(title: str, groups: Sequence[tuple[str, Lengths]]) -> Plot:
    quantiles = [[one.quantile(share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)] for _, one in groups]
    names = [name for name, _ in groups]
    return Plot(
        title=title,
        note="in characters; box: the middle half, whiskers: 5 % to 95 %",
        data=[
            {
                "type": "box",
                "orientation": "h",
                "y": list(range(len(groups))),
                "lowerfence": [one[0] for one in quantiles],
                "q1": [one[1] for one in quantiles],
                "median": [one[2] for one in quantiles],
                "q3": [one[3] for one in quantiles],
                "upperfence": [one[4] for one in quantiles],
                "hoverinfo": "x",
            }
        ],
        layout={
            "height": 90 + 36 * max(2, len(groups)),
            "xaxis": {"rangemode": "tozero"},
            "yaxis": {**_named(names), "autorange": "reversed"},
        },
        rows=[
            ("", "texts", "shortest", "median", "mean", "longest"),
            *((one_line(name), number(one.count), number(one.least or 0), number(one.quantile(0.5)),
               number(round(one.mean)), number(one.most)) for name, one in groups),
        ],
    )  # fmt: skip


def _named(names: Sequence[str]) -> dict[str, Any]:
    texts = [_escaped(name) for name in names]
    return {
        "tickvals": list(range(len(names))),
        "ticktext": texts,
        "ticks": "outside",
        "ticklen": 6,
        "tickcolor": "rgba(0,0,0,0)",
    }


def _escaped(text: str, most: int = _TICK_CHARACTERS) -> str:
    # Between dollars plotly looks for TeX.
    return html.escape(one_line(text, most) or "(empty)", quote=False).replace("$", "&#36;")
