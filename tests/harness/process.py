"""One service as a process: started, killed, frozen and started again by name.

Every process is made by `prism_embedded.child.spawn`: a session of its own, and SIGKILL when the test's
process dies. A supervised one is started again by its own thread when it dies; the deaths are counted.
"""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

from prism_embedded import child
from prism_embedded.loopback import HOST, free_port

POLL_S = 0.05
KILLED = -signal.SIGKILL


def await_true(met: Callable[[], bool], timeout_s: float, what: Callable[[], str] | str) -> float:
    """Ask until a condition is met; return the seconds it took. Raise AssertionError after the deadline."""
    began = time.monotonic()
    while not met():
        if time.monotonic() - began > timeout_s:
            raise AssertionError(f"after {timeout_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)
    return time.monotonic() - began


def get_json(url: str, timeout_s: float = 2.0) -> tuple[int, dict[str, Any]]:
    """Return status and body; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")
    except (OSError, ValueError, HTTPException):
        return 0, {}


@dataclass(frozen=True, slots=True)
class Death:
    """One end of a process that was not asked for by the harness; `status` is negative for a signal."""

    at: float
    status: int


class ServiceProcess:
    """A service of the fleet. `environment` holds for every start, `extra` of `start` for that one."""

    def __init__(
        self, name: str, module: str, environment: Mapping[str, str], folder: Path, python: str
    ) -> None:
        self.name = name
        self.module = module
        self.deaths: list[Death] = []
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self.supervised = False
        self._command = [python, "-P", "-m", module]
        self._environment = {**environment, "PORT": str(self.port)}
        self._folder = folder
        self._process: Popen[bytes] | None = None
        self._extra: dict[str, str] = {}
        self._lock = threading.RLock()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs (it may be frozen)."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self, extra: Mapping[str, str] | None = None, supervised: bool | None = None) -> None:
        """Start it, if it does not run; `extra` environment replaces that of the last start."""
        with self._lock:
            assert not self.alive, f"{self.name} runs already"
            if supervised is not None:
                self.supervised = supervised
            self._extra = dict(extra or {})
            self._spawn()

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            environment = {**self._environment, **self._extra}
            self._process = child.spawn(self._command, log, environment, self._folder)
        watcher = threading.Thread(
            target=self._watch, args=(self._process,), name=f"watch-{self.name}", daemon=True
        )
        watcher.start()

    def _watch(self, process: "Popen[bytes]") -> None:
        status = process.wait()
        with self._lock:
            if process is not self._process:
                return
            self.deaths.append(Death(time.monotonic(), status))
            if self.supervised:
                self._spawn()

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone. A supervised one comes back."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting for the drain. It is not started again."""
        self.supervised = False
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def stop(self, timeout_s: float = 35.0) -> int:
        """SIGTERM, and wait for its drain; the exit status. It is not started again."""
        self.terminate()
        assert self._process is not None
        return self._process.wait(timeout_s)

    def end(self) -> None:
        """Let nothing of it stay, whatever state it is in."""
        with self._lock:
            self.supervised = False
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutExpired):
            process.wait(10.0)

    def freeze(self) -> None:
        """SIGSTOP; returns when the process stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        await_true(lambda: process_state(self.pid) in "TtZX", 5.0, f"{self.name} does not stop")

    def thaw(self) -> None:
        """SIGCONT."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Return what `/ready` says; status 0 when nobody answers."""
        return get_json(f"http://{HOST}:{self.port}/ready")

    def await_ready(self, timeout_s: float = 60.0) -> float:
        """Wait until it is ready; the seconds it took."""
        return await_true(
            lambda: self.ready()[0] == 200, timeout_s, lambda: f"{self.name} not ready: {self.last_words()}"
        )

    def await_death(self, timeout_s: float, since: int = 0) -> Death:
        """Wait for the death after the first `since`; return it."""
        await_true(
            lambda: len(self.deaths) > since,
            timeout_s,
            lambda: f"{self.name} has not died: {self.last_words()}",
        )
        return self.deaths[since]

    def last_words(self, lines: int = 12) -> str:
        """Return the end of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])


def process_state(pid: int) -> str:
    """Return the kernel's letter for a process's state; X when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "X"
    return stat.rpartition(")")[2].split()[0]
