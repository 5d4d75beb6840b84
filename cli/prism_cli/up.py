"""`prism up`: a local fleet in the foreground."""

import json
import signal
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType

from prism.kafka.clients import KafkaSettings
from prism_cli import connection as connections
from prism_cli import fleet_file
from prism_cli.console import output, printable, say, table, write_json
from prism_cli.exits import INTERRUPTED
from prism_cli.fleet import Interrupted, LocalFleet, Plan
from prism_cli.idle import IdleWatch
from prism_cli.kafka_cache import download_notice
from prism_cli.model_choice import EMBEDDED_MODEL, choose, lister, switch_hint
from prism_cli.places import note_root, noted_root
from prism_cli.processes import Event

# The folder of job files that is used when there is no ./jobs: that of a checkout.
_EXAMPLE_JOBS = Path("examples/feedback")


def run(options: Namespace) -> int:
    """Start a fleet, keep it up until Ctrl-C or SIGTERM, stop it."""
    plan = make_plan(options, connections.environment())
    with fleet_file.owned(plan.data_dir):
        if plan.output_root is not None:
            note_root(plan.data_dir, plan.output_root)
        fleet = LocalFleet(plan, report_json if options.json else Reporter())
        with _signals(fleet):
            return _live(fleet, options)


def make_plan(options: Namespace, environ: Mapping[str, str]) -> Plan:
    """Return what is to be started; raise CommandFailed for what cannot be."""
    bootstrap = environ.get("BOOTSTRAP_SERVER") or None
    plan = Plan(
        data_dir=connections.data_dir(options, environ).absolute(),
        jobs_dir=jobs_dir(options.jobs_dir, environ).absolute(),
        workers=options.workers,
        model=choose(options.model_server, options.model, environ, lister(environ)),
        environ=environ,
        bootstrap=bootstrap,
        broker_port=options.broker_port,
        concurrency=options.concurrency,
        output_root=_output_root(options, environ),
        worker_retries=options.worker_retries,
    )
    settings = plan.settings(bootstrap or "127.0.0.1:1")
    if bootstrap is not None:
        kafka = KafkaSettings(bootstrap, "prism-cli", {"log_level": "0", **settings.kafka_properties()})
        connections.check_answer(kafka, "BOOTSTRAP_SERVER")
    return plan


def _output_root(options: Namespace, environ: Mapping[str, str]) -> Path | None:
    """Return the folder below which jobs' folders lie: as said, or as it was for this data folder before."""
    if options.output_root is not None:
        return Path(options.output_root).absolute()
    return noted_root(connections.data_dir(options, environ).absolute())


