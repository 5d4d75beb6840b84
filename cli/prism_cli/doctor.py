"""`prism doctor`: what a fleet needs, looked at one by one, each with what to do about it."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text

from prism.annotation.prompt_file import PromptFile, PromptRefused
from prism.kafka.admin import partition_count
from prism.kafka.errors import BrokerAway, BrokerRefused
from prism.runs.job import JobRefused, read_job
from prism_cli import connection as connections
from prism_cli import fleet_file, kafka_cache
from prism_cli.connection import Connection
from prism_cli.console import output, printable, write_json
from prism_cli.exits import BAD_INPUT, BROKER_AWAY, DONE, FAILED, MODEL_AWAY, CommandFailed
from prism_cli.model_choice import choose, lister
from prism_cli.probes import why_not_ready
from prism_cli.up import jobs_dir
from prism_embedded.errors import EmbeddedError
from prism_embedded.kafka_jars import KAFKA_VERSION, find_java

_PACKAGES = ("prism_ingestor", "prism_model_worker", "prism_merger", "prism_embedded", "confluent_kafka")
_LEAST_FREE_BYTES = 1024**3
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found. `code` is the exit code of a failure, 0 for none."""

    name: str
    detail: str
    code: int = DONE
    next: str = ""

    @property
    def ok(self) -> bool:
        return self.code == DONE


@dataclass(slots=True)
class Patient:
    """What the looks share: the options, and what earlier ones found."""

    options: Namespace
    environ: Mapping[str, str]
    connection: Connection | None = None
    data_dir: Path = field(default_factory=Path)
    fleet: fleet_file.FleetFile | None = None


Look = Callable[[Patient], Iterator[Finding]]


def run(options: Namespace) -> int:
    """Look at everything; return 0, or the code of the first failure."""
    environ = connections.environment()
    patient = Patient(options, environ, data_dir=connections.data_dir(options, environ))
    found: list[Finding] = []
    for look in LOOKS:
        for finding in look(patient):
            found.append(finding)
            if not options.json:
                _show(finding)
    failed = [one for one in found if not one.ok]
    if options.json:
        checks = [
            {"name": one.name, "ok": one.ok, "detail": one.detail, "next": one.next or None} for one in found
        ]
        write_json({"ok": not failed, "checks": checks})
    return failed[0].code if failed else DONE


def _show(finding: Finding) -> None:
    line = Text("✓ " if finding.ok else "✗ ", style="green" if finding.ok else "red")
    line.append(f"{finding.name:<13}", style="bold")
    line.append(printable(finding.detail))
    if finding.next:
        line.append(f"; {printable(finding.next)}")
    output().print(line, soft_wrap=True)


def python(patient: Patient) -> Iterator[Finding]:
    del patient
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        yield Finding(
            "python", version, BAD_INPUT, "PRISM needs 3.11 or newer: make PYTHON=python3.12 install"
        )
    else:
        yield Finding("python", f"{version} ({sys.executable})")


def packages(patient: Patient) -> Iterator[Finding]:
    del patient
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding("packages", f"missing: {', '.join(missing)}", BAD_INPUT, "make install")
    else:
        told = [f"{name} {importlib.metadata.version(name)}" for name in ("prism-cli", "confluent-kafka")]
        yield Finding("packages", ", ".join(told))


def java(patient: Patient) -> Iterator[Finding]:
    try:
        yield Finding("java", str(find_java()))
    except EmbeddedError as error:
        code = DONE if patient.environ.get("BOOTSTRAP_SERVER") else BAD_INPUT
        yield Finding("java", str(error), code)
        return
    if kafka_cache.is_cached():
        yield Finding("kafka", f"{KAFKA_VERSION} is on this machine")
    else:
        yield Finding("kafka", "not on this machine yet: the first prism up downloads 45 MB, once")


def data_folder(patient: Patient) -> Iterator[Finding]:
    folder = patient.data_dir.absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        yield Finding(
            "data folder",
            f"{folder}: {error.strerror}",
            BAD_INPUT,
            "choose another --data-dir or PRISM_DATA_DIR",
        )
        return
    detail = f"{folder}, {free / 1024**3:.1f} GiB free{'' if folder.exists() else ', not made yet'}"
    if free < _LEAST_FREE_BYTES:
        yield Finding("data folder", detail, BAD_INPUT, "a broker needs 1 GiB: make room")
    else:
        yield Finding("data folder", detail)


