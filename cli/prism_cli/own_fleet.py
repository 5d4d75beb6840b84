"""The fleet of `prism run`: the one that is there, or one brought up beside this process.

It is a `prism up` in a session of its own: it outlives the command, and goes down by itself.
"""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prism.runs.catalogue import ModelEntry
from prism.runs.job import parse_job
from prism_cli import connection as connections
from prism_cli import fleet_file
from prism_cli.board import Board
from prism_cli.connection import Connection
from prism_cli.console import count, printable, say
from prism_cli.exits import BAD_INPUT, BROKER_AWAY, FAILED, CommandFailed
from prism_cli.idle import alone
from prism_cli.job_spec import JobSpec, catalogue_of
from prism_cli.kafka_cache import download_notice
from prism_cli.local_runs import find_run, output_root
from prism_cli.model_choice import EMBEDDED_MODEL, ModelChoice, choose, lister, switch_hint
from prism_cli.service_log import last_words, rotate

IDLE_S = 3.0
WORKERS = 2
# As long as `prism up` itself waits for its parts, a first download of Kafka included.
_START_S = 1300.0
_DOWN_S = 90.0
_LOOK_S = 0.1
LOG = "fleet.log"


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What a fleet of one's own is to be. `elsewhere`: the job's models have addresses of their own.

    `output_root`: below which the folders that jobs name lie; None: as it was for the data folder before.
    """

    data_dir: Path
    jobs_dir: Path
    source_dir: Path
    workers: int
    choice: ModelChoice
    concurrency: int | None
    worker_retries: int
    elsewhere: bool
    output_root: Path | None

    @property
    def notice(self) -> str | None:
        """What to say where the answers will not be a language model's."""
        if self.elsewhere or not self.choice.embedded:
            return None
        return (
            f"the model is {EMBEDDED_MODEL}: it answers by rules, it is no language model ({self.choice.why})"
        )

    def command(self) -> list[str]:
        """Return the command that is the fleet."""
        server = "embedded" if self.choice.embedded else str(self.choice.url)
        words = [sys.executable, "-P", "-m", "prism_cli", "up", "--json", "--until-idle", f"{IDLE_S:g}"]
        words += ["--data-dir", str(self.data_dir), "--jobs-dir", str(self.jobs_dir)]
        words += ["--workers", str(self.workers), "--worker-retries", str(self.worker_retries)]
        words += ["--model-server", server]
        words += ["--output-root", str(self.output_root)] if self.output_root is not None else []
        words += [] if self.choice.embedded else ["--model", self.choice.model]
        return [*words, *(["--concurrency", str(self.concurrency)] if self.concurrency else [])]


def is_there(options: Namespace, environ: Mapping[str, str]) -> bool:
    """Return whether a broker is named, or a fleet of this folder is up: one that is begun is waited for."""
    named = options.bootstrap or environ.get("BOOTSTRAP_SERVER")
    return bool(named) or await_up(connections.data_dir(options, environ))


def plan_for(spec: JobSpec, options: Namespace, environ: Mapping[str, str]) -> tuple[FleetPlan, JobSpec]:
    """Return the fleet that a job needs, and the job with the model that will really answer.

    Raises CommandFailed (5) when its model is nowhere.
    """
    choice, elsewhere = model_of(spec, options, environ), not _at_default_server(spec)
    # Of several models the rules may be one; otherwise nobody named them.
    is_replaced = not spec.job.model.several or options.model_server == "embedded"
    if choice.embedded and not elsewhere and is_replaced:
        spec = spec.with_model(EMBEDDED_MODEL)
    parallel = spec.job.parallelization
    return FleetPlan(
        data_dir=connections.data_dir(options, environ).absolute(),
        jobs_dir=spec.path.resolve().parent,
        source_dir=_source_dir(spec, connections.data_dir(options, environ).absolute()),
        workers=(parallel.workers or WORKERS) if parallel.enabled else 1,
        choice=choice,
        concurrency=options.concurrency or (None if parallel.enabled else 1),
        worker_retries=spec.job.error_handling.max_worker_retries,
        elsewhere=elsewhere,
        output_root=Path.cwd(),
    ), spec


def plan_again(run_id: str, options: Namespace, environ: Mapping[str, str]) -> FleetPlan:
    """Return a fleet for a run that an earlier one of this data folder has ended.

    Raises CommandFailed: 4 where nothing is known of the run, 5 where its model is nowhere.
    """
    data_dir = connections.data_dir(options, environ).absolute()
    manifest = find_run(output_root(data_dir, environ), run_id).manifest
    job = parse_job(manifest.get("config_snapshot") or {}) if manifest else None
    if job is None:
        raise CommandFailed(
            BROKER_AWAY, "no fleet is up, and no run of that name has ended here", printable(str(data_dir)),
            "start the fleet that has it: prism up, or name its broker: --bootstrap",
        )  # fmt: skip
    # A job that names no model was answered by the fleet's own. What has an address is asked there.
    catalogue = catalogue_of(Path.cwd() / "job.yaml")
    asked = [name for name in job.model.chosen if name] or [
        str(one) for one in manifest.get("models", [])[:1]
    ]
    here = [name for name in asked if _is_at_default_server(catalogue.entry(name))]
    return FleetPlan(
        data_dir=data_dir,
        jobs_dir=Path.cwd(),
        source_dir=data_dir,
        workers=(job.parallelization.workers or WORKERS) if job.parallelization.enabled else 1,
        choice=choose(options.model_server, here[0] if here else None, environ, lister(environ)),
        concurrency=None if job.parallelization.enabled else 1,
        worker_retries=job.error_handling.max_worker_retries,
        elsewhere=not here,
        output_root=None,
    )


