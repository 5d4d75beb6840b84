"""What tracing costs: off, on for a run that nobody looks at, and on with every span of every batch."""

import threading
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import cast

from confluent_kafka import Message

from benchmarks.figure import Figure
from benchmarks.rig import Rig, ServerSpec, WorkerSpec, rig, write_rows
from prism.kafka.records import Record
from prism.messages import Batch, RunRecord, RunState
from prism.service import tracing
from prism_ingestor.feeder import span_of_batch
from prism_merger.result_spans import ResultSpans
from prism_model_worker import call_spans

ROUNDS = 3
UNSEEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
OFF, OUT, ALL = "off", "on, sampled out", "on, all sampled"
_SERVICES = ("ingestor", "merger", "worker-1")


def cost_of_tracing(rows: int = 15_000) -> list[Figure]:
    """A model server that answers at once, batches of ten: the dearest case there is for a span per batch."""
    found: dict[str, list[tuple[float, float]]] = {OFF: [], OUT: [], ALL: []}
    servers, workers = [ServerSpec()], [WorkerSpec()]
    with (
        _sink() as environment,
        rig(servers, workers) as plain,
        rig(servers, workers, environment) as traced,
    ):
        for fleet in (plain, traced):
            _warm(fleet)
        # In turns: what else the machine does meets all three.
        for number in range(ROUNDS):
            found[OFF].append(_measured(plain, rows, f"off-{number}"))
            found[OUT].append(_measured(traced, rows, f"out-{number}", UNSEEN))
            found[ALL].append(_measured(traced, rows, f"all-{number}"))
    figures = [Figure("tracing", "off: what is asked for each batch, in all services", _checks_ns(), "ns")]
    for name, measured in found.items():
        rate, cpu = (median(one[column] for one in measured) for column in (0, 1))
        figures.append(Figure("tracing", f"{name}: drop to published file", rate, "rows/s"))
        figures.append(Figure("tracing", f"{name}: CPU of the three services", cpu, "s/1000 rows"))
    return figures


def _checks_ns() -> float:
    """Return what the three services spend on a batch's spans while there are none."""
    batch = Batch(run_id="r", label="l", sequence=1, first_row=10, rows=[])
    run = RunRecord(run_id="r", epoch=1, state=RunState.RUNNING)
    record = Record("t", 0, 1, "r", b"", 0, cast(Message, None))

    def once() -> None:
        fed = span_of_batch("prism.batches", batch, run, run.trace)
        came = call_spans.begun(record, batch, "group")
        sent = tracing.send("prism.results", came)
        with ResultSpans([record]).committing():
            _ = fed.context, sent.context

    return min(timeit.repeat(once, number=20_000, repeat=5)) / 20_000 * 1e9


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
