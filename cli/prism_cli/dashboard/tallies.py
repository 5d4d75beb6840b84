"""What comes in and what goes wrong: labels and failed rows with a bar each, errors, and what happened."""

from datetime import datetime, tzinfo

from rich.cells import cell_len
from rich.text import Text

from prism_cli.console import count
from prism_cli.dashboard.amounts import plural, rounded_share
from prism_cli.dashboard.cells import (
    DIM,
    block,
    both_ends,
    clean,
    fit,
    fit_id,
    folded,
    left,
    line,
    right,
    widest,
)
from prism_cli.dashboard.picture import Picture

_LABELS_SHOWN = 100
_HUES = ("cyan", "green", "magenta", "blue", "yellow")


def labels(picture: Picture, width: int) -> list[Text]:
    """Return how often each label was given, a bar each, column by column."""
    told = picture.view.progress.labels if picture.view else {}
    lines: list[Text] = []
    for at, (column, counts) in enumerate(told.items()):
        if lines:
            lines.append(line(""))
        lines.append(_column_head(column, counts, width))
        lines += _label_lines(counts, width, _HUES[at % len(_HUES)])
    return lines or [line((one, DIM)) for one in folded("no labels yet", width)]


def _column_head(column: str, counts: dict[str, int], width: int) -> Text:
    kinds = plural(len(counts), "label")
    return both_ends(line((fit(column, width - cell_len(kinds) - 1), "bold")), line((kinds, DIM)), width)


def _label_lines(counts: dict[str, int], width: int, hue: str) -> list[Text]:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = ordered[:_LABELS_SHOWN]
    total, top = sum(counts.values()), ordered[0][1] if ordered else 0
    number_cells = max((len(count(number)) for _, number in shown), default=1)
    name_cells = widest((name or "(empty)" for name, _ in shown), 4, max(4, min(32, width * 2 // 5)))
    bar_cells = max(0, width - name_cells - number_cells - 5 - 3)
    lines = [
        line(
            left(name or "(empty)", name_cells),
            " ",
            (left(block(number / top if top else 0.0, bar_cells), bar_cells), hue),
            " ",
            right(count(number), number_cells),
            (right(rounded_share(number, total), 6), DIM),
        )
        for name, number in shown
    ]
    if len(ordered) > len(shown):
        rest = ordered[len(shown) :]
        text = f"and {count(len(rest))} more labels in {count(sum(one[1] for one in rest))} rows"
        lines.append(line((fit(text, width), DIM)))
    return lines


def failures(picture: Picture, width: int) -> list[Text]:
    """Return the failed rows by reason, a bar each."""
    told = picture.view.progress.failed_by_reason if picture.view else {}
    if not told:
        return [line((fit("no row has failed", width), "green"))]
    return _label_lines(told, width, "yellow")


def failures_line(picture: Picture, width: int) -> list[Text]:
    """Return the failed rows by reason in one line; nothing where there are none."""
    told = picture.view.progress.failed_by_reason if picture.view else {}
    if not told:
        return []
    ordered = sorted(told.items(), key=lambda one: (-one[1], one[0]))
    text = " · ".join(f"{name} {count(number)}" for name, number in ordered)
    return [line((fit(f"failed: {text}", width), "yellow"))]


def worker_errors(picture: Picture, width: int) -> list[Text]:
    """Return each worker's last error."""
    said = [one.heartbeat for one in picture.workers if one.heartbeat.last_error]
    lines = []
    for beat in said:
        name = fit_id(beat.worker_id, 24)
        for at, text in enumerate(folded(beat.last_error or "", width - cell_len(name) - 2, most=3)):
            lines.append(line((name if not at else " " * cell_len(name), "bold"), "  ", text))
    return lines or [line((fit("no worker has met an error", width), "green"))]


def events(picture: Picture, width: int, zone: tzinfo | None = None) -> list[Text]:
    """Return what happened, the newest first, with the time of day here."""
    lines = []
    for event in picture.events:
        at = f"{_local(event.at, zone):%H:%M:%S}"
        for number, text in enumerate(folded(event.text, max(8, width - 9), most=4)):
            lines.append(line((at if not number else " " * 8, DIM), " ", (text, event.style)))
    return lines or [line((fit("nothing so far", width), DIM))]


def _local(at: datetime, zone: tzinfo | None) -> datetime:
    return at.astimezone(zone)


def label_bars(picture: Picture, width: int, most: int = 8) -> list[Text]:
    """Return the labels that were given most, of each column, a bar each."""
    assert picture.view is not None
    lines = []
    for at, (column, counts) in enumerate(picture.view.progress.labels.items()):
        shown = _label_lines(counts, width, _HUES[at % len(_HUES)])
        lines += [_column_head(column, counts, width), *shown[:most]]
        if len(counts) > most:
            lines.append(line((f"and {plural(len(counts) - most, 'more label')}", DIM)))
    return lines


def label_lines(picture: Picture, width: int) -> list[Text]:
    """Return a line for each column, with as many of its labels as fit."""
    assert picture.view is not None
    told = picture.view.progress.labels
    name_cells = widest(told, 4, width // 4)
    return [
        line((left(column, name_cells), "bold"), "  ", _shares(counts, width - name_cells - 2))
        for column, counts in told.items()
    ]


def _shares(counts: dict[str, int], width: int) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    total = sum(counts.values())
    text = ""
    for name, number in ordered:
        longer = f"{text} · " * bool(text) + f"{clean(name) or '(empty)'} {rounded_share(number, total)}"
        if cell_len(longer) > width - 2:
            return f"{text} …" if text else fit(longer, width)
        text = longer
    return text
