"""`prism demo`: the embedded fleet, the example through it, the output on the screen, everything stopped."""

import csv
import os
import shutil
import signal
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from prism.annotation.prompt_file import PromptFile
from prism.kafka.clients import KafkaSettings
from prism.messages import RunState, Topics
from prism.runs.job import read_job
from prism_cli import fleet_file, submission
from prism_cli.board import Board, RunView
from prism_cli.connection import Connection
from prism_cli.console import count, output, printable, say, table, write_json
from prism_cli.exits import BAD_INPUT, DONE, FAILED, CommandFailed
from prism_cli.fleet import LocalFleet, Plan
from prism_cli.model_choice import EMBEDDED_MODEL, ModelChoice, switch_hint
from prism_cli.outputs import local_path
from prism_cli.status import explanation, rows_text
from prism_cli.up import Reporter, starting_line
from prism_cli.watching import follow

JOB = "feedback"
WORKERS = 2
SHOWN_ROWS = 5
_LONGEST_S = 180.0
# What would make the demonstration something else than the embedded default.
_OTHERS = ("BOOTSTRAP_SERVER", "OLLAMA_", "PRISM_", "KAFKA_", "CONCURRENT_REQUESTS", "CONSUMER_GROUP", "PORT")
_KEPT = ("PRISM_KAFKA_JARS", "PRISM_DEBUG")


def run(options: Namespace) -> int:
    """Run the demonstration."""
    root = checkout()
    folder, example = root / "prism-data" / "demo", root / "examples" / JOB
    started = time.monotonic()
    with fleet_file.owned(folder), _terminable():
        clear(folder)
        fleet = LocalFleet(make_plan(folder, example), Reporter())
        try:
            view = _annotate(fleet, example / f"{JOB}.csv")
            return _tell(view, folder, example, time.monotonic() - started, options.json)
        finally:
            say("stopping the fleet …")
            _stop(fleet)


def checkout() -> Path:
    """Return the checkout that has the example; raise CommandFailed (3) without one."""
    here = Path(__file__).resolve().parents[2]
    for root in (here, Path.cwd()):
        if (root / "examples" / JOB / f"{JOB}.csv").is_file():
            return root
    raise CommandFailed(BAD_INPUT, f"no examples/{JOB}/{JOB}.csv", str(here), "run it in a checkout of PRISM")


def make_plan(folder: Path, example: Path) -> Plan:
    """Return the embedded fleet, whatever the environment says."""
    return Plan(
        data_dir=folder,
        jobs_dir=example,
        workers=WORKERS,
        model=ModelChoice(None, EMBEDDED_MODEL, "the demonstration"),
        environ=plain_environment(os.environ),
        folder=folder,
    )


def plain_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without anybody's settings of PRISM."""
    return {name: value for name, value in environ.items() if name in _KEPT or not name.startswith(_OTHERS)}


def clear(folder: Path) -> None:
    """Remove what the last demonstration left. The folder's lock is held and stays."""
    for entry in folder.iterdir():
        if entry.name == fleet_file.LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _annotate(fleet: LocalFleet, path: Path) -> RunView:
    say(starting_line(fleet.plan))
    fleet.start()
    connection = _connection(fleet)
    source = submission.examine(path)
    run_id = submission.new_run_id(JOB, source.sha256, datetime.now(UTC))
    envelope = submission.Envelope(JOB, run_id, JOB, path.name)
    say(f"dropping {path.name} into {connection.topics.intake} at {fleet.bootstrap}")
    board = Board(connection)
    try:
        submission.send(connection, submission.parts(source, envelope, reference=False), envelope.label)
        return follow(board, run_id, _LONGEST_S)
    finally:
        board.close()


def _connection(fleet: LocalFleet) -> Connection:
    told = fleet.describe()
    kafka = KafkaSettings(told.bootstrap, "prism-demo", {"log_level": "0"})
    return Connection(kafka, Topics(told.topic_prefix), "the demonstration's fleet", told.data_dir, told)


def _stop(fleet: LocalFleet) -> None:
    try:
        fleet.stop()
    except KeyboardInterrupt:
        fleet.kill()
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM end the demonstration as Ctrl-C does."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(view: RunView, folder: Path, example: Path, seconds: float, as_json: bool) -> int:
    files = [Path(local_path(one, folder)) for one in view.progress.outputs]
    done = view.state in (RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES)
    if not done or not files or not files[0].is_file():
        raise CommandFailed(
            FAILED,
            f"the run ended {view.state.value}: {explanation(view)}",
            str(folder),
            "see logs/services there",
        )
    if as_json:
        write_json({**view.as_json(folder), "seconds": round(seconds, 1)})
    else:
        _show(view, files[0], example, seconds)
    return DONE


def _show(view: RunView, path: Path, example: Path, seconds: float) -> None:
    out = output()
    out.print(table(*first_rows(path, coded_columns(example))))
    out.print()
    progress = view.progress
    lines = [
        ("output", printable(_short(path))),
        (
            "rows",
            f"{rows_text(view)}; {count(progress.calls)} model calls, {seconds:.1f} s with the start",
        ),
        ("model", f"{EMBEDDED_MODEL}: it answers by rules, it is not a language model"),
        ("next", "prism up, then elsewhere: prism submit FILE.csv --job feedback --wait"),
        ("", f"your own questions: copy {_short(example)}/, change job and prompt"),
        ("", f"a real model: {switch_hint()}"),
    ]
    for name, text in lines:
        out.print(f"{name:<8}{text}", soft_wrap=True)


def coded_columns(example: Path) -> list[str]:
    """Return the columns that the example's prompt asks for."""
    job, _ = read_job(example / f"{JOB}.yaml")
    prompt = PromptFile.parse((example / job.prompts.config_file).read_bytes())
    return list(prompt.columns_to_code)


def first_rows(path: Path, coded: list[str]) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Return columns and first rows of an output, cut to what a screen holds."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        there = list(rows.fieldnames or [])
        shown = [name for name in ("RowID", "Message", *coded[:3], "Error") if name in there]
        limit = {"Message": 30}
        cells = [
            [printable(row[name] or "", limit.get(name, 18)) for name in shown]
            for row, _ in zip(rows, range(SHOWN_ROWS), strict=False)
        ]
    return [(printable(name, 18), "left") for name in shown], cells


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
