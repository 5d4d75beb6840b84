"""A fleet of real processes on the loopback, to be broken by name.

    with Fleet(tmp_path, Plan(workers=2)) as fleet:
        fleet.drop(table.path, "t1", "march")
        fleet["merger-0"].kill()
        fleet["merger-0"].start()
        fleet.watch.await_end("t1")

Names: `ingestor-1 …`, `worker-1 …`, `merger-0 …`; the broker and the model server have objects of their
own. Leaving the block ends every process, whatever state it is in.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from prism.kafka.admin import ensure_topics
from prism.kafka.clients import ErrorWatch, KafkaSettings
from prism.messages import Topics
from prism_embedded.broker import EmbeddedBroker
from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.model_state import Behaviour
from tests.harness.model_server import ModelControl
from tests.harness.process import ServiceProcess, await_true, process_state
from tests.harness.rows import JOB, write_job
from tests.harness.watch import Watch

READY_S = 60.0
_OURS = (
    "PRISM_",
    "KAFKA_",
    "OLLAMA_",
    "BOOTSTRAP_SERVER",
    "CONSUMER_GROUP",
    "CONCURRENT_REQUESTS",
    "LOG_LEVEL",
    "PORT",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet is made of. `limit` is a worker's model calls at once, `environment` every service's."""

    ingestors: int = 1
    workers: int = 2
    mergers: int = 1
    limit: int = 4
    batch_size: int = 5
    interval: int = 50
    partitions: int = 16
    supervised: bool = False
    # Whether the merger has the data folder for itself.
    merger_alone: bool = False
    behaviour: Behaviour = field(default_factory=lambda: Behaviour(latency_ms=20.0, count_rows=True))
    environment: Mapping[str, str] = field(default_factory=dict)


