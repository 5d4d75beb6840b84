"""A fleet of real processes to measure: broker, model servers, ingestor, workers, merger."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import requests
from confluent_kafka import Producer

from prism.kafka.admin import ensure_topics
from prism.kafka.clients import KafkaSettings
from prism.kafka.records import Record
from prism.kafka.table import TableReader
from prism.messages import Progress, RunRecord, Topics
from prism_embedded import child
from prism_embedded.broker import EmbeddedBroker
from prism_embedded.broker_files import BrokerFiles

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "feedback"
MODEL = "prism-embedded"
# Jobs: the example's texts repeat, and the bare loop beside a run asks every row.
ASK_ALL, ASK_ONCE = "default", "dedupe"
# As ASK_ALL, with a dashboard that draws its numbers every five seconds.
SELDOM = "seldom"
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One model server: seconds a call takes, more for each row, and how many at once (None: no limit)."""

    latency_s: float = 0.0
    slots: int | None = None
    per_row_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker: which of the model servers it asks, and its calls at once."""

    server: int = 0
    calls: int = 16


@dataclass(slots=True)
class Timeline:
    """When how many rows were merged, by this machine's monotonic clock."""

    begun: float
    points: list[tuple[float, int]] = field(default_factory=list)
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """From the drop to the published file."""
        return self.ended - self.begun

    def at_share(self, share: float) -> float:
        """Return the moment when that share of the rows was merged."""
        wanted = self.points[-1][1] * share
        return next(moment for moment, rows in self.points if rows >= wanted)

    def steady_rate(self) -> float:
        """Rows per second between one tenth and nine tenths of the rows."""
        first, last = self.at_share(0.1), self.at_share(0.9)
        merged = dict(self.points)
        return (merged[last] - merged[first]) / (last - first)


