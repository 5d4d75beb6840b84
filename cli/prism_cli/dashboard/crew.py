"""Who does the work: a row for each worker, and the model servers as their workers find them."""

import re

from rich.cells import cell_len
from rich.text import Text

from prism.messages import WorkerState
from prism_cli.board import WorkerView
from prism_cli.console import count
from prism_cli.dashboard.amounts import plural, short, speed, whole
from prism_cli.dashboard.cells import DIM, both_ends, fit, folded, left, line, right, widest
from prism_cli.dashboard.history import silent_workers
from prism_cli.dashboard.picture import Picture, Server

_STATE_CELLS = 6


def workers(picture: Picture, width: int) -> list[Text]:
    """Return a head and a row for each worker; the silent ones first, in red."""
    if not picture.workers:
        return [line((one, "red")) for one in folded("no model worker is running: start one", width)]
    shown = sorted(picture.workers, key=lambda one: (not one.lost, _natural(one.heartbeat.worker_id)))
    wide = width >= 100
    cells = _columns(wide)
    room = width - sum(cells.values()) - len(cells) - 1
    most = max(8, min(width // 4, room - _STATE_CELLS))
    name_cells = widest((one.heartbeat.worker_id for one in shown), 6, most)
    state_cells = max(_STATE_CELLS, room - name_cells)
    heads = [left("worker", name_cells), left("state", state_cells)]
    lines = [line((" ".join([*heads, *(right(name, size) for name, size in cells.items())]), f"bold {DIM}"))]
    for one in shown:
        lines.append(_worker_line(picture, one, name_cells, state_cells, cells))
    return lines


def _columns(wide: bool) -> dict[str, int]:
    if wide:
        return {"rows": 10, "rows/s": 8, "tokens/s": 9, "in flight": 10, "limit": 6, "errors": 8, "seen": 10}
    return {"rows": 9, "rows/s": 7, "in flight": 9, "limit": 5, "errors": 6, "seen": 6}


def _worker_line(
    picture: Picture, worker: WorkerView, name_cells: int, state_cells: int, cells: dict[str, int]
) -> Text:
    beat, share = worker.heartbeat, picture.share(worker)
    unknown = picture.unsure
    lost = worker.lost and not unknown
    values = {
        "rows": count(share.rows),
        "rows/s": "–" if worker.lost else speed(beat.rows_per_sec),
        "tokens/s": "–" if worker.lost else whole(beat.tokens_per_sec),
        "in flight": count(len(beat.in_flight)),
        "limit": count(beat.limit),
        "errors": count(share.failed),
        "seen": "?" if unknown else "now" if worker.silent_s < 2.5 else short(worker.silent_s),
    }
    state, style = _worker_state(worker, unknown)
    tail = " ".join(right(values[name], size) for name, size in cells.items())
    row: list[str | tuple[str, str]] = [
        (left(beat.worker_id, name_cells), "bold red" if lost else "bold"),
        " ",
        (left(state, state_cells), style),
        " ",
        (tail, "red" if lost else ""),
    ]
    return line(*row)


def _worker_state(worker: WorkerView, unknown: bool) -> tuple[str, str]:
    beat = worker.heartbeat
    if unknown:
        return "unknown", DIM
    if worker.lost:
        return "✗ silent", "bold red"
    if beat.state is WorkerState.WAITING:
        return f"‖ waiting: {beat.reason}" if beat.reason else "‖ waiting", "yellow"
    return f"● {beat.state.value}", "green" if beat.state is WorkerState.RUNNING else "cyan"


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that puts worker-10 behind worker-9."""
    parts = filter(None, re.split("([0-9]+)", name))
    return [(not one.isdigit(), int(one) if one.isdigit() and len(one) < 19 else 0, one) for one in parts]


def silent(picture: Picture) -> int:
    """Return how many workers have fallen silent; none while nobody could be heard."""
    return 0 if picture.unsure else silent_workers(picture.workers)


def workers_title(picture: Picture) -> str:
    """Return how many workers there are, and how many of them are silent."""
    text = plural(len(picture.workers), "worker")
    return f"{text}, {silent(picture)} silent" if silent(picture) else text


def servers(picture: Picture, width: int) -> list[Text]:
    """Return the model servers: model, address, use, and what is wrong."""
    found = picture.servers
    if not found:
        return [line((fit("no worker says what it asks", width), DIM))]
    lines = []
    for one in found:
        lines += _server_lines(one, width)
    return lines


def _server_lines(server: Server, width: int) -> list[Text]:
    use = f"{plural(server.workers, 'worker')}, {count(server.batches)} in flight"
    mark, style = ("●", "green") if server.trouble is None else ("✗", "red")
    name = f"{server.model} at {server.address}" if server.address else server.model
    head = line((f"{mark} ", style), fit(name or "?", max(8, width - 2)))
    if head.cell_len + cell_len(use) + 2 <= width:
        lines = [both_ends(head, line((use, DIM)), width)]
    else:
        lines = [head, line((f"  {fit(use, width - 2)}", DIM))]
    return lines + [line((f"  {one}", style)) for one in folded(server.trouble or "", width - 2, most=3)]
