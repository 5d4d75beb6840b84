"""What stands around the panels: the line of keys, what the boxes say, the last look for the scrollback."""

from rich.cells import cell_len
from rich.text import Text

from prism_cli.console import count
from prism_cli.dashboard.cells import DIM, both_ends, folded, line
from prism_cli.dashboard.overview import figures, header, progress
from prism_cli.dashboard.picture import Picture
from prism_cli.dashboard.tallies import failures, label_bars, label_lines, worker_errors

_KEYS = [
    ("q, Ctrl-C", "leave; the run goes on: `prism watch` shows it again"),
    ("p, r", "pause (what is under way is finished) and resume"),
    ("c", "cancel the run for good; asks first"),
    ("f", "failures by reason, last errors, where to find them"),
    ("Tab", "to the next panel; ↑ ↓ Page Up, Page Down scroll it"),
    ("?", "this help; Escape closes it"),
]
_WORDS = [
    ("rows/s", "over the last ten seconds; mean: since the first"),
    ("tokens", "of prompts and replies together"),
    ("retries", "calls about rows asked before: repairs, halves, tries"),
    ("extra calls", "paid twice for a worker that died; at most so many"),
    ("rows from cache", "said the same as a row before: no call"),
    ("in flight, limit", "batches in hand; the most calls at once"),
    ("stalled", "nothing moves, and the reason stands there"),
]


def keys(picture: Picture, width: int) -> list[Text]:
    """Return the keys that mean something now."""
    second = ("r", "resume") if picture.paused else ("p", "pause")
    told = [("q", "leave"), second, ("c", "cancel"), ("f", "failures"), ("?", "help")]
    made = line("")
    for key, what in told:
        made.append(f" {key} ", "reverse bold")
        made.append(f" {what}  ")
    end = line((f"{picture.now.astimezone():%H:%M:%S}", DIM))
    if made.cell_len + end.cell_len + 1 > width:
        made.truncate(width)
        return [made]
    return [both_ends(made, end, width)]


def titled(title: str, width: int) -> Text:
    """Return a line that opens a section, as the panels' borders do."""
    return line(("── ", DIM), (title, "bold"), " ", ("─" * max(0, width - cell_len(title) - 4), DIM))


def help_lines(width: int) -> list[Text]:
    """Return keys and words."""
    lines = []
    for pairs in (_KEYS, _WORDS):
        name_cells = max(cell_len(name) for name, _ in pairs) + 2
        for name, text in pairs:
            for at, part in enumerate(folded(text, width - name_cells)):
                lines.append(line((f"{'' if at else name:<{name_cells}}", "bold cyan"), part))
        lines.append(line(""))
    return lines[:-1]


def failure_lines(picture: Picture, width: int) -> list[Text]:
    """Return the failures by reason, the workers' last errors, and where the rows will be named."""
    failed = picture.view.progress.rows_failed if picture.view else 0
    lines = [titled(f"failed rows: {count(failed)}", width), *failures(picture, width), line("")]
    lines += [titled("last error of each worker", width), *worker_errors(picture, width), line("")]
    lines.append(titled("where they will be", width))
    if picture.job.error_handling.save_failed_ranges:
        where = f"{picture.failed_ranges}, once the output is published"
    else:
        where = "in the output's Error column; the job says save_failed_ranges: false"
    lines += [line(one) for one in folded(where, width)]
    lines += [line((one, DIM)) for one in folded("a failed row keeps its place in the output", width)]
    return lines


def cancel_lines(run_id: str, width: int) -> list[Text]:
    """Return what a cancel does, and the keys that answer."""
    told = (
        "It ends for good: nothing more is fed, and no call is made for what waits. What is merged by then "
        "is published if the job says merge.condition: always."
    )
    lines = [line((one, "bold")) for one in folded(run_id, width)]
    lines += [line(one) for one in folded(told, width)]
    answer = line((" y ", "reverse bold"), " cancel it   ", (" n ", "reverse bold"), " let it go on")
    return [*lines, line(""), answer]


def farewell(picture: Picture, width: int, height: int) -> list[Text]:
    """Return the last look of a run: head, bars, numbers, failures, labels.

    Where all of it would push the head out of sight, the labels of a column are one line.
    """
    lines = [*header(picture, width), *progress(picture, width), *figures(picture, width)]
    view = picture.view
    if view is not None and view.progress.failed_by_reason:
        lines += [titled("failed rows", width), *failures(picture, width)]
    if view is None or not view.progress.labels:
        return lines
    lines.append(titled("labels", width))
    drawn = label_bars(picture, width)
    # Below come the outputs' paths, which may be folded, the closing line, and the next prompt.
    fits = len(lines) + len(drawn) + 2 * len(view.progress.outputs) + 4 <= height
    return lines + (drawn if fits else label_lines(picture, width))
