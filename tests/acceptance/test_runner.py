"""`prism runner` as a person and as a script uses it: from a table to the four files of a run."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from pathlib import Path

from tests.acceptance.conftest import PRISM, Fleet, await_true, plain_environment, prism, rows_of
from tests.acceptance.jobs import PROMPT, table

_CONTROLS = re.compile(r"\x1b\[[0-9;?>=]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]")


class Terminal:
    """A command behind a terminal of 80×24."""

    def __init__(self, folder: Path, environment: dict[str, str], *words: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._modes, self._slave = termios.tcgetattr(slave), slave
        self.process = subprocess.Popen(
            [PRISM, *words], cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._seen += os.read(self._master, 65536)
            except OSError:
                return

    def text(self, since: int = 0) -> str:
        """Return what was drawn after a position, without controls."""
        return _CONTROLS.sub("", self._seen[since:].decode(errors="replace"))

    def after(self, keys: str, text: str) -> None:
        """Press keys, and wait until something is drawn."""
        here = len(self._seen)
        os.write(self._master, keys.encode())
        await_true(lambda: text in self.text(here), f"{text!r} after {keys!r}: {self.text(here)[-1500:]}")

    def end(self, timeout_s: float = 120.0) -> int:
        """Wait for the end, until all is seen that was drawn; return the exit code."""
        code = self.process.wait(timeout_s)
        assert termios.tcgetattr(self._slave) == self._modes, "the terminal is as it was"
        os.close(self._slave)  # nobody else has it open: the reader comes to its end
        self._reader.join(60)
        assert not self._reader.is_alive()
        return code


def test_a_terminal_that_goes_away_without_a_word_ends_it(tmp_path: Path) -> None:
    """As of a container's session: the process does not own it, and hears of nothing."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [PRISM, "runner"], cwd=tmp_path, env=plain_environment(TERM="xterm-256color"), stdin=slave,
        stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    try:
        os.close(slave)
        seen = b""
        while b"Which project" not in seen:
            seen += os.read(master, 65536)
        os.close(master)
        assert process.wait(60) == -signal.SIGHUP
    finally:
        process.kill()


def test_a_script_gives_every_answer_and_gets_the_four_files(fleet: Fleet, tmp_path: Path) -> None:
    # The fleet has a root of its own: what it writes is brought to the project.
    (tmp_path / "t.csv").write_text(table(40))
    (tmp_path / "p.json").write_text(json.dumps(PROMPT))
    words = ["--project", "survey", "--create", "--input", "t.csv", "--copy", "--prompt", "p.json"]
    words += ["--model", fleet.told["model"], "--batch-size", "5", "--rows", "3-20", "--json"]
    words += ["--model-server", "embedded", "--workers", "3", "--on-failure", "leave", "--yes"]
    words += ["--bootstrap", fleet.bootstrap]
    done = subprocess.run(
        [PRISM, "runner", *words, "--data-dir", str(fleet.data_dir)],
        cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    run_id = told["run_id"]
    assert re.fullmatch(r"survey_v_public_m[A-Za-z0-9]+_\d{8}_\d{6}", run_id)
    assert told["files"]["results"] == f"projects/survey/data/outputs/{run_id}_r3-20.csv"
    assert told["files"]["log"] == f"projects/survey/logs/terminal_logs/run_{run_id}.log"
    rows = rows_of(tmp_path / told["files"]["results"])
    assert [row["RowID"] for row in rows] == [str(number) for number in range(3, 21)]
    assert rows[0]["Batch_Size"] == "5"
    for one in filter(None, told["files"].values()):
        assert (tmp_path / one).stat().st_size
    copied = tmp_path / "projects" / "survey" / "data" / "inputs" / "input.csv"
    assert copied.read_text() == table(40)


def test_a_person_goes_through_the_screens_and_prism_run_does_it_again(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.csv").write_text(table(40))
    (tmp_path / "config" / "prompts").mkdir(parents=True)
    (tmp_path / "config" / "prompts" / "default_prompt.json").write_text(json.dumps(PROMPT))
    there = ("--data-dir", str(fleet.data_dir))
    seat = Terminal(tmp_path, plain_environment(TERM="xterm-256color"), "runner", *there)
    await_true(lambda: "Which project" in seat.text(), "the first question")
    seat.after("\r", "name of a new project")
    seat.after("survey", "Enter makes projects/survey")
    seat.after("\r", "40 rows")
    seat.after("\r", "config/prompts/default_prompt.json")
    seat.after("\r", "the fleet's own")
    seat.after("\r", "Balanced")
    seat.after("\r", "all 40")
    seat.after("\r", "what will be done")
    seat.after("\x1b", "Which rows?")
    seat.after("1-10", "rows 1 to 10: 10 of 40")
    seat.after("\r", "what will be done")
    seat.after("\r", "bytes through the broker")
    assert seat.end() == 0, seat.text()[-2000:]
    told = seat.text().replace("\r\n", "")
    results = re.search(r"projects/survey/data/outputs/survey_v_public_\w+_r1-10\.csv", told)
    assert results is not None, told[-2000:]
    assert len(rows_of(tmp_path / results[0])) == 10
    again = prism("run", "projects/survey/job.yaml", "--dry-run", "--json", *there, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == 10
