import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from prism.service.errors import FatalError
from prism.service.lifecycle import StopSignal, place_of, run_service

HEADER = """
import sys, threading, time
from prism.service.errors import FatalError
from prism.service.lifecycle import run_service
def say(text):
    print(text, flush=True)
"""


@contextmanager
def service(body: str, drain_s: float = 30.0) -> Iterator[subprocess.Popen[str]]:
    """Run `main(stop)` of the given body as a service process."""
    code = f"{HEADER}\n{body}\nsys.exit(run_service('test', main, drain_s={drain_s}))"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()


def end(child: subprocess.Popen[str]) -> tuple[int, str, list[dict[str, Any]]]:
    out, err = child.communicate(timeout=20)
    return child.returncode, out, [json.loads(line) for line in err.splitlines()]


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


DRAINS = """
def main(stop):
    say("up")
    stop.wait()
    say(f"drained {stop.remaining() > 29}")
"""

NEVER_ENDS = """
def main(stop):
    say("up")
    stop.wait()
    say("draining")
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_zero(number: signal.Signals) -> None:
    with service(DRAINS) as child:
        first_line(child)
        child.send_signal(number)
        code, out, [line] = end(child)
    assert (code, out) == (0, "drained True\n")
    assert (line["action"], line["signal"]) == ("stop_requested", number.name)


def test_a_second_signal_ends_at_once() -> None:
    with service(NEVER_ENDS) as child:
        first_line(child)
        child.send_signal(signal.SIGTERM)
        assert first_line(child) == "draining\n"
        child.send_signal(signal.SIGINT)
        code, _, lines = end(child)
    assert (code, lines[-1]["action"]) == (130, "forced_exit")


@pytest.mark.promise(10)
def test_a_drain_that_takes_too_long_is_ended() -> None:
    with service(NEVER_ENDS, drain_s=0.3) as child:
        first_line(child)
        child.send_signal(signal.SIGTERM)
        code, _, lines = end(child)
    assert (code, lines[-1]["action"]) == (75, "drain_took_too_long")
    assert "MainThread" in lines[-1]["threads"]


def test_a_thread_that_lingers_cannot_keep_an_ended_service() -> None:
    with service(
        "def main(stop): threading.Thread(target=time.sleep, args=(60,)).start()", drain_s=0.3
    ) as child:
        assert end(child)[0] == 75


def test_a_fatal_error_is_one_line_and_exit_code_1() -> None:
    with service("def main(stop): raise FatalError('disk full', '/data', 'free space')") as child:
        code, _, [line] = end(child)
    assert code == 1
    assert (line["action"], line["what"], line["where"], line["next"]) == (
        "fatal",
        "disk full",
        "/data",
        "free space",
    )


def test_a_crash_is_one_line_with_type_message_and_place() -> None:
    with service("def main(stop):\n    {}['absent']") as child:
        code, _, [line] = end(child)
    assert (code, line["action"], line["error"]) == (70, "crashed", "KeyError: 'absent'")
    assert line["at"].startswith("<string>:")
    assert "traceback" not in line


@pytest.mark.promise(10)
def test_a_thread_that_dies_ends_the_service() -> None:
    body = """
def main(stop):
    threading.Thread(target=lambda: 1 / 0, name="poll").start()
    stop.wait()
"""
    with service(body) as child:
        code, _, lines = end(child)
    assert (code, [line["action"] for line in lines]) == (70, ["thread_died", "crashed"])
    assert (lines[0]["thread"], lines[1]["error"]) == ("poll", "ZeroDivisionError: division by zero")


def test_a_fatal_error_in_a_thread_decides_the_exit_code_even_if_main_hangs() -> None:
    body = """
def main(stop):
    stop.fail(FatalError("gone"))
    time.sleep(60)
"""
    with service(body, drain_s=0.3) as child:
        assert end(child)[0] == 75
    with service("def main(stop): stop.fail(FatalError('gone'))") as child:
        assert end(child)[0] == 1


@pytest.mark.parametrize(
    ("raised", "code"), [("SystemExit(3)", 3), ("SystemExit()", 0), ("SystemExit('no')", 1)]
)
def test_system_exit_is_respected(raised: str, code: int) -> None:
    with service(f"def main(stop): raise {raised}") as child:
        assert end(child)[0] == code


def test_the_stop_signal_counts_from_the_first_request() -> None:
    now = [100.0]
    stop = StopSignal(clock=lambda: now[0])
    assert (stop.is_set(), stop.wait(0), stop.deadline(), stop.remaining()) == (False, False, None, 30.0)
    stop.request()
    now[0] = 110.0
    stop.request()
    assert (stop.requested_at, stop.deadline(), stop.remaining(), stop.remaining(5)) == (
        100.0,
        130.0,
        20.0,
        0.0,
    )
    assert stop.wait()


def test_the_first_failure_counts() -> None:
    stop = StopSignal()
    first = FatalError("first")
    stop.fail(first)
    stop.fail(FatalError("second"))
    assert stop.failure is first
    assert stop.is_set()


def test_a_waiting_thread_is_woken() -> None:
    stop = StopSignal()
    started = time.monotonic()
    threading.Timer(0.05, stop.request).start()
    assert stop.wait(10)
    assert time.monotonic() - started < 5


def test_the_place_of_an_error_that_was_never_raised() -> None:
    assert place_of(ValueError()) == "unknown"
    assert callable(run_service)
