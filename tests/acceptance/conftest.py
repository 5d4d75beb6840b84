"""A local fleet for acceptance tests: `prism up --json` as a process of its own, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from prism_embedded.model_server import EmbeddedModelServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "feedback"
PRISM = str(Path(sys.executable).with_name("prism"))
# The first start on a machine downloads Kafka.
UP_S = 300.0
COMMAND_S = 120.0
if TYPE_CHECKING:
    from tests.acceptance import jobs

MODEL = "llama3.2"
OTHER_MODEL = "mistral"
# What would lead a command to somebody else's fleet.
_OTHERS = ("BOOTSTRAP_SERVER", "OLLAMA_", "PRISM_", "KAFKA_", "CONCURRENT_REQUESTS", "CONSUMER_GROUP", "PORT")


def plain_environment(**more: str) -> dict[str, str]:
    """Return this environment without anybody's settings of PRISM."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "PRISM_KAFKA_JARS" or not name.startswith(_OTHERS)
    }
    return {**kept, "NO_COLOR": "1", **more}


def prism(
    *words: str | Path,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_S,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, in `folder`."""
    command = [PRISM, *map(str, words)]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment or plain_environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


def await_true(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Return whether no process of that id does anything any more."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass
class Fleet:
    """A running `prism up --json`. `told` is its first line."""

    process: "subprocess.Popen[str]"
    folder: Path
    told: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def bootstrap(self) -> str:
        return str(self.told["bootstrap"])

    @property
    def data_dir(self) -> Path:
        return Path(self.told["data_dir"])

    def pids(self) -> list[int]:
        """Return the fleet's processes, its own included."""
        return [self.process.pid, *(int(one["pid"]) for one in self.told["services"])]

    def pid_now(self, id: str) -> int:
        """Return a part's process id as `fleet.json` has it now."""
        written = json.loads((self.data_dir / "fleet.json").read_text())
        return next(int(one["pid"]) for one in written["services"] if one["id"] == id)

    def run(self, *words: str | Path, timeout_s: float = COMMAND_S) -> "subprocess.CompletedProcess[str]":
        """Run a command in the fleet's folder, where it finds the fleet."""
        return prism(*words, folder=self.folder, timeout_s=timeout_s)

    def status(self, run_id: str) -> dict[str, Any]:
        """Return what `prism status RUN --json` says."""
        done = self.run("status", run_id, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def end(self, number: signal.Signals) -> int:
        """Send a signal to `prism up` and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(COMMAND_S)


def start_fleet(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> Fleet:
    """Start a fleet and wait until it says that it is up."""
    command = [PRISM, "up", "--json", "--model-server", "embedded", "--jobs-dir", str(EXAMPLE), *words]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment or plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    events: list[dict[str, Any]] = []
    others: list[str] = []
    reader = threading.Thread(target=_read_events, args=(process, events, others), daemon=True)
    reader.start()
    assert process.stdout is not None
    line = _first_line(process)
    if not line:
        process.wait(COMMAND_S)
        reader.join(5.0)
        raise AssertionError(f"prism up ended with {process.returncode}: {''.join(others[-5:])}")
    return Fleet(process, folder, json.loads(line), events)


def _first_line(process: "subprocess.Popen[str]") -> str:
    killer = threading.Timer(UP_S, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        return process.stdout.readline()
    finally:
        killer.cancel()


def _read_events(process: "subprocess.Popen[str]", events: list[dict[str, Any]], others: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        with suppress(ValueError):
            events.append(json.loads(line))
            continue
        others.append(line)


def end_fleet(fleet: Fleet) -> None:
    """Stop a fleet, by force if need be."""
    if fleet.process.poll() is None:
        fleet.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            fleet.process.wait(60)
    if fleet.process.poll() is None:
        fleet.process.kill()
        fleet.process.wait()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet with two workers for all tests that do not break it."""
    started = start_fleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield started
    finally:
        end_fleet(started)


Starter = Callable[..., Fleet]


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Starter]:
    """Start fleets that a test may break; all are stopped after it."""
    started: list[Fleet] = []

    def start(*words: str, folder: Path = tmp_path) -> Fleet:
        started.append(start_fleet(folder, *words))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            end_fleet(one)


@pytest.fixture(scope="session")
def kcat() -> str:
    """Return the path of kcat, which people drop files with."""
    found = shutil.which("kcat")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("kcat is not installed: apt-get install kcat")
        pytest.skip("kcat is not installed: apt-get install kcat")
    return found


def rows_of(path: Path) -> Sequence[dict[str, str]]:
    """Return a CSV's rows."""
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def jobs_server() -> "Iterator[EmbeddedModelServer]":
    """A model server that answers by the names of PRISM v6's jobs, and whose faults can be set."""
    with EmbeddedModelServer(models=[MODEL, OTHER_MODEL]) as started:
        yield started


@pytest.fixture(scope="session")
def jobs_fleet(tmp_path_factory: pytest.TempPathFactory, jobs_server: EmbeddedModelServer) -> Iterator[Fleet]:
    """A fleet that writes into its folder as `prism run` has it; a call may take two seconds."""
    home = tmp_path_factory.mktemp("jobs")
    settings = plain_environment(OLLAMA_HOST=jobs_server.url, OLLAMA_REQUEST_TIMEOUT="2")
    words = ("--model-server", jobs_server.url, "--model", MODEL, "--output-root", str(home))
    started = start_fleet(home, *words, environment=settings)
    try:
        yield started
    finally:
        end_fleet(started)


@pytest.fixture
def desk(jobs_fleet: Fleet, jobs_server: EmbeddedModelServer) -> "Iterator[jobs.Desk]":
    """The folder of the fleet for jobs; the model server is as new before and after."""
    from tests.acceptance.jobs import Desk

    made = Desk(jobs_fleet.folder, jobs_server)
    calm = {"faults": "", "latency_ms": 0.0, "slots": 0, "reset": True}
    made.control(**calm)
    yield made
    made.control(**calm)
