"""The command line of `prism`. Nothing heavy is imported here, so that `--help` is there at once."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn, TypeAlias

from prism_cli.exits import USAGE

# Command → the module whose `run(options)` does it.
MODULES = {
    "up": "prism_cli.up",
    "down": "prism_cli.down",
    "run": "prism_cli.running",
    "retry": "prism_cli.retry",
    "summary": "prism_cli.summary",
    "init": "prism_cli.init",
    "runner": "prism_cli.runner.command",
    "submit": "prism_cli.submission",
    "status": "prism_cli.status",
    "watch": "prism_cli.watching",
    "pause": "prism_cli.control",
    "resume": "prism_cli.control",
    "cancel": "prism_cli.control",
    "merge": "prism_cli.control",
    "doctor": "prism_cli.doctor",
    "models": "prism_cli.models",
    "demo": "prism_cli.demo",
    "fetch": "prism_cli.fetching",
    "purge": "prism_cli.purging",
    "admin": "prism_cli.administration",
}

_EXITS = """\
exit codes: 0 done, 2 usage, 3 bad config or input, 4 broker unreachable, 5 model server unreachable or
model missing, 6 finished with failed rows, 7 quota exhausted, 130 interrupted; 1 something else ended
otherwise (a wait timed out, a run was cancelled, a part of the fleet stayed down), 70 a bug

Data goes to stdout, progress and messages to stderr. The broker is the one of --bootstrap, else of
BOOTSTRAP_SERVER, else that of the fleet in ./prism-data (or --data-dir)."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(USAGE)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = _Parser(
        prog="prism",
        description="PRISM annotates the rows of a CSV with a language model.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_up(commands)
    _add_run(commands)
    _add_init(commands)
    _add_runner(commands)
    _add_submit(commands)
    _add_looking(commands)
    _add_control(commands)
    _add_retry(commands)
    _add_care(commands)
    _add_models(commands)
    _add_files(commands)
    _add_admin(commands)
    return whole


Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _add(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    made.add_argument("--json", action="store_true", help="one JSON object on stdout instead of text")
    made.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="the fleet's folder (default: ./prism-data)"
    )
    return made


