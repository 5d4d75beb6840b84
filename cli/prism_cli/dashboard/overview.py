"""The head of the dashboard: which run, in which state, what is wrong, how far it is, and its numbers."""

from dataclasses import dataclass
from decimal import Decimal

from rich.cells import cell_len
from rich.text import Text

from prism.messages import RunState
from prism_cli.console import count, duration
from prism_cli.dashboard.amounts import large, money, per_cent, plural, speed, whole
from prism_cli.dashboard.cells import DIM, both_ends, fit, folded, left, line, right, sparkline, track, widest
from prism_cli.dashboard.picture import Picture
from prism_cli.status import explanation

_MARKS = {
    RunState.ACCEPTED: ("○", "cyan"),
    RunState.RUNNING: ("●", "green"),
    RunState.PAUSED: ("‖", "yellow"),
    RunState.MERGING: ("◐", "cyan"),
    RunState.COMPLETED: ("✓", "green"),
    RunState.COMPLETED_WITH_FAILURES: ("✓", "yellow"),
    RunState.REFUSED: ("✗", "red"),
    RunState.CANCELLED: ("✗", "yellow"),
    RunState.FAILED: ("✗", "red"),
}
_FIGURE_CELLS = 26
_GAP_CELLS = 3
_FILES_NAMED = 3


# The head: which run, of what, in which state, and what is wrong.


def header(picture: Picture, width: int) -> list[Text]:
    """Return run, state, model and files; below, in red, why nothing moves."""
    state = _state(picture)
    name = folded(picture.run_id, max(20, width - state.cell_len - 2))
    lines = [both_ends(line((name[0] if name else "-", "bold")), state, width)]
    lines += [line((one, "bold")) for one in name[1:]]
    lines.append(both_ends(_subject(picture, width), _clock(picture), width))
    for text, style in _troubles(picture):
        lines += [line((one, style)) for one in folded(text, width, most=3)]
    return lines


def _state(picture: Picture) -> Text:
    view = picture.view
    if view is None:
        return line(("○ sent, not yet taken up", "cyan"))
    mark, style = _MARKS.get(view.state, ("●", "cyan"))
    words = view.state.value.replace("_", " ")
    made = line((f"{mark} {words}", f"bold {style}"))
    if view.record.stalled and not view.ended:
        made.append(" · stalled", "bold red")
    if picture.paused and picture.in_flight:
        made.append(f" · {plural(picture.in_flight, 'batch')} under way", "yellow")
    return made


def _subject(picture: Picture, width: int) -> Text:
    model = fit(picture.model or "no model yet", 40)
    made = line((model, "bold" if picture.model else DIM))
    servers = picture.servers
    troubled = sum(one.trouble is not None for one in servers)
    if troubled:
        made.append(f" ✗ {troubled} of {len(servers)} servers" if len(servers) > 1 else " ✗ no answer", "red")
    elif servers and not picture.ended:
        made.append(" ● answers" if len(servers) == 1 else f" ● {len(servers)} servers answer", "green")
    room = width - made.cell_len - 16
    files = fit(_files_text(picture), max(0, room))
    return line(made, (f"  {files}" if files else "", DIM))


def _files_text(picture: Picture) -> str:
    files = picture.view.record.files if picture.view else []
    named = ", ".join(one.filename or one.label for one in files[:_FILES_NAMED])
    return f"{named} and {len(files) - _FILES_NAMED} more" if len(files) > _FILES_NAMED else named


def _clock(picture: Picture) -> Text:
    elapsed = picture.elapsed_s
    if elapsed is None:
        return line("")
    return line((("took " if picture.ended else "for ") + duration(elapsed), DIM))


def _troubles(picture: Picture) -> list[tuple[str, str]]:
    """Return what a person must read, with its style."""
    view = picture.view
    found: list[tuple[str, str]] = []
    if picture.away_s is not None:
        found.append(
            (
                f"The broker has not answered for {duration(picture.away_s)}: what stands here is older. "
                "It goes on by itself.",
                "bold red",
            )
        )
    elif picture.merger_silent:
        found.append(
            (f"The merger is silent for {duration(picture.merger_silent_s)}: the counts stand still.", "red")
        )
    if view is not None and view.record.stalled and not view.ended:
        found.append((f"stalled: {view.record.stalled}", "bold red"))
    if view is not None and view.ended and explanation(view):
        found.append((explanation(view), _MARKS.get(view.state, ("", "red"))[1]))
    if picture.notice:
        found.append((picture.notice, "bold cyan"))
    return found


# How far it is.


def progress(picture: Picture, width: int) -> list[Text]:
    """Return the bar of all rows, and one for each file where there are several."""
    view = picture.view
    if view is None:
        return [track(0.0, width, "cyan")]
    style = "cyan" if view.state is RunState.RUNNING else _MARKS.get(view.state, ("", "cyan"))[1]
    complete = view.state in (RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES)
    whole_run = _Course("", view.rows_done, view.record.rows, 0, complete)
    figures_cells = cell_len(whole_run.per_cent) + cell_len(whole_run.rows_text) + 3
    bar = track(whole_run.share, max(4, width - figures_cells), style)
    lines = [line(bar, " ", whole_run.per_cent, "  ", (whole_run.rows_text, "bold"))]
    return lines + (_file_lines(picture, width, complete) if len(view.record.files) > 1 else [])