class Rig:
    """Processes, and a table of what they say."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = dict(environment or {})
        self.topics = Topics()
        self.runs: dict[str, RunRecord] = {}
        self.progress: dict[str, Progress] = {}
        self.timelines: dict[str, Timeline] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.servers: list[str] = []
        self.data = folder / "data"
        self._jobs = folder / "jobs"
        self._broker = EmbeddedBroker(folder / "broker")

    def start(self, servers: Sequence[ServerSpec], workers: Sequence[WorkerSpec]) -> None:
        """Start everything and wait until it is ready."""
        self._broker.start()
        self.kafka = KafkaSettings(self._broker.bootstrap, "benchmark")
        admin = self.kafka.admin()
        ensure_topics(admin, self.topics.specs(), 16)
        self._write_jobs()
        self.servers = [self._start_server(number, spec) for number, spec in enumerate(servers)]
        self._service("ingestor", "prism_ingestor", {})
        self._service("merger", "prism_merger", {})
        for number, spec in enumerate(workers, 1):
            self.start_worker(number, spec)
        self.table = TableReader(
            self.kafka, {self.topics.runs: self._on_run, self.topics.progress: self._on_progress}
        )
        for name in list(self.processes):
            self._await_ready(name)

    def start_worker(self, number: int, spec: WorkerSpec) -> None:
        """Start one worker."""
        self._service(
            f"worker-{number}",
            "prism_model_worker",
            {
                "OLLAMA_HOST": self.servers[spec.server],
                "OLLAMA_MODEL": MODEL,
                "CONCURRENT_REQUESTS": str(spec.calls),
                "PRISM_WORKER_ID": f"worker-{number}",
            },
        )

    def _write_jobs(self) -> None:
        self._jobs.mkdir(parents=True)
        shutil.copy(EXAMPLE / "feedback_prompt.json", self._jobs)
        seldom = "dedupe: false\nmonitoring: {dashboard_refresh: 5}"
        for name, more in ((ASK_ALL, "dedupe: false"), (ASK_ONCE, "dedupe: true"), (SELDOM, seldom)):
            (self._jobs / f"{name}.yaml").write_text(
                "project: {name: bench}\nmodel: {batch_size: 10}\n"
                f"prompts: {{config_file: feedback_prompt.json}}\n{more}\n"
            )

    def _start_server(self, number: int, spec: ServerSpec) -> str:
        command = [
            sys.executable,
            "-m",
            "prism_embedded.model_server",
            "--latency-ms",
            str(spec.latency_s * 1000),
            "--latency-per-row-ms",
            str(spec.per_row_s * 1000),
        ]
        command += ["--slots", str(spec.slots)] if spec.slots else []
        log = self.folder / f"server-{number}.log"
        self.processes[f"model-server-{number}"] = self._spawn(command, {}, log)
        return _await_line(log, "ready ")

    def _service(self, name: str, module: str, extra: dict[str, str]) -> None:
        environment = {
            "BOOTSTRAP_SERVER": self._broker.bootstrap,
            "PRISM_DATA_DIR": str(self.data),
            "PRISM_JOBS_DIR": str(self._jobs),
            "PRISM_HTTP_HOST": "127.0.0.1",
            "PORT": "0",
            "PRISM_LOG_FORMAT": "json",
            **self._environment,
            **extra,
        }

        self.processes[name] = self._spawn(
            [sys.executable, "-m", module], environment, self.folder / f"{name}.log"
        )

    def _spawn(self, command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as target:
            return child.spawn(command, target, {**os.environ, **environment}, self.folder)

    def _await_ready(self, name: str) -> None:
        process = psutil.Process(self.processes[name].pid)
        if name.startswith("model-server"):
            return
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and _is_ready(connection.laddr.port):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{name} is not ready: see {self.folder / name}.log")

    def drop(self, path: Path, run_id: str, job: str = ASK_ALL, traceparent: str = "") -> None:
        """Drop a CSV: the bytes in the topic, or by reference when they are many."""
        self.timelines[run_id] = Timeline(time.monotonic())
        producer = Producer({"bootstrap.servers": self._broker.bootstrap, "message.max.bytes": 16_000_000})
        headers: list[tuple[str, str | bytes | None]] = [
            ("run-id", run_id.encode()),
            ("job", job.encode()),
            *([("traceparent", traceparent.encode())] if traceparent else []),
        ]
        if path.stat().st_size > 15_000_000:
            target = self.data / "input" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            headers.append(("content-type", b"application/json"))
            value = json.dumps({"uri": target.resolve().as_uri()}).encode()
        else:
            value = path.read_bytes()
        producer.produce(self.topics.intake, key=path.stem, value=value, headers=headers)
        if producer.flush(30):
            raise RuntimeError("the CSV was not taken by the broker")

    def follow(self, run_id: str, timeout_s: float) -> Timeline:
        """Follow a run to its end; return its timeline."""
        deadline = time.monotonic() + timeout_s
        while not ((run := self.runs.get(run_id)) and run.state.ended):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{run_id} has not ended after {timeout_s:.0f} s: {run}")
            self.table.poll(0.05)
        if not run.state.value.startswith("completed"):
            raise RuntimeError(f"{run_id} is {run.state}: {run.detail}")
        return self.timelines[run_id]

    def until(self, run_id: str, rows: int, timeout_s: float) -> None:
        """Wait until so many rows are merged."""
        deadline = time.monotonic() + timeout_s
        while (self.progress[run_id].rows_ok if run_id in self.progress else 0) < rows:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{run_id} has not merged {rows} rows in {timeout_s:.0f} s")
            self.table.poll(0.05)

    def _on_run(self, record: Record) -> None:
        if record.value and not record.key.endswith("/cursor"):
            run = RunRecord.parse(record.value)
            self.runs[run.run_id] = run
            if run.state.ended and run.run_id in self.timelines:
                self.timelines[run.run_id].ended = time.monotonic()

    def _on_progress(self, record: Record) -> None:
        if record.value:
            progress = Progress.parse(record.value)
            self.progress[progress.run_id] = progress
            line = self.timelines.get(progress.run_id)
            rows = progress.rows_ok + progress.rows_failed
            if line is not None and (not line.points or line.points[-1][1] != rows):
                line.points.append((time.monotonic(), rows))

    def answered(self, what: Literal["rows", "completed"], server: int = 0) -> int:
        """Rows, or calls, that a model server has answered so far, by its own count."""
        return int(requests.get(f"{self.servers[server]}/prism/stats", timeout=5).json()[what])

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of each process so far."""
        pids = {name: process.pid for name, process in self.processes.items()}
        pids["broker"] = self._broker.pid or 0
        return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of each of our services now."""
        return {
            name: psutil.Process(process.pid).memory_info().rss / 2**20
            for name, process in self.processes.items()
            if not name.startswith("model-server")
        }

    def disk_mib(self) -> dict[str, float]:
        """Bytes of the segment files of the topics that carry rows now, those on their way out included."""
        folder = BrokerFiles(self.folder / "broker").kafka
        topics = (self.topics.intake, self.topics.batches, self.topics.results)
        return {topic: _segment_bytes(folder, topic) / 2**20 for topic in topics}

    def stop(self) -> None:
        """End everything that was started."""
        if hasattr(self, "table"):
            self.table.close()
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(35)
            except subprocess.TimeoutExpired:
                process.kill()
        self._broker.stop()


@contextmanager
def rig(
    servers: Sequence[ServerSpec],
    workers: Sequence[WorkerSpec],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Rig]:
    """A started fleet in a folder of its own, gone afterwards. `environment`: every service's."""
    folder = Path(tempfile.mkdtemp(prefix="prism-bench-"))
    made = Rig(folder, environment)
    try:
        made.start(servers, workers)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def write_rows(path: Path, count: int) -> Path:
    """Write a CSV of `count` rows: the example's texts, each row with a number of its own."""
    texts = _texts()
    return _write(path, (texts[number % len(texts)] for number in range(1, count + 1)))


