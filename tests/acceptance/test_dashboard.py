"""`prism watch` on a terminal: the dashboard, its keys, and what stays in the scrollback."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import PRISM, Fleet, await_true, plain_environment
from tests.harness.model_server import ModelControl

_CONTROLS = re.compile(r"\x1b\[[0-9;?>=]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]")
_ALTERNATE, _MAIN = "\x1b[?1049h", "\x1b[?1049l"


class Watcher:
    """`prism watch` behind a terminal of 80×24. `stdout` is a pipe, as scripts have it."""

    def __init__(self, fleet: Fleet, *words: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.modes = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [PRISM, "watch", *words],
            cwd=fleet.folder,
            env=plain_environment(TERM="xterm-256color"),
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
            start_new_session=True,
        )
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._seen += os.read(self._master, 65536)
            except OSError:
                return

    @property
    def seen(self) -> str:
        """All that was drawn."""
        return self._seen.decode(errors="replace")

    def await_text(self, text: str, since: int = 0) -> int:
        """Wait until something is drawn after a position; return the position now."""
        await_true(lambda: text in _CONTROLS.sub("", self.seen[since:]), f"{text!r} on the screen")
        return len(self.seen)

    def press(self, key: str) -> int:
        """Press a key; return the position before what it draws."""
        here = len(self.seen)
        os.write(self._master, key.encode())
        return here

    def end(self) -> int:
        """Wait for the end, until all is seen that was drawn; return the exit code."""
        code = self.process.wait(60)
        assert termios.tcgetattr(self.slave) == self.modes, "the terminal is as it was"
        os.close(self.slave)  # nobody else has it open: the reader comes to its end
        self._reader.join(60)
        assert not self._reader.is_alive()
        return code


@contextmanager
def slow(fleet: Fleet, latency_ms: float, slots: int) -> Iterator[None]:
    """Let the fleet's model server take its time, and do so many calls at once, however many workers ask."""
    model = ModelControl(fleet.told["model_server"])
    model.set(latency_ms=latency_ms, slots=slots)
    try:
        yield
    finally:
        model.set(latency_ms=0, slots=0)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of 3,000 rows, which no worker can answer from memory."""
    path = tmp_path / "many.csv"
    path.write_text("Message\n" + "".join(f"Screen {at} broke after a day\n" for at in range(3000)))
    return path


def test_a_run_is_watched_paused_resumed_and_left_in_the_scrollback(fleet: Fleet, table: Path) -> None:
    # 300 batches take half a minute: the run must not be over before somebody presses a key.
    with slow(fleet, 400, 4):
        fleet.run("submit", table, "--job", "feedback", "--run-id", "dash1", "--label", "many")
        left, watcher = Watcher(fleet, "dash1"), Watcher(fleet, "dash1")
        left.await_text("● running")
        left.press("q")
        assert left.end() == 130
        assert "dash1 goes on; follow it again: prism watch dash1" in left.seen.split(_MAIN)[-1]
        watcher.await_text("● running")
        watcher.await_text("paused", since=watcher.press("p"))
        watcher.await_text("● running", since=watcher.press("r"))
    assert watcher.process.stdout is not None
    told = watcher.process.stdout.read()
    assert watcher.end() == 0, watcher.seen[-2000:]
    assert told.splitlines() == [str(fleet.data_dir / "output" / "dash1_many.csv")]
    assert watcher.seen.startswith(_ALTERNATE) or _ALTERNATE in watcher.seen
    last = _CONTROLS.sub("", watcher.seen.split(_MAIN)[-1])
    assert "✓ completed" in last
    assert "100 %  3,000/3,000" in last
    assert "dash1 completed: 3,000 of 3,000, 0 failed" in last


def test_plain_is_lines_and_an_ended_run_needs_no_dashboard(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("Message\nI love it\n")
    fleet.run("submit", path, "--job", "feedback", "--run-id", "dash2", "--wait")
    plain, ended = Watcher(fleet, "dash2", "--plain"), Watcher(fleet, "dash2")
    assert plain.end() == ended.end() == 0
    assert "\x1b" not in plain.seen
    assert "dash2 completed" in plain.seen
    assert "dash2 completed" in ended.seen
    assert "✓ completed" in ended.seen
    assert _ALTERNATE not in ended.seen
