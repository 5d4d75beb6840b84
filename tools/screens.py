"""Write docs/screens/*.svg: the dashboard as it really looks, captured from tmux while a run goes on.

`make screens` runs it (it needs tmux). It starts an embedded fleet in a temporary folder and a worker more,
runs a job of three files, and watches it on two terminals at once, 80×24 and 200×50: while it runs, paused,
with a worker that was killed (the one that it started itself), and when it is done.
"""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import requests
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "screens"
SIZES = ((80, 24), (200, 50))
RUN = "feedback_v1_m1_20261121_101112"
_ROWS = {"jan": 1000, "feb": 1400, "mar": 1600}
_WAIT_S = 120.0
# Rows that the model server refuses, answers outside the list, or not in JSON: so that there are failures.
_FAULTS = "text:(77)=http_400,text:(412)=wrong_label,text:(713)=truncated_json,text:(1190)=truncated_json"
_PRISM = [sys.executable, "-m", "prism_cli"]
_OTHERS = ("BOOTSTRAP_SERVER", "OLLAMA_", "PRISM_", "KAFKA_", "CONCURRENT_REQUESTS", "CONSUMER_GROUP", "PORT")
_KEPT = ("PRISM_KAFKA_JARS",)
_THEME = TerminalTheme(
    (22, 24, 29),
    (205, 208, 214),
    [
        (22, 24, 29),
        (237, 106, 94),
        (126, 200, 120),
        (229, 192, 96),
        (105, 158, 240),
        (200, 130, 220),
        (86, 196, 214),
        (205, 208, 214),
    ],
    [
        (110, 116, 126),
        (255, 128, 116),
        (150, 220, 144),
        (245, 210, 120),
        (130, 178, 255),
        (220, 155, 238),
        (112, 214, 232),
        (240, 242, 246),
    ],
)


def main() -> None:
    """Take the pictures."""
    if shutil.which("tmux") is None:
        sys.exit("tmux is not installed: apt-get install tmux")
    TARGET.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
        fleet = stack.enter_context(running_fleet(folder))
        worker = stack.enter_context(running_worker(folder, fleet))
        screens = [stack.enter_context(terminal(folder, width, height)) for width, height in SIZES]
        take_all(folder, fleet, worker, screens)


def take_all(
    folder: Path, fleet: Mapping[str, Any], worker: "subprocess.Popen[bytes]", screens: list["Screen"]
) -> None:
    """Drive a run through its states and take a picture of each."""
    control(fleet, latency_ms=1300, faults=_FAULTS)
    await_workers(folder, 3)
    prism(folder, "run", str(write_job(folder)), "--run-id", RUN, "--detach")
    for screen in screens:
        screen.type(f"clear; prism watch {RUN}", "Enter")
    take("running", screens, lambda text: share_in(text) >= 30)
    screens[0].type("p")
    take("paused", screens, lambda text: "‖ paused" in text and "under way" not in text)
    screens[0].type("r")
    await_all(screens, "running again", lambda text: "● running" in text)
    worker.kill()
    take("dead-worker", screens, lambda text: "1 silent" in text and share_in(text) >= 55)
    screens[0].type("f")
    take("failures", screens[:1], lambda text: "failed_ranges.json" in text)
    screens[0].type("Escape")
    control(fleet, latency_ms=20, faults=_FAULTS)
    take("done", screens, lambda text: f"{RUN} completed" in text)


def share_in(text: str) -> int:
    """Return the per cent that the first bar on a screen shows."""
    found = re.search(r"(\d+) %  [\d,]+/[\d,]+", text)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class Screen:
    """A terminal in tmux, in which a shell runs."""

    socket: str
    width: int
    height: int

    def type(self, *keys: str) -> None:
        """Press keys."""
        self._tmux("send-keys", "-t", "0", *keys)

    def text(self) -> str:
        """Return what is shown, plain."""
        return self._tmux("capture-pane", "-p", "-t", "0")

    def save(self, path: Path, command: str = "prism watch") -> None:
        """Write what is shown as a picture; command: what shows it."""
        shown = self._tmux("capture-pane", "-p", "-e", "-t", "0").rstrip("\n")
        console = Console(
            record=True,
            width=self.width,
            file=StringIO(),
            force_terminal=True,
            legacy_windows=False,
        )
        lines = shown.split("\n")
        console.print(Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop"))
        console.save_svg(
            str(path),
            title=f"{command} · {self.width}×{self.height}",
            theme=_THEME,
            code_format=_SVG,
            unique_id=path.stem,
        )

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self.socket, *words], check=True, capture_output=True, text=True, timeout=20
        )
        return done.stdout


# Without the fonts that would be fetched from elsewhere.
_SVG = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