def write_duplicates(path: Path, count: int, distinct: int, seed: int = 0) -> Path:
    """Write a CSV of `count` rows in which exactly `distinct` texts occur, mixed the same way each time."""
    draw = random.Random(seed)
    known = _texts()
    texts = []
    for number in range(distinct):
        title, message, sentiment = known[number % len(known)]
        texts.append((title, f"{message} (case {number})", sentiment))
    texts += draw.choices(texts, k=count - distinct)
    draw.shuffle(texts)
    return _write(path, texts)


def _texts() -> list[tuple[str, str, str]]:
    """Return title, message and sentiment of the example's rows."""
    with (EXAMPLE / "feedback.csv").open(newline="", encoding="utf-8") as example:
        texts = [(row["Title"], row["Message"], row["Sentiment"]) for row in csv.DictReader(example)]
    # The few texts of hundreds of words would make rows of very unequal cost.
    return [text for text in texts if len(text[1]) < 400]


def _write(path: Path, texts: Iterable[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["RowID", "Title", "Message", "Sentiment"])
        writer.writerows([number, *text] for number, text in enumerate(texts, 1))
    return path


def _segment_bytes(folder: Path, topic: str) -> int:
    total = 0
    # A segment that is being deleted is called `.log.deleted` until its file is gone.
    for segment in folder.glob(f"{topic}-*/*.log*"):
        with suppress(FileNotFoundError):
            total += segment.stat().st_size
    return total


def _await_line(log: Path, prefix: str) -> str:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines() if log.exists() else []:
            if line.startswith(prefix):
                return line.removeprefix(prefix).strip()
        time.sleep(0.05)
    raise RuntimeError(f"no {prefix!r} in {log}")


def _is_ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ready", timeout=1).status_code == 200
    except requests.RequestException:
        return False