def _add_client(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    made = _add(commands, name, text)
    made.add_argument("--bootstrap", metavar="HOST:PORT", help="the Kafka broker")
    return made


def _add_up(commands: Commands) -> None:
    up = _add(commands, "up", "start a local fleet and keep it up until Ctrl-C")
    up.add_argument("--workers", type=_workers, default=2, metavar="N", help="model workers (default: 2)")
    up.add_argument(
        "--broker-port",
        type=_port,
        metavar="P",
        help="the embedded broker's port (default: the last, or a free one)",
    )
    up.add_argument(
        "--model-server",
        default="auto",
        metavar="auto|embedded|URL",
        help="auto: the Ollama at OLLAMA_HOST or port 11434 if it has the model, else the embedded one",
    )
    up.add_argument(
        "--model", metavar="NAME", help="the model (default: OLLAMA_MODEL, or the first one there)"
    )
    up.add_argument(
        "--jobs-dir", type=Path, metavar="DIR", help="job files (default: PRISM_JOBS_DIR or ./jobs)"
    )
    up.add_argument("--concurrency", type=_positive, metavar="N", help="model calls at once per worker")
    up.add_argument(
        "--until-idle", type=_seconds, metavar="S", help="stop when no run was under way for S seconds"
    )
    up.add_argument(
        "--output-root",
        type=Path,
        metavar="DIR",
        help="where jobs' folders lie (default: the fleet's folder)",
    )
    up.add_argument(
        "--worker-retries", type=_retries, metavar="N", help="starts of a worker that dies (default: many)"
    )
    _add(commands, "down", "stop the local fleet; its runs go on at the next start")


def _add_run(commands: Commands) -> None:
    run = _add_client(
        commands, "run", "annotate the files of a job, with a fleet of its own if none is there"
    )
    run.add_argument("config", type=Path, metavar="JOB", help="the job file, as job_config.yaml")
    run.add_argument("--run-id", type=_run_id, metavar="ID", help="the run's id (default: one is made)")
    run.add_argument("--version", metavar="TAG", help="another version than the job's")
    run.add_argument("--workers", type=_positive, metavar="N", help="workers of a fleet that is brought up")
    run.add_argument("--model", metavar="NAME", help="another model than the job's")
    run.add_argument(
        "--rows", type=_rows, metavar="A-B", action="append", help="only these rows of each file, from 1"
    )
    run.add_argument("--priority", type=_priority, metavar="0-9", help="as for prism submit (default: 5)")
    run.add_argument("--reference", action="store_true", help="send where files lie, not their bytes")
    run.add_argument("--detach", action="store_true", help="do not follow the run; it goes on")
    run.add_argument("--follow", dest="detach", action="store_false", help="follow the run (the default)")
    run.add_argument(
        "--on-failure",
        choices=("ask", "retry", "publish", "leave"),
        help="what to do with failed rows; retry: once "
        "(default: ask on a terminal if the job says so, else leave)",
    )
    run.add_argument("--timeout", type=_seconds, metavar="S", help="follow no longer than this")
    run.add_argument("--plain", action="store_true", help="lines instead of the dashboard")
    deeds = run.add_mutually_exclusive_group()
    texts = {
        "--dry-run": "send nothing: check the files, ask a sample, tell what a run takes",
        "--monitor-only": "follow a run that is there (default: the newest under way)",
        "--resume": "go on with a run (needs --run-id)",
        "--summary": "print what a run left (needs --run-id)",
        "--pause-run": "pause a run (needs --run-id)",
        "--resume-run": "go on with a paused run, and leave it (needs --run-id)",
    }
    for name, text in texts.items():
        deeds.add_argument(name, dest="deed", action="store_const", const=name[2:], help=text)
    run.add_argument(
        "--sample", type=_sample, metavar="N", help="with --dry-run: batches to ask (default: 10)"
    )
    run.add_argument("--concurrency", type=_positive, metavar="N", help="model calls at once per worker")
    run.add_argument(
        "--model-server",
        default="auto",
        metavar="auto|embedded|URL",
        help="as for prism up; embedded answers by rules, whatever model the job names",
    )


def _add_init(commands: Commands) -> None:
    text = "write a job file and a prompt file for a table, from its own columns"
    init = commands.add_parser("init", help=text, description=text[0].upper() + text[1:] + ".")
    init.add_argument("file", type=Path, metavar="FILE", help="a CSV, TSV, JSONL or Parquet file")
    init.add_argument("--json", action="store_true", help="one JSON object on stdout instead of text")
    init.add_argument(
        "--project", type=_project, metavar="NAME", help="the project, for names of runs (default: FILE's)"
    )
    init.add_argument("--model", metavar="NAME", help="the model (default: the fleet's own)")
    init.add_argument(
        "--columns",
        type=_columns,
        metavar="A,B,…",
        help="the columns to fill in (default: Topic,Sentiment,Urgency,Key_Point)",
    )
    init.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: this folder)")
    init.add_argument("--force", action="store_true", help="replace files that are there")


def _add_runner(commands: Commands) -> None:
    runner = _add_client(commands, "runner", "put a run together step by step, in a project, and run it")
    runner.add_argument("--project", metavar="P", help="the project: projects/P")
    runner.add_argument("--create", action="store_true", help="make the project if it is not there")
    runner.add_argument(
        "--input", metavar="FILE", help="the table (default: data/inputs/input.csv of the project)"
    )
    runner.add_argument("--copy", action="store_true", help="copy FILE into the project, and use the copy")
    runner.add_argument(
        "--prompt", metavar="FILE", help="the prompt file, or `proposed` (default: the project's own)"
    )
    runner.add_argument("--model", metavar="M", help="the model")
    runner.add_argument("--batch-size", metavar="N", help="rows per model call, 1 to 200")
    runner.add_argument("--rows", metavar="A-B|all", help="which rows, from 1")
    runner.add_argument(
        "--model-server",
        default="auto",
        metavar="auto|embedded|URL",
        help="as for prism up; embedded answers by rules, and needs no --model",
    )
    runner.add_argument(
        "--workers", type=_positive, metavar="N", help="workers of a fleet that is brought up"
    )
    runner.add_argument("--on-failure", choices=("ask", "retry", "publish", "leave"), help="as for prism run")
    runner.add_argument("--yes", action="store_true", help="start without asking once more")


