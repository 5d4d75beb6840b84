"""What tracing costs: off, on for a run that nobody looks at, and on with every span of every batch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median

from benchmarks.figure import Figure
from benchmarks.rig import Rig, ServerSpec, WorkerSpec, rig, write_rows

ROUNDS = 3
UNSEEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
OFF, OUT, ALL = "off", "on, sampled out", "on, all sampled"
_SERVICES = ("ingestor", "merger", "worker-1")


def tracing(rows: int = 15_000) -> list[Figure]:
    """A model server that answers at once, batches of ten: the dearest case there is for a span per batch."""
    found: dict[str, list[tuple[float, float]]] = {OFF: [], OUT: [], ALL: []}
    with rig([ServerSpec()], [WorkerSpec()]) as fleet:
        _warm(fleet)
        for number in range(ROUNDS):
            found[OFF].append(_measured(fleet, rows, f"off-{number}"))
    with _sink() as environment, rig([ServerSpec()], [WorkerSpec()], environment) as fleet:
        _warm(fleet)
        for number in range(ROUNDS):
            found[OUT].append(_measured(fleet, rows, f"out-{number}", UNSEEN))
            found[ALL].append(_measured(fleet, rows, f"all-{number}"))
    figures = []
    for name, measured in found.items():
        rate, cpu = (median(one[column] for one in measured) for column in (0, 1))
        figures.append(Figure("tracing", f"{name}: drop to published file", rate, "rows/s"))
        figures.append(Figure("tracing", f"{name}: CPU of the three services", cpu, "s/1000 rows"))
    return figures


def _warm(fleet: Rig) -> None:
    fleet.drop(write_rows(fleet.folder / "warm.csv", 2_000), "warm")
    fleet.follow("warm", 120)


def _measured(fleet: Rig, rows: int, run_id: str, traceparent: str = "") -> tuple[float, float]:
    path = write_rows(fleet.folder / f"{run_id}.csv", rows)
    before = fleet.cpu_seconds()
    fleet.drop(path, run_id, traceparent=traceparent)
    timeline = fleet.follow(run_id, 600)
    after = fleet.cpu_seconds()
    used = sum(after[name] - before[name] for name in _SERVICES)
    return rows / timeline.seconds, used / rows * 1000


class _Drain(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def _sink() -> Iterator[dict[str, str]]:
    """A collector that keeps nothing; what a service needs to send to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Drain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}"}
    finally:
        server.shutdown()
        server.server_close()