@dataclass(frozen=True, slots=True)
class _Course:
    """How far something is. `complete`: it is, although it may have no rows."""

    label: str
    done: int
    rows: int
    failed: int
    complete: bool

    @property
    def share(self) -> float:
        return self.done / self.rows if self.rows else float(self.complete)

    @property
    def per_cent(self) -> str:
        # 99.7 % is not 100 %.
        return f"{int(self.share * 100):3d} %"

    @property
    def rows_text(self) -> str:
        return f"{count(self.done)}/{count(self.rows)}"

    @property
    def failed_text(self) -> str:
        return f"{count(self.failed)} failed" if self.failed else ""


def _courses(picture: Picture, complete: bool) -> list[_Course]:
    assert picture.view is not None
    told = picture.view.progress.files
    found = []
    for one in picture.view.record.files:
        known = told.get(one.label)
        ok, failed = (known.rows_ok, known.rows_failed) if known else (0, 0)
        found.append(_Course(one.label, ok + failed, one.rows, failed, complete))
    return found


def _file_lines(picture: Picture, width: int, complete: bool) -> list[Text]:
    courses = _courses(picture, complete)
    name_cells = widest((one.label for one in courses), 4, max(4, width // 3))
    rows_cells = max(cell_len(one.rows_text) for one in courses)
    failed_cells = max(cell_len(one.failed_text) for one in courses)
    bar = max(4, width - name_cells - rows_cells - failed_cells - 9 - bool(failed_cells))
    return [
        line(
            left(one.label, name_cells),
            " ",
            track(one.share, bar, "green" if one.share >= 1 else "cyan"),
            f" {one.per_cent}  {right(one.rows_text, rows_cells)}",
            (f" {right(one.failed_text, failed_cells)}" if failed_cells else "", "yellow"),
        )
        for one in courses
    ]


# The numbers.


def figures(picture: Picture, width: int) -> list[Text]:
    """Return speed, time, tokens, calls, cost and failures in as many columns as fit."""
    pairs = _pairs(picture)
    depth = -(-len(pairs) // max(1, width // _FIGURE_CELLS))
    columns = -(-len(pairs) // depth)
    cells = (width + _GAP_CELLS) // columns - _GAP_CELLS
    # The last column ends where the lines above and below end.
    room = [cells] * (columns - 1) + [width - (columns - 1) * (cells + _GAP_CELLS)]
    lines = []
    for row in range(depth):
        shown = [_figure(*pairs[at], room[at // depth]) for at in range(row, len(pairs), depth)]
        lines.append(line(Text(" " * _GAP_CELLS).join(shown)))
    return lines


def _figure(name: str, value: str, style: str, cells: int) -> Text:
    name = fit(name, max(0, cells - cell_len(value) - 1))
    blank = " " * max(0, cells - cell_len(name) - cell_len(value))
    return line((name, DIM), blank, (fit(value, cells), style))


def _pairs(picture: Picture) -> list[tuple[str, str, str]]:
    view = picture.view
    if view is None:
        return [(name, "–", "") for name in ("rows/s", "time left", "tokens/s", "calls", "failed rows")]
    told = view.progress
    failed = told.rows_failed
    share = f" ({per_cent(failed, view.rows_done)})" if failed else ""
    speeds = [
        ("rows/s", speed(view.rows_per_s), "bold"),
        ("rows/s, mean", speed(told.mean_rows_per_s), ""),
        ("time left", _time_left(picture), "bold"),
    ]
    if view.ended:
        took = "–" if picture.elapsed_s is None else duration(picture.elapsed_s)
        speeds = [("rows", count(view.rows_done), "bold"), ("rows/s, mean", speed(view.rows_per_s), "")]
        speeds.append(("took", took, "bold"))
    return [
        *speeds,
        ("tokens/s", whole(picture.tokens_per_s), "bold"),
        ("tokens/row", whole(picture.tokens_per_row), ""),
        ("tokens", large(view.tokens), ""),
        ("calls", count(told.calls), ""),
        ("retries", count(picture.retries), "yellow" if picture.retries else ""),
        ("extra calls", count(told.extra_calls), "yellow" if told.extra_calls else ""),
        ("cost", _cost(picture), _cost_style(picture)),
        ("rows from cache", count(told.reused_rows), ""),
        ("failed rows", f"{count(failed)}{share}", "bold yellow" if failed else "green"),
    ]


def _time_left(picture: Picture) -> str:
    view = picture.view
    if view is None:
        return "–"
    if picture.paused:
        return "paused"
    return duration(view.progress.eta_s) if view.progress.eta_s is not None else "–"


def _cost(picture: Picture) -> str:
    cost, budget = picture.cost, picture.job.budget
    if cost is not None:
        limit = f" of {money(budget.money)}" if budget.money is not None else ""
        return f"{money(cost[0])}{limit} {cost[1]}"
    if budget.tokens is not None and picture.view is not None:
        return f"{per_cent(picture.view.tokens, budget.tokens)} of budget"
    return "no price"


def _cost_style(picture: Picture) -> str:
    cost, budget = picture.cost, picture.job.budget
    spent = budget.money is not None and cost is not None and cost[0] >= budget.money * Decimal("0.9")
    return "bold yellow" if spent else DIM if cost is None and budget.tokens is None else ""


def speed_line(picture: Picture, width: int) -> list[Text]:
    """Return rows/s over the last minutes as a row of columns."""
    drawn = sparkline(picture.rates, width - 16)
    if not drawn:
        return [line((fit("no row yet", width), DIM))]
    top = max(picture.rates[-(width - 16) :])
    return [line((drawn, "cyan"), (f"  up to {speed(top)}", DIM))]