def jobs_dir(chosen: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the folder of job files: the flag, PRISM_JOBS_DIR, ./jobs, a checkout's example."""
    named = chosen or environ.get("PRISM_JOBS_DIR")
    if named:
        return Path(named).expanduser()
    usual = Path("jobs")
    return _EXAMPLE_JOBS if not usual.is_dir() and _EXAMPLE_JOBS.is_dir() else usual


def _live(fleet: LocalFleet, options: Namespace) -> int:
    code, as_json = INTERRUPTED, options.json
    try:
        if not as_json:
            say(starting_line(fleet.plan))
        fleet.start()
        if as_json:
            write_json(fleet.describe().as_json())
        else:
            show(fleet)
        if options.until_idle is not None:
            here = Namespace(bootstrap=None, data_dir=fleet.plan.data_dir)
            IdleWatch(connections.find(here), options.until_idle, fleet.interrupt)
        code = fleet.run()
    except Interrupted:
        pass
    finally:
        if not as_json:
            say("stopping: running calls end first (Ctrl-C again: at once)")
        hurried = fleet.stop()
    if not as_json:
        say("stopped" if not hurried else "killed")
    return INTERRUPTED if hurried else code


@contextmanager
def _signals(fleet: LocalFleet) -> Iterator[None]:
    """Turn SIGINT, SIGTERM and a closed terminal into requests to stop."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        fleet.interrupt()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def starting_line(plan: Plan) -> str:
    """Return what is being started, and what that will take the first time."""
    parts = [] if plan.bootstrap else ["a Kafka broker"]
    parts += ["a model server"] if plan.model.embedded else []
    workers = f"{plan.workers} worker{'' if plan.workers == 1 else 's'}"
    notice = "" if plan.bootstrap else download_notice()
    return f"starting {', '.join([*parts, 'ingestor', workers, 'merger'])}{notice} …"


def show(fleet: LocalFleet) -> None:
    """Print what is up and how to use it."""
    told, plan = fleet.describe(), fleet.plan
    out = output()
    rows = [[one.id, str(one.pid), one.url, "ready"] for one in told.services]
    out.print(table([("part", "fold"), ("pid", "right"), ("url", "fold"), ("state", "left")], rows))
    out.print()
    for name, text in _facts(told, plan):
        out.print(f"{name:<7}{text}", soft_wrap=True)
    out.print()
    out.print("To annotate a CSV, from another terminal (Ctrl-C here stops the fleet):", soft_wrap=True)
    for line in _ways_in(told):
        out.print(f"  {line}", soft_wrap=True)


def _facts(told: fleet_file.FleetFile, plan: Plan) -> Iterator[tuple[str, str]]:
    names = sorted(one.stem for one in told.jobs_dir.glob("*.yaml"))
    if plan.bootstrap:
        yield "broker", told.bootstrap
    yield "data", printable(str(told.data_dir))
    yield "jobs", printable(f"{told.jobs_dir} ({', '.join(names) or 'no job file there yet'})")
    if plan.model.embedded:
        yield "model", f"{EMBEDDED_MODEL}: it answers by rules, it is not a language model"
        yield "", f"({printable(plan.model.why)})"
        yield "", f"for a real one: {switch_hint()}"
    else:
        yield "model", printable(f"{told.model} at {told.model_server}")


def _ways_in(told: fleet_file.FleetFile) -> list[str]:
    names = sorted(one.stem for one in told.jobs_dir.glob("*.yaml"))
    job = names[0] if names else "JOB"
    usual = told.data_dir == connections.DEFAULT_DATA_DIR.absolute()
    place = "" if usual else f" --data-dir {told.data_dir}"
    return [
        f"prism submit march.csv --job {job} --wait{place}",
        f"kcat -P -b {told.bootstrap} -t {told.topic_prefix}intake -k march -H job={job} march.csv",
    ]


class Reporter:
    """Tells a person what happens to the parts of the fleet; what is said again is said shortly."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        text = event_text(event, known=event.detail != "" and self._said.get(event.id) == event.detail)
        if text:
            self._said[event.id] = event.detail
            say(f"{datetime.now():%H:%M:%S} {text}")


def event_text(event: Event, known: bool = False) -> str:
    """Return an event in words, empty for one that nobody needs to hear; `known` leaves out the cause."""
    match event.kind:
        case "died":
            return f"{event.id} {_end(event, known)}; starting it again"
        case "given_up":
            return f"{event.id} {_end(event, known)}; it stays down"
        case "not_ready":
            return f"{event.id} is not ready: {printable(event.detail, 200)}"
        case "ready":
            return f"{event.id} is ready again"
    return ""


def _end(event: Event, known: bool) -> str:
    cause = ", as before" if known else f": {printable(event.detail, 300)}"
    if event.status is None:
        return f"did not start{cause}"
    if event.status < 0:
        return f"was ended by {_signal_name(-event.status)}"
    return f"ended with status {event.status}{cause}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def report_json(event: Event) -> None:
    """Tell a script what happened, a JSON object a line on stderr."""
    told: dict[str, object] = {"event": event.kind, "id": event.id, "pid": event.pid, "status": event.status}
    told |= {"detail": event.detail or None, "restart_in_s": event.restart_in_s}
    say(json.dumps({name: value for name, value in told.items() if value is not None}))
