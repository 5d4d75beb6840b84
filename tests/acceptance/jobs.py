"""A folder with a job file of PRISM v6 in it, and the model that it names: for tests of `prism run`."""

import csv
import json
import os
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from prism.messages import RunRecord
from prism_cli import connection as connections
from prism_cli.board import Board
from prism_embedded.model_server import EmbeddedModelServer
from tests.acceptance.conftest import COMMAND_S, MODEL, PRISM, await_true, is_gone, plain_environment, prism
from tests.harness.model_server import ModelControl

PROMPT = {
    "system_prompt": "You are a customer feedback analyst.",
    "columns_to_code": ["Topic", "Sentiment", "Key_Point"],
    "validation_rules": {
        "valid_topic": ["Product", "Support", "Billing", "Shipping", "Account", "Other"],
        "valid_sentiment": ["Positive", "Negative", "Neutral", "Mixed"],
    },
}
# A report takes longer than the rows of most tests do: who asks nothing of reports goes without.
QUIET = "monitoring: {create_summaries: false, create_analytics: false}\n"
WORDS = ("late shipping", "great support", "wrong bill", "the app crashes", "love the product", "login fails")


def table(rows: int, first: int = 1, mark: Callable[[int], str] = lambda _: "") -> str:
    """Return a CSV with a title, a message and somebody's own sentiment; `mark` goes into a row's message."""
    lines = ["RowID,Title,Message,Sentiment"]
    for number in range(first, first + rows):
        said = f"{WORDS[number % len(WORDS)]} {number} {mark(number)}".rstrip()
        lines.append(f"{number},Title {number},{said},Neutral")
    return "\n".join(lines) + "\n"


@dataclass
class Desk:
    """A person's folder. `flags` go behind every `prism run`; the job's fields are YAML sections as text."""

    folder: Path
    server: EmbeddedModelServer
    flags: tuple[str, ...] = ()
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    @classmethod
    def made(cls, folder: Path, server: EmbeddedModelServer, sections: str = "", **files: str) -> "Desk":
        """Return a folder with a job over the given tables, the files' stems being their labels."""
        (folder / "data").mkdir(parents=True)
        (folder / "prompts").mkdir()
        (folder / "prompts" / "p.json").write_text(json.dumps(PROMPT))
        queue = ""
        for label, content in files.items():
            (folder / "data" / f"{label}.csv").write_text(content)
            queue += f'  - path: "data/{label}.csv"\n    label: "{label}"\n'
        job = (
            'project:\n  name: "sample"\n  version: "v1"\n'
            f"input_queue:\n{queue}"
            'prompts:\n  config_file: "prompts/p.json"\n'
        )
        if "model:" not in sections:
            job += f'model:\n  name: "{MODEL}"\n  batch_size: 5\n  delay: 0\n'
        if "parallelization:" not in sections:
            job += "parallelization:\n  workers: 2\n"
        if "monitoring:" not in sections:
            job += QUIET
        (folder / "job.yaml").write_text(job + sections)
        return cls(folder, server)

    @property
    def environment(self) -> dict[str, str]:
        return plain_environment(OLLAMA_HOST=self.server.url)

    @property
    def data_dir(self) -> Path:
        return self.folder / "prism-data"

    def prism(self, *words: str, timeout_s: float = COMMAND_S) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return prism(*words, folder=self.folder, environment=self.environment, timeout_s=timeout_s)

    def run(self, *words: str, job: str = "job.yaml") -> "subprocess.CompletedProcess[str]":
        """Run the job to its end."""
        return self.prism("run", job, *words, *self.flags)

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        """Run the job, and do not wait for its end."""
        process = subprocess.Popen(
            [PRISM, "run", "job.yaml", *words, *self.flags],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def status(self, run_id: str) -> dict[str, Any]:
        """Return what `prism status --json` says of a run."""
        done = self.prism("status", run_id, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def record(self, run_id: str) -> RunRecord:
        """Return a run as the broker has it."""
        board = Board(connections.find(Namespace(bootstrap=None, data_dir=self.data_dir)))
        try:
            board.catch_up()
            view = board.run(run_id)
            assert view is not None
            return view.record
        finally:
            board.close()

    def await_done(self, run_id: str, rows: int) -> None:
        """Wait until so many rows are merged."""
        await_true(lambda: (self.data_dir / "fleet.json").is_file(), "a fleet is up")
        board = Board(connections.find(Namespace(bootstrap=None, data_dir=self.data_dir)))

        def there() -> bool:
            board.poll(0.02)
            view = board.run(run_id)
            return view is not None and view.rows_done >= rows

        try:
            await_true(there, f"{rows} rows of {run_id}")
        finally:
            board.close()

    def output(self, run_id: str, label: str) -> Path:
        return self.folder / "output" / f"{run_id}_{label}.csv"

    def rows(self, run_id: str, label: str) -> list[dict[str, str]]:
        """Return the rows of an output."""
        with self.output(run_id, label).open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def manifest(self, run_id: str) -> dict[str, Any]:
        """Return a run's manifest."""
        found: dict[str, Any] = json.loads((self.folder / "logs" / run_id / "run_manifest.json").read_text())
        return found

    def fleet_pids(self) -> list[int]:
        """Return the processes of the fleet that is up, its own last."""
        try:
            told = json.loads((self.data_dir / "fleet.json").read_text())
        except OSError:
            return []
        try:
            children = psutil.Process(int(told["pid"])).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [*(one.pid for one in children), int(told["pid"])]

    def kill_everything(self) -> None:
        """SIGKILL to the fleet and to every command that was begun, all at once."""
        pids = self.fleet_pids()
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
        await_true(lambda: all(map(is_gone, pids)), "the killed fleet is gone")

    def stats(self) -> dict[str, Any]:
        """Return the model server's own counts."""
        return ModelControl(self.server.url).stats()

    def control(self, **changes: object) -> None:
        """Change how the model server behaves; `reset=True` sets its counts to zero."""
        ModelControl(self.server.url).set(**changes)

    def end(self) -> None:
        """Stop what is left of it."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        pids = self.fleet_pids()
        self.prism("down")
        deadline = time.monotonic() + 20
        while not all(map(is_gone, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)


def job(desk: Desk, run_id: str, content: str, sections: str = "", code: int = 0) -> Desk:
    """Run a job over one file `t` in the fleet that is up; its output lies in the fleet's folder."""
    made = Desk.made(desk.folder / "jobs" / run_id, desk.server, sections, t=content)
    done = made.run("--data-dir", str(desk.data_dir), "--run-id", run_id)
    assert done.returncode == code, done.stderr
    return made


SEEDS = Path(__file__).parents[1] / "data" / "seeds"


def put_seeds(folder: Path, rows: int) -> None:
    """Put the job, prompt, models and settings files of PRISM v6's own document where it has them.

    Letter for letter; the two tables that the job names have so many rows each.
    """
    places = {
        "job_config.yaml": "local_job_config.yaml",
        "prompts/example_prompt.json": "local_prompt_feedback.json",
        "config/models.json": "local_models.json",
        "config/settings.json": "local_settings.json",
    }
    for place, name in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes((SEEDS / name).read_bytes())
    (folder / "data").mkdir(exist_ok=True)
    for quarter, first in (("q1", 1), ("q2", 500)):
        (folder / "data" / f"feedback_{quarter}.csv").write_text(table(rows, first))