class ModelServer:
    """The embedded model server with its controls."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._server = EmbeddedModelServer(behaviour)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        """Start it, or start it again on the same port; its counts begin anew."""
        self._server.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def stats(self) -> dict[str, Any]:
        """Return its own counts."""
        return ModelControl(self.url).stats()

    def control(self, **changes: object) -> None:
        """Change its behaviour; `reset=True` sets its counts to zero."""
        ModelControl(self.url).set(**changes)


class Fleet:
    """Start with `with`; one thread uses it (supervised processes have watchers of their own)."""

    def __init__(self, folder: Path, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.folder = folder
        self.data_dir = folder / "data"
        self.jobs_dir = folder / "jobs"
        self.log_dir = folder / "logs"
        self.broker = EmbeddedBroker(folder / "broker", heap_mb=384)
        self.model_server = ModelServer(self.plan.behaviour)
        self._processes: dict[str, ServiceProcess] = {}
        self._watch: Watch | None = None
        self.admin: AdminClient

    def __getitem__(self, name: str) -> ServiceProcess:
        return self._processes[name]

    def __iter__(self) -> Iterator[ServiceProcess]:
        return iter(self._processes.values())

    def of(self, kind: str) -> list[ServiceProcess]:
        """Return the processes of a kind: `ingestor`, `worker` or `merger`."""
        return [one for name, one in self._processes.items() if name.startswith(f"{kind}-")]

    @property
    def watch(self) -> Watch:
        """What the topics say."""
        assert self._watch is not None, "the fleet was not started"
        return self._watch

    @property
    def kafka(self) -> KafkaSettings:
        """A client's settings for the fleet's broker."""
        return KafkaSettings(self.broker.bootstrap, "prism-tests", {"log_level": "0"})

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start everything and wait until every service is ready."""
        for folder in (self.data_dir, self.log_dir):
            folder.mkdir(parents=True, exist_ok=True)
        write_job(self.jobs_dir, self.plan.batch_size, self.plan.interval)
        self.model_server.start()
        self.broker.start()
        self.admin = self.kafka.admin()
        ensure_topics(self.admin, Topics().specs(), self.plan.partitions)
        for one in self._declare():
            one.start(supervised=self.plan.supervised)
        for one in self:
            one.await_ready(READY_S)
        self._watch = Watch(self.kafka, self.complaint)

    def _declare(self) -> list[ServiceProcess]:
        for number in range(1, self.plan.ingestors + 1):
            self.add_ingestor(f"ingestor-{number}")
        for number in range(1, self.plan.workers + 1):
            self.add_worker(f"worker-{number}")
        for ordinal in range(self.plan.mergers):
            self.add("prism_merger", f"merger-{ordinal}", {"PRISM_MERGER_ORDINAL": str(ordinal)})
        return list(self)

    def add_worker(self, name: str) -> ServiceProcess:
        """Declare one more worker; it is not started."""
        return self.add("prism_model_worker", name, {"PRISM_WORKER_ID": name})

    def add_ingestor(self, name: str) -> ServiceProcess:
        """Declare one more ingestor; it is not started."""
        folder = self.folder / "ingestor-data" if self.plan.merger_alone else self.data_dir
        return self.add("prism_ingestor", name, {"PRISM_INGESTOR_ID": name, "PRISM_DATA_DIR": str(folder)})

    def add(self, module: str, name: str, extra: Mapping[str, str]) -> ServiceProcess:
        """Declare a process; it is not started."""
        environment = {**self._environment(), **self.plan.environment, **extra}
        made = ServiceProcess(name, module, environment, self.log_dir, sys.executable)
        self._processes[name] = made
        return made

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {
            **inherited,
            "BOOTSTRAP_SERVER": self.broker.bootstrap,
            "PRISM_DATA_DIR": str(self.data_dir),
            "PRISM_JOBS_DIR": str(self.jobs_dir),
            "PRISM_HTTP_HOST": "127.0.0.1",
            "PRISM_LOG_FORMAT": "json",
            "PRISM_TOPIC_PARTITIONS": str(self.plan.partitions),
            "PRISM_MERGER_REPLICAS": str(self.plan.mergers),
            "OLLAMA_HOST": self.model_server.url,
            "OLLAMA_MODEL": "prism-embedded",
            "CONCURRENT_REQUESTS": str(self.plan.limit),
        }

    def drop(self, csv: Path, run_id: str, label: str = "rows", job: str = JOB) -> None:
        """Put a CSV into the intake topic, as kcat would; returns when the broker has it."""
        failures: list[object] = []

        def delivered(error: object, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        producer = self.kafka.producer(ErrorWatch())
        producer.produce(
            Topics().intake,
            key=label,
            value=csv.read_bytes(),
            headers=[("job", job.encode()), ("run-id", run_id.encode()), ("filename", csv.name.encode())],
            on_delivery=delivered,
        )
        assert producer.flush(30.0) == 0, "the broker has not acknowledged the CSV"
        assert not failures, failures

    def await_ready(self, timeout_s: float = READY_S) -> None:
        """Wait until every process that runs is ready."""
        for one in self:
            if one.alive:
                one.await_ready(timeout_s)

    def freeze_broker(self) -> None:
        """SIGSTOP to the broker's JVM."""
        os.kill(self._broker_pid, signal.SIGSTOP)
        await_true(lambda: process_state(self._broker_pid) in "TX", 5.0, "the broker does not stop")

    def thaw_broker(self) -> None:
        """SIGCONT to the broker's JVM."""
        os.kill(self._broker_pid, signal.SIGCONT)

    @property
    def _broker_pid(self) -> int:
        assert self.broker.pid is not None, "the broker was never started"
        return self.broker.pid

    def deaths(self) -> int:
        """Return how many ends of services the harness has seen."""
        return sum(len(one.deaths) for one in self)

    def complaint(self) -> str:
        """Return what is known of everything, for a failed wait."""
        lines = [f"broker alive: {self.broker.alive()}; logs in {self.log_dir}"]
        if self._watch is not None:
            seen = self._watch.seen
            lines += [
                f"run {run.run_id}: {run.state} reason={run.reason} stalled={run.stalled} rows={run.rows} "
                f"merged={self._watch.merged(run.run_id)}"
                for run in seen.runs.runs.values()
                if not run.state.ended
            ]
        for one in self:
            state = f"pid {one.pid}" if one.alive else f"status {one.status}"
            lines.append(f"--- {one.name}: {state} ready={one.ready()}")
            lines.append(one.last_words(6))
        return "\n".join(lines)

    def close(self) -> None:
        """End every process, whatever state it is in; nothing stays."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for one in self:
            one.end()
        with suppress(AssertionError, ProcessLookupError):
            self.thaw_broker()
        self.broker.kill()
        self.model_server.kill()
        left = [one.name for one in self if one.alive]
        assert not left, f"still running: {left}"

    def drop_broker_data(self) -> None:
        """Free the disk of a closed fleet; its logs and the data folder stay."""
        shutil.rmtree(self.folder / "broker", ignore_errors=True)


def with_changes(plan: Plan, **changes: Any) -> Plan:
    """Return a plan with some fields changed."""
    return replace(plan, **changes)