def _source_dir(spec: JobSpec, data_dir: Path) -> Path:
    """Return the folder that large files may be read from where they lie: theirs, but not the whole disk."""
    common = Path(os.path.commonpath([one.source.path.resolve().parent for one in spec.files]))
    return data_dir if common == Path(common.anchor) else common


def model_of(spec: JobSpec, options: Namespace, environ: Mapping[str, str]) -> ModelChoice:
    """Return the server and the model for a fleet of one's own. Raises CommandFailed (5)."""
    # A model with an address of its own, or in the cloud, is asked there by the workers.
    here: list[str | None] = [one.name for one in spec.entries if _is_at_default_server(one)]
    found = [choose(options.model_server, name, environ, lister(environ)) for name in here or [None]]
    if len({one.url for one in found}) > 1:
        raise CommandFailed(
            BAD_INPUT, f"{' and '.join(map(str, here))} are not of one server", "model.names",
            "give each its base_url in models.json",
        )  # fmt: skip
    return found[0]


def _at_default_server(spec: JobSpec) -> bool:
    return not spec.entries or any(map(_is_at_default_server, spec.entries))


def _is_at_default_server(entry: ModelEntry) -> bool:
    return not (entry.base_url or entry.name.endswith(("-cloud", ":cloud")))


def await_up(data_dir: Path) -> bool:
    """Wait for a fleet that is being started here; return False once there is none.

    Until it is up the folder's file is not there, or that of a fleet which was killed.
    """
    told, deadline = False, time.monotonic() + _START_S
    while fleet_file.alive(data_dir) and time.monotonic() < deadline:
        fleet = fleet_file.read(data_dir)
        if fleet is not None and _lives(fleet.pid):
            return True
        if not told:
            say(f"another command is starting a fleet in {printable(str(data_dir))}: waiting for it …")
            told = True
        time.sleep(_LOOK_S)
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def bring_up(plan: FleetPlan, options: Namespace, environ: Mapping[str, str]) -> tuple[Connection, bool]:
    """Start a fleet and wait until it is up; return whether it is ours, or was begun by another meanwhile.

    Raises CommandFailed with the exit code that it ended with.
    """
    workers = f"{count(plan.workers)} worker{'' if plan.workers == 1 else 's'}"
    say(f"starting a fleet of {workers} in {printable(str(plan.data_dir))}{download_notice()} …")
    if plan.notice is not None:
        say(plan.notice)
        say(f"for a real one: {switch_hint()}")
    log = plan.data_dir / "logs" / "services" / LOG
    process = _spawn(plan, environ, log)
    deadline = time.monotonic() + _START_S
    while not _is_up(plan.data_dir, process.pid):
        if process.poll() is not None:
            if await_up(plan.data_dir):
                return connections.connect(options), False
            raise _ended(process.returncode, log)
        if time.monotonic() > deadline:
            raise CommandFailed(FAILED, "the fleet is not up yet", str(log), "prism doctor")
        time.sleep(_LOOK_S)
    return connections.connect(options), True


def assert_up(data_dir: Path, run_id: str) -> None:
    """Raise CommandFailed (1) when the fleet that was brought up is gone: nobody works on the run."""
    if not fleet_file.alive(data_dir):
        log = data_dir / "logs" / "services" / LOG
        raise CommandFailed(
            FAILED,
            f"the fleet is gone: {last_words(log)}",
            printable(str(data_dir)),
            f"go on with prism run … --resume --run-id {run_id}",
        )


def leave(connection: Connection) -> None:
    """Take our own fleet down, unless somebody else looks on, or has a run under way there by now."""
    with alone(connection.data_dir) as nobody:
        if not nobody:
            say("the fleet stays up: another command uses it; it goes down by itself")
            return
        board = Board(connection)
        try:
            board.catch_up()
            busy = [one.run_id for one in board.runs() if not one.ended]
        finally:
            board.close()
        if busy:
            say(f"the fleet stays up: {printable(busy[0])} is under way; it goes down by itself")
        else:
            take_down(connection.data_dir)


def take_down(data_dir: Path) -> None:
    """Ask the fleet of a folder to stop, and wait for its end. Raises CommandFailed (1) if it stays."""
    fleet = fleet_file.read(data_dir) if await_up(data_dir) else None
    if fleet is None:
        return
    os.kill(fleet.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_S
    while fleet_file.alive(data_dir):
        if time.monotonic() > deadline:
            raise CommandFailed(FAILED, f"the fleet has not stopped within {_DOWN_S:.0f} s", str(data_dir))
        time.sleep(_LOOK_S)


def _spawn(plan: FleetPlan, environ: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        rotate(log)
        with log.open("ab") as stream:
            return subprocess.Popen(
                plan.command(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env={"PRISM_SOURCE_DIR": str(plan.source_dir), **environ},
            )
    except OSError as error:
        raise CommandFailed(
            BAD_INPUT, f"cannot write: {error.strerror}", str(log), "choose another --data-dir"
        ) from None


def _is_up(data_dir: Path, pid: int) -> bool:
    fleet = fleet_file.read(data_dir)
    return fleet is not None and fleet.pid == pid


def _ended(status: int, log: Path) -> CommandFailed:
    words = last_words(log).removeprefix("prism: ")
    return CommandFailed(status if status > 0 else FAILED, printable(words, 400), printable(str(log)))