def broker(patient: Patient) -> Iterator[Finding]:
    folder = patient.data_dir
    written = fleet_file.read(folder)
    patient.fleet = written if written is not None and fleet_file.alive(folder) else None
    if not (patient.options.bootstrap or patient.environ.get("BOOTSTRAP_SERVER") or patient.fleet):
        stale = f" (the fleet of {folder} is gone)" if written else ""
        yield Finding("broker", f"none configured{stale}: prism up starts an embedded one")
        return
    try:
        connection = connections.find(patient.options)
        cluster = connections.check_answer(connection.kafka, connection.origin)
    except (CommandFailed, BrokerAway, BrokerRefused) as error:
        yield Finding("broker", str(error), BROKER_AWAY)
        return
    patient.connection = connection
    yield Finding("broker", f"{connection.bootstrap} answers (cluster {cluster}), from {connection.origin}")
    yield _topics(connection, patient.environ)


def _topics(connection: Connection, environ: Mapping[str, str]) -> Finding:
    wanted = int(environ.get("PRISM_TOPIC_PARTITIONS") or 16)
    admin = connection.kafka.admin()
    wrong: list[str] = []
    specs = connection.topics.specs()
    for spec in specs:
        try:
            there, least = partition_count(admin, spec.name), spec.partitions or wanted
        except (BrokerAway, BrokerRefused) as error:
            return Finding("topics", str(error), BROKER_AWAY)
        if there < least:
            wrong.append(f"{spec.name} has {there} of {least} partitions" if there else f"no {spec.name}")
    if wrong:
        return Finding("topics", "; ".join(wrong), BROKER_AWAY, "a service makes what is missing: prism up")
    return Finding("topics", f"all {len(specs)} are there")


def model_server(patient: Patient) -> Iterator[Finding]:
    environ, fleet = patient.environ, patient.fleet
    named = fleet is not None or bool(environ.get("OLLAMA_HOST"))
    server = fleet.model_server if fleet else "auto"
    wanted = fleet.model if fleet else None
    try:
        choice = choose(server, wanted, environ, lister(environ))
    except CommandFailed as error:
        yield Finding("model server", str(error), MODEL_AWAY)
        return
    if not choice.embedded:
        yield Finding("model server", f"{choice.url} answers and has {choice.model}")
    elif named or environ.get("OLLAMA_MODEL"):
        yield Finding(
            "model server",
            choice.why,
            MODEL_AWAY,
            "start it and pull the model, or prism up --model-server embedded",
        )
    else:
        yield Finding(
            "model server", f"{choice.why}: prism up starts the embedded one (rules, no language model)"
        )


def jobs(patient: Patient) -> Iterator[Finding]:
    folder = patient.fleet.jobs_dir if patient.fleet else jobs_dir(None, patient.environ)
    files = sorted(folder.glob("*.yaml"))
    if not files:
        yield Finding(
            "jobs",
            f"no job file in {folder.absolute()}",
            BAD_INPUT,
            "put NAME.yaml there, or set PRISM_JOBS_DIR",
        )
        return
    for path in files:
        yield job(path)


def job(path: Path) -> Finding:
    """Return whether a job file and its prompt file can be used."""
    name = f"job {path.stem}"
    try:
        parsed, _ = read_job(path)
        prompt = path.parent / parsed.prompts.config_file
        columns = PromptFile.parse(prompt.read_bytes()).columns_to_code
    except (JobRefused, PromptRefused) as error:
        return Finding(name, str(error), BAD_INPUT, f"correct {path.parent}")
    except OSError as error:
        return Finding(name, f"{prompt}: {error.strerror}", BAD_INPUT, "put the prompt file there")
    return Finding(name, f"codes {', '.join(columns)}")


def services(patient: Patient) -> Iterator[Finding]:
    if patient.fleet is None:
        return
    for one in patient.fleet.services:
        if not one.url.startswith("http") or one.name == "model-server":
            continue
        reason = why_not_ready(one.url)
        if reason is None:
            yield Finding(one.id, f"ready at {one.url}")
        else:
            log = patient.fleet.data_dir / "logs" / "services" / f"{one.id}.log"
            yield Finding(one.id, f"not ready: {reason}", FAILED, f"see {log}")


LOOKS: tuple[Look, ...] = (python, packages, java, data_folder, broker, model_server, jobs, services)