def _add_submit(commands: Commands) -> None:
    submit = _add_client(commands, "submit", "send a table to be annotated")
    submit.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="CSV, TSV, JSON Lines (.jsonl) or Parquet, gzipped (.gz) or not",
    )
    submit.add_argument("--job", required=True, type=_job, metavar="NAME", help="the job file NAME.yaml")
    submit.add_argument("--run-id", type=_run_id, metavar="ID", help="the run's id (default: one is made)")
    submit.add_argument("--label", metavar="L", help="the file's name in the output (default: FILE's)")
    submit.add_argument(
        "--priority", type=_priority, metavar="0-9", help="runs of higher priority get more (default: 5)"
    )
    submit.add_argument("--reference", action="store_true", help="send where the file lies, not its bytes")
    submit.add_argument("--wait", action="store_true", help="follow the run and exit as it ends")
    submit.add_argument("--timeout", type=_seconds, metavar="S", help="wait no longer than this")
    submit.add_argument(
        "--dry-run", action="store_true", help="send nothing: check FILE, ask a sample, tell what a run takes"
    )
    dry = submit.add_argument_group("with --dry-run")
    dry.add_argument("--sample", type=_sample, metavar="N", help="batches to ask (default: 10)")
    dry.add_argument(
        "--concurrency", type=_positive, metavar="N", help="tell the time of so many calls at once, too"
    )
    dry.add_argument(
        "--model-server",
        default="auto",
        metavar="auto|URL",
        help="the Ollama to ask (auto: that of the fleet here, else OLLAMA_HOST or port 11434)",
    )
    dry.add_argument(
        "--jobs-dir", type=Path, metavar="DIR", help="job files (default: the fleet's, or as for prism up)"
    )


def _add_looking(commands: Commands) -> None:
    status = _add_client(commands, "status", "show a run, or all runs and workers")
    status.add_argument("run_id", nargs="?", metavar="RUN")
    watch = _add_client(commands, "watch", "follow a run and exit as it ends")
    watch.add_argument("run_id", nargs="?", metavar="RUN", help="default: the newest that has not ended")
    watch.add_argument("--plain", action="store_true", help="a line now and then, no dashboard")


def _add_control(commands: Commands) -> None:
    texts = {
        "pause": "stop feeding a run; what is under way is finished",
        "resume": "go on with a paused run",
        "cancel": "end a run for good",
        "merge": "publish the output of a run whose job says `auto_merge: false`",
    }
    for name, text in texts.items():
        _add_client(commands, name, text).add_argument("run_id", type=_run_id, metavar="RUN")


def _add_retry(commands: Commands) -> None:
    retry = _add_client(commands, "retry", "do a run's failed rows again and complete its output")
    retry.add_argument("run_id", type=_run_id, metavar="RUN")
    retry.add_argument("--publish", action="store_true", help="ask nothing again: publish a withheld output")
    retry.add_argument(
        "--model-server",
        default="auto",
        metavar="auto|embedded|URL",
        help="as for prism up, where no fleet is up and one is brought up for it",
    )
    retry.add_argument("--detach", action="store_true", help="do not follow the retry; it goes on")
    retry.add_argument("--timeout", type=_seconds, metavar="S", help="follow no longer than this")
    summary = _add_client(commands, "summary", "print what a run left, in words")
    summary.add_argument("run_id", type=_run_id, metavar="RUN")


def _add_care(commands: Commands) -> None:
    _add_client(commands, "doctor", "check what a fleet needs, and say what to do")
    demo = commands.add_parser("demo", help="annotate the example with an embedded fleet, and stop it again")
    demo.add_argument("--json", action="store_true", help="one JSON object on stdout instead of text")


def _add_models(commands: Commands) -> None:
    models = _add(commands, "models", "list the models, and check what one of them can do")
    _add_places(models, "auto", None)
    actions = models.add_subparsers(dest="action", metavar="[check NAME]")
    text = "make a few tiny calls: schema, images, log probabilities, speed"
    check = actions.add_parser("check", help=text, description=text[0].upper() + text[1:] + ".")
    check.add_argument("name", metavar="NAME", help="the model's name")
    # The options may stand before or behind `check NAME`; what was said before it is kept.
    unsaid = argparse.SUPPRESS
    check.add_argument("--json", action="store_true", default=unsaid, help="one JSON object on stdout")
    check.add_argument("--data-dir", type=Path, default=unsaid, metavar="DIR", help="the fleet's folder")
    _add_places(check, unsaid, unsaid)


