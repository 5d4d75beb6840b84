"""A local fleet: broker, model server, ingestor, workers and merger as children of this process.

Start: broker and model server, then the topics, then the services; it is up when each says so on
`/ready`. Stop: the services drain together, then the model server goes, then the broker, so that what a
service still has to say reaches the broker. Both wait on one queue, into which everything that happens
is put: nothing here is polled but `/ready`.
"""

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

from pydantic import SecretStr

from prism.kafka.admin import ensure_topics
from prism.kafka.clients import KafkaSettings
from prism.messages import Topics
from prism.service.settings import ServiceSettings, load
from prism_cli import fleet_file
from prism_cli.connection import without_security
from prism_cli.exits import BROKER_AWAY, FAILED, MODEL_AWAY, CommandFailed
from prism_cli.model_choice import ModelChoice
from prism_cli.probes import NoAnswer, get_json, why_not_ready
from prism_cli.processes import BrokerChild, Event, Events, Keeper, Restarts, ServiceChild

READY_S = 60.0
# The services end a drain themselves after 30 s.
DRAIN_S = 33.0
STOP_S = 20.0
_LOOK_S = 0.1
_WATCH_S = 2.0

Report = Callable[[Event], None]


class Interrupted(Exception):
    """Somebody asked the fleet to stop while it was starting."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet is to be. `bootstrap` None: with an embedded broker."""

    data_dir: Path
    jobs_dir: Path
    workers: int
    model: ModelChoice
    environ: Mapping[str, str]
    bootstrap: str | None = None
    broker_port: int | None = None
    concurrency: int | None = None
    # Where the children run; None: here. Each reads a `.env` there.
    folder: Path | None = None
    # Below which folder the folders lie that jobs name; None: the data folder.
    output_root: Path | None = None
    # How often a worker that dies of itself is started again; None: as often as any service.
    worker_retries: int | None = None

    @property
    def log_dir(self) -> Path:
        """Where the children's logs are."""
        return self.data_dir / "logs" / "services"

    def settings(self, bootstrap: str) -> ServiceSettings:
        """Return the settings that all services share; the process ends with 3 when one is wrong."""
        return load(ServiceSettings, {**self._environ(), "BOOTSTRAP_SERVER": bootstrap})

    def environment(self, bootstrap: str, model_server: str) -> dict[str, str]:
        """Return the services' environment."""
        found = {
            **self._environ(),
            "BOOTSTRAP_SERVER": bootstrap,
            "PRISM_DATA_DIR": str(self.data_dir),
            "PRISM_JOBS_DIR": str(self.jobs_dir),
            "PRISM_HTTP_HOST": "127.0.0.1",
            "PRISM_LOG_FORMAT": "json",
            "PRISM_MERGER_ORDINAL": "0",
            "PRISM_MERGER_REPLICAS": "1",
            "OLLAMA_HOST": model_server,
            "OLLAMA_MODEL": self.model.model,
        }
        if self.output_root is not None:
            found["PRISM_OUTPUT_ROOT"] = str(self.output_root)
        if self.concurrency is not None:
            found["CONCURRENT_REQUESTS"] = str(self.concurrency)
        return found

    def _environ(self) -> dict[str, str]:
        return dict(self.environ) if self.bootstrap else without_security(self.environ)