@contextmanager
def terminal(folder: Path, width: int, height: int) -> Iterator[Screen]:
    """A terminal of that size, with a shell in which `prism` is this checkout's."""
    name = f"prism-screens-{os.getpid()}-{width}"
    shell = folder / "shell"
    shell.write_text(f"cd {folder}\nPS1='$ '\nexport COLORTERM=\nprism() {{ {' '.join(_PRISM)} \"$@\"; }}\n")
    start = ["tmux", "-L", name, "-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height)]
    subprocess.run(
        [*start, f"bash --noprofile --rcfile {shell}"], check=True, env=plain_environment(), timeout=20
    )
    try:
        yield Screen(name, width, height)
    finally:
        subprocess.run(["tmux", "-L", name, "kill-server"], check=False, timeout=20)


def take(name: str, screens: list[Screen], ready: Callable[[str], bool]) -> None:
    """Wait until every screen is as it should be, then write their pictures."""
    await_all(screens, name, ready)
    for screen in screens:
        path = TARGET / f"dashboard-{name}-{screen.width}x{screen.height}.svg"
        screen.save(path)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


def await_all(screens: list[Screen], what: str, ready: Callable[[str], bool]) -> None:
    """Wait until every screen is as it should be."""
    await_true(what, lambda: all(ready(one.text()) for one in screens), lambda: screens[0].text())


def await_true(what: str, met: Callable[[], bool], seen: Callable[[], str] = str) -> None:
    """Wait until something is so; end the program if it never is."""
    deadline = time.monotonic() + _WAIT_S
    while not met():
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain: {what}\n{seen()}")
        time.sleep(0.2)


@contextmanager
def running_fleet(folder: Path) -> Iterator[dict[str, Any]]:
    """An embedded fleet with two workers; gives what `prism up --json` says first."""
    jobs = folder / "jobs"
    shutil.copytree(ROOT / "examples" / "feedback", jobs)
    job = jobs / "feedback.yaml"
    job.write_text(job.read_text().replace("# name: llama3.2 ", "name: prism-embedded "))
    # The embedded model costs nothing; here it has a price, so that the place of the cost is seen.
    price = {"prompt": "0.15", "completion": "0.60", "currency": "USD"}
    (jobs / "models.json").write_text(
        json.dumps({"available_models": [{"id": 1, "name": "prism-embedded", "price": price}]})
    )
    words = ["--json", "--model-server", "embedded", "--workers", "2", "--concurrency", "4"]
    log = (folder / "up.log").open("w")
    up = subprocess.Popen(
        [*_PRISM, "up", *words, "--jobs-dir", str(jobs)],
        cwd=folder,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert up.stdout is not None
        first = up.stdout.readline()
        if not first:
            sys.exit(f"the fleet has not started: {(folder / 'up.log').read_text()}")
        yield json.loads(first)
    finally:
        up.terminate()
        up.wait(60)


@contextmanager
def running_worker(folder: Path, fleet: Mapping[str, Any]) -> Iterator["subprocess.Popen[bytes]"]:
    """A third worker, which nobody starts again when it is killed."""
    environment = plain_environment() | {
        "BOOTSTRAP_SERVER": fleet["bootstrap"],
        "OLLAMA_HOST": fleet["model_server"],
        "OLLAMA_MODEL": fleet["model"],
        "PRISM_WORKER_ID": "worker-3",
        "PRISM_DATA_DIR": fleet["data_dir"],
        "CONCURRENT_REQUESTS": "4",
        "PORT": str(free_port()),
    }
    with (folder / "worker-3.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prism_model_worker"], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait(20)


def await_workers(folder: Path, number: int) -> None:
    """Wait until so many workers run."""

    def running() -> bool:
        told: dict[str, Any] = json.loads(prism(folder, "status", "--json"))
        return bool(number <= sum(one["state"] == "running" for one in told["workers"]))

    await_true(f"{number} workers", running)


def write_job(folder: Path) -> Path:
    """Write a job of several files: the example's rows again and again, each a little different.

    What says the same would be asked once only.
    """
    with (ROOT / "examples" / "feedback" / "feedback.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    number = 0
    for label, many in _ROWS.items():
        with (folder / f"{label}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            for at in range(many):
                number += 1
                row = rows[number % len(rows)]
                writer.writerow({**row, "RowID": at + 1, "Message": f"{row['Message']} ({number})"})
    job = folder / "jobs" / "feedback.yaml"
    queue = "".join(f"  - path: {folder / label}.csv\n    label: {label}\n" for label in _ROWS)
    job.write_text(f"{job.read_text()}\ninput_queue:\n{queue}")
    return job


def control(fleet: Mapping[str, Any], **settings: object) -> None:
    """Set how the embedded model server behaves."""
    url = f"{fleet['model_server']}/prism/control"
    requests.post(url, json=settings, timeout=10).raise_for_status()


def prism(folder: Path, *words: str) -> str:
    """Run a command to its end and return its data."""
    done = subprocess.run(
        [*_PRISM, *words], cwd=folder, env=plain_environment(), capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        sys.exit(f"prism {' '.join(words)}: {done.stderr}")
    return done.stdout


def plain_environment() -> dict[str, str]:
    """Return this environment without anybody's settings of PRISM, and with colours."""
    kept = {
        k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith((*_OTHERS, "NO_COLOR", "TMUX"))
    }
    return {**kept, "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
