"""Child processes that do not outlive the process that started them.

Linux sends a child the signal of PR_SET_PDEATHSIG when the *thread* that forked it ends, not when the
process ends. A broker started by a short-lived thread would die with that thread. So every child is
forked by one thread that lives as long as this process. The signal is set by a few lines of Python
between fork and exec (`preexec_fn` can deadlock when other threads hold locks); those lines also look
whether the parent has died before the signal was set. The signal is SIGKILL: a child that takes its
time to stop would still hold its port when its parent's successor starts. On other systems than
Linux a child of a killed parent stays.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import IO, NamedTuple

_PDEATHSIG_THEN_EXEC = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process is gone")
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot run {sys.argv[2]}: {error.strerror}")
"""


class _Order(NamedTuple):
    command: Sequence[str]
    output: IO[bytes] | int
    environment: Mapping[str, str] | None
    folder: Path | None
    answer: "Future[subprocess.Popen[bytes]]"


class _Spawner:
    """The one thread that forks, see the module's docstring."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[_Order] = SimpleQueue()
        threading.Thread(target=self._run, name="prism-spawner", daemon=True).start()

    def spawn(
        self,
        command: Sequence[str],
        output: IO[bytes] | int,
        environment: Mapping[str, str] | None,
        folder: Path | None,
    ) -> "subprocess.Popen[bytes]":
        answer: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put(_Order(command, output, environment, folder, answer))
        return answer.result()

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            try:
                order.answer.set_result(_popen(order))
            except Exception as error:
                order.answer.set_exception(error)


def _popen(order: _Order) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        tied_to_this_process(order.command),
        stdin=subprocess.DEVNULL,
        stdout=order.output,
        stderr=subprocess.STDOUT,
        env=order.environment,
        cwd=order.folder,
        start_new_session=True,  # Ctrl-C goes to the parent, which stops its children in order
    )


_lock = threading.Lock()
_spawner: _Spawner | None = None


def _forget_spawner() -> None:
    global _spawner, _lock
    _spawner, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_spawner)  # threads do not survive a fork


def tied_to_this_process(command: Sequence[str]) -> list[str]:
    """The command, such that its process gets SIGKILL when the calling thread's process dies (Linux).

    :param command: absolute path of the program, then its arguments.
    """
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _PDEATHSIG_THEN_EXEC, str(os.getpid()), *command]


def spawn(
    command: Sequence[str],
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child that dies with this process, in its own session, with stdout and stderr to `output`.

    :param command: absolute path of the program, then its arguments.
    :param output: an open file, `subprocess.PIPE` or `subprocess.DEVNULL`.
    :raises OSError: the child cannot be started.
    """
    global _spawner
    with _lock:
        if _spawner is None:
            _spawner = _Spawner()
    return _spawner.spawn(command, output, environment, folder)


def stop(process: "subprocess.Popen[bytes]", timeout_s: float) -> int:
    """SIGTERM, and SIGKILL after `timeout_s` seconds; the exit status once the process is reaped."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