class LocalFleet:
    """One fleet. `start`, then `run` or whatever one likes, then `stop`; all from one thread."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self.plan = plan
        self.events: Events = Events()
        self._report = report
        self._keepers: dict[str, Keeper] = {}
        self._watching = threading.Event()
        self._bootstrap = plan.bootstrap or ""
        self._model_server = plan.model.url or ""
        self._files_token = plan.environ.get("PRISM_FILES_TOKEN") or secrets.token_urlsafe(32)

    @property
    def bootstrap(self) -> str:
        """The broker's address, once it is up."""
        return self._bootstrap

    def describe(self) -> fleet_file.FleetFile:
        """Return what the fleet consists of."""
        return fleet_file.FleetFile(
            bootstrap=self._bootstrap,
            embedded_broker=self.plan.bootstrap is None,
            topic_prefix=self.plan.settings(self._bootstrap).topic_prefix,
            model_server=self._model_server,
            model=self.plan.model.model,
            data_dir=self.plan.data_dir,
            jobs_dir=self.plan.jobs_dir,
            output_root=self.plan.output_root,
            source_dir=Path(self.plan.environ.get("PRISM_SOURCE_DIR") or self.plan.data_dir),
            pid=os.getpid(),
            services=[_entry(keeper) for keeper in self._keepers.values()],
            files_token=SecretStr(self._files_token),
        )

    def start(self) -> None:
        """Start everything and wait until all are ready.

        Raises CommandFailed when a part does not come up, Interrupted on request; `stop` is due after both.
        """
        self._begin_servers()
        self._make_topics()
        for child in self._services():
            self._begin(child)
        waited = self._service_keepers()
        self._until(lambda: _all_ready(waited), READY_S, lambda: _unready(waited))
        self.describe().write()
        threading.Thread(target=self._watch, name="fleet-watch", daemon=True).start()

    def run(self) -> int:
        """Report what happens until somebody asks to stop (0), or the broker stays down (4)."""
        while True:
            event = self.events.get()
            if event.kind == "interrupt":
                return 0
            self._report(event)
            if event.kind == "started":
                self.describe().write()
            if event.kind == "given_up" and event.id == BrokerChild.id:
                return BROKER_AWAY

    def interrupt(self) -> None:
        """Ask to stop; may be called from a signal handler."""
        self.events.put(Event("interrupt"))

    def stop(self) -> bool:
        """Stop everything in order; return whether a second request cut it short."""
        self._watching.set()
        services = self._service_keepers()
        broker = [one for one in self._keepers.values() if isinstance(one.child, BrokerChild)]
        servers = [one for one in self._keepers.values() if one not in services and one not in broker]
        try:
            for phase, seconds in ((services, DRAIN_S), (servers, STOP_S), (broker, STOP_S)):
                if not self._stop_all(phase, seconds):
                    self.kill()
                    return True
        finally:
            fleet_file.remove(self.plan.data_dir)
        return False

    def kill(self) -> None:
        """SIGKILL to every child."""
        for keeper in self._keepers.values():
            keeper.kill()

    def _stop_all(self, keepers: list[Keeper], timeout_s: float) -> bool:
        """Stop some at once; return False if a request to hurry came meanwhile."""
        left = {keeper.child.id for keeper in keepers}
        for keeper in keepers:
            threading.Thread(target=keeper.stop, args=(timeout_s,), daemon=True).start()
        while left:
            event = self.events.get()
            if event.kind == "interrupt":
                return False
            if event.kind == "stopped":
                left.discard(event.id)
                self._report(event)
        return True

    def _begin(self, child: ServiceChild | BrokerChild) -> Keeper:
        retries = self.plan.worker_retries if child.name == _WORKER else None
        keeper = Keeper(child, self.events, Restarts(most=retries))
        self._keepers[child.id] = keeper
        keeper.begin()
        return keeper

    def _begin_servers(self) -> None:
        waited: list[Keeper] = []
        if self.plan.bootstrap is None:
            broker = self._begin(BrokerChild(self.plan.data_dir / "broker", self.plan.broker_port))
            waited.append(broker)
        if self.plan.model.embedded:
            model_server = self._begin(self._model_server_child())
            self._model_server = model_server.child.url
            waited.append(model_server)
        # A first start downloads Kafka; the broker's own start has its own limit.
        self._until(lambda: all(_serves(one) for one in waited), 1200.0, lambda: "the broker has not started")
        if self.plan.bootstrap is None:
            self._bootstrap = broker.child.url

    def _make_topics(self) -> None:
        settings = self.plan.settings(self._bootstrap)
        if settings.create_topics:
            properties = {"log_level": "0", **settings.kafka_properties()}
            admin = KafkaSettings(self._bootstrap, "prism-cli", properties).admin()
            ensure_topics(admin, Topics(settings.topic_prefix).specs(), settings.topic_partitions)

    def _services(self) -> list[ServiceChild]:
        environment = self.plan.environment(self._bootstrap, self._model_server)
        made = [self._service("ingestor", "ingestor", environment)]
        for number in range(1, self.plan.workers + 1):
            name = f"worker-{number}"
            made.append(self._service("model-worker", name, {**environment, "PRISM_WORKER_ID": name}))
        token = {"PRISM_FILES_TOKEN": self._files_token}
        return [*made, self._service("merger", "merger", {**environment, **token})]

    def _service(self, name: str, id: str, environment: Mapping[str, str]) -> ServiceChild:
        module = f"prism_{name.replace('-', '_')}"
        # -P: a file of the user's own in this folder, named like a module, must not be taken for it.
        command = [sys.executable, "-P", "-m", module]
        return ServiceChild(name, id, command, environment, self.plan.log_dir / f"{id}.log", self.plan.folder)

    def _model_server_child(self) -> ServiceChild:
        command = [sys.executable, "-P", "-m", "prism_embedded.model_server", "--port", "{port}"]
        log = self.plan.log_dir / "model-server.log"
        return ServiceChild("model-server", "model-server", command, self.plan.environ, log, self.plan.folder)

    def _service_keepers(self) -> list[Keeper]:
        return [one for one in self._keepers.values() if one.child.name in _SERVICES]

    def _until(self, met: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
        """Take events until a condition is met; raise CommandFailed when it never will be."""
        deadline = time.monotonic() + timeout_s
        while not met():
            try:
                event = self.events.get(timeout=_LOOK_S)
            except Empty:
                if time.monotonic() > deadline:
                    raise CommandFailed(
                        FAILED, f"{what()} after {timeout_s:.0f} s", str(self.plan.log_dir), "prism doctor"
                    ) from None
                continue
            if event.kind == "interrupt":
                raise Interrupted
            if event.kind == "given_up" or (event.kind == "died" and event.id == BrokerChild.id):
                raise _not_up(event)
            self._report(event)

    def _watch(self) -> None:
        """Tell when a service stops or begins to be ready, seen twice so that a restart is not news."""
        known: dict[str, str | None] = {}
        before: dict[str, str | None] = {}
        while not self._watching.wait(_WATCH_S):
            for keeper in self._service_keepers():
                one = keeper.child
                reason = why_not_ready(one.url) if keeper.runs else "it does not run"
                settled = (before.get(one.id) is None) == (reason is None)
                before[one.id] = reason
                if settled and (known.get(one.id) is None) != (reason is None) and keeper.runs:
                    known[one.id] = reason
                    self.events.put(
                        Event("not_ready" if reason else "ready", one.id, one.pid, detail=reason or "")
                    )


_WORKER = "model-worker"
_SERVICES = ("ingestor", _WORKER, "merger")


def _entry(keeper: Keeper) -> fleet_file.Service:
    one = keeper.child
    return fleet_file.Service(name=one.name, id=one.id, pid=one.pid or 0, url=one.url)


def _serves(keeper: Keeper) -> bool:
    """Return whether a broker or a model server takes requests."""
    if isinstance(keeper.child, BrokerChild):
        return keeper.runs
    try:
        return keeper.runs and get_json(f"{keeper.child.url}/api/version", 1.0)[0] == 200
    except NoAnswer:
        return False


def _all_ready(keepers: list[Keeper]) -> bool:
    return all(one.runs and why_not_ready(one.child.url, 1.0) is None for one in keepers)


def _unready(keepers: list[Keeper]) -> str:
    for one in keepers:
        reason = why_not_ready(one.child.url) if one.runs else "it does not run"
        if reason is not None:
            return f"{one.child.id} is not ready: {reason}"
    return "a service was not ready"


def _not_up(event: Event) -> CommandFailed:
    code = {BrokerChild.id: BROKER_AWAY, "model-server": MODEL_AWAY}.get(event.id, FAILED)
    ended = f" (exit {event.status})" if event.status is not None else ""
    return CommandFailed(code, f"{event.id} did not start{ended}: {event.detail}")