def _add_files(commands: Commands) -> None:
    fetch = _add(commands, "fetch", "bring a run's files from its fleet, or say where they are")
    fetch.add_argument("run_id", type=_run_id, metavar="RUN")
    fetch.add_argument(
        "--url",
        metavar="URL[,URL]",
        help="the merger, or each of several (default: PRISM_MERGER_URL, else the fleet of this folder)",
    )
    fetch.add_argument("--to", type=Path, metavar="DIR", help="where to put them (default: ./RUN)")
    fetch.add_argument(
        "--only",
        choices=["outputs", "all"],
        help="outputs: nothing else; all: parts, too (default: without the parts of a published output)",
    )
    fetch.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="holds the merger's token (default: PRISM_FILES_TOKEN)",
    )
    fetch.add_argument("--force", action="store_true", help="replace other files of the same names")
    purge = _add_client(commands, "purge", "remove what ended runs left on this machine, after asking")
    purge.add_argument("run_ids", nargs="*", type=_run_id, metavar="RUN", help="default: all")
    purge.add_argument("--older-than", type=_age, metavar="AGE", help="such as 30d, 12h or 45m")
    purge.add_argument(
        "--what",
        type=_leavings,
        default=("parts",),
        metavar="KIND[,KIND]",
        help="parts, stores, sources, outputs, logs, or all (default: parts)",
    )
    purge.add_argument("--yes", action="store_true", help="do not ask")
    purge.add_argument("--dry-run", action="store_true", help="remove nothing: say what would go")


def _add_admin(commands: Commands) -> None:
    text = "make, compare and change topics; make ACLs"
    admin = commands.add_parser("admin", help=text, description=text[0].upper() + text[1:] + ".")
    actions = admin.add_subparsers(dest="action", metavar="ACTION", required=True)
    topics = _add_client(
        actions, "topics", "show all topics of a fleet, and what differs from what is wanted"
    )
    topics.add_argument("--create", action="store_true", help="make those that are missing")
    topics.add_argument("--apply", action="store_true", help="change what can be changed while a fleet runs")
    topics.add_argument(
        "--partitions",
        type=_positive,
        metavar="N",
        help="of batches, results and requests (default: PRISM_TOPIC_PARTITIONS)",
    )
    topics.add_argument(
        "--replication", type=_positive, metavar="R", help="copies of each (default: as the cluster likes)"
    )
    topics.add_argument("--wait", type=_seconds, metavar="S", help="wait so long for the broker (default: 5)")
    acls = _add_client(actions, "acls", "print the ACLs that a fleet needs, as kafka-acls.sh commands")
    acls.add_argument("--apply", action="store_true", help="make them, too")
    acls.add_argument(
        "--principal",
        action="append",
        default=[],
        metavar="ROLE[=NAME]",
        help="only this role, and its principal's name if it is another (may be said again)",
    )
    acls.add_argument("--host", default="*", metavar="IP", help="from where alone (default: anywhere)")


def _age(text: str) -> float:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit()) or unit not in seconds or len(number) > 6:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: a number and s, m, h, d or w, such as 30d")
    return float(int(number) * seconds[unit])


def _leavings(text: str) -> tuple[str, ...]:
    known = ("parts", "stores", "sources", "outputs", "logs")
    wanted = [one.strip() for one in text.split(",")]
    if wanted == ["all"]:
        return known
    if not wanted or not set(wanted) <= set(known):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}, all")
    return tuple(one for one in known if one in wanted)


def _add_places(parser: argparse.ArgumentParser, model_server: str, jobs: str | None) -> None:
    parser.add_argument(
        "--model-server",
        default=model_server,
        metavar="auto|URL",
        help="the Ollama to ask (auto: that of the fleet here, else OLLAMA_HOST or port 11434)",
    )
    parser.add_argument(
        "--jobs-dir",
        type=Path,
        default=jobs,
        metavar="DIR",
        help="where models.json is (default: as for prism up)",
    )


def _number(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
    return number


def _workers(text: str) -> int:
    return _number(text, 0, 64)


def _retries(text: str) -> int:
    return _number(text, 0, 1000)


def _rows(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    pair = _number(first, 1, 10**12), _number(last or first, 1, 10**12)
    if pair[0] > pair[1]:
        raise argparse.ArgumentTypeError(f"{text!r} begins behind its end")
    return pair


def _project(text: str) -> str:
    return _name(text, "project's name")


def _job(text: str) -> str:
    return _name(text, "job name")


def _name(text: str, what: str) -> str:
    from prism.runs.naming import is_job_name

    if not is_job_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no {what} (letters, digits, '_', '-', at most 64)")
    return text


def _columns(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of names like Topic,Sentiment")
    return names


def _positive(text: str) -> int:
    return _number(text, 1, 1024)


def _sample(text: str) -> int:
    # One batch shows no spread, and without it nobody knows how far the prediction is off.
    return _number(text, 2, 10_000)


def _port(text: str) -> int:
    return _number(text, 1, 65535)


def _priority(text: str) -> int:
    return _number(text, 0, 9)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _run_id(text: str) -> str:
    from prism.runs.naming import is_run_id

    if not is_run_id(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no run id (letters, digits, '.', '_', '-', at most 120)"
        )
    return text
