import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from prism.service import fault

PASSAGES = """
from prism.service import fault
import sys
for number in range(1, 5):
    fault.point("worker.before_call", detail=f"batch-{number}")
    print(number, flush=True)
"""


def passages(**environ: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PASSAGES],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout.split() + done.stderr.splitlines()


@pytest.mark.parametrize(
    ("setting", "survived"),
    [
        ("worker.before_call", 0),
        ("worker.before_call:3", 2),
        ("worker.before_call~batch-2", 1),
        ("merger.after_rename,worker.before_call:2", 1),
    ],
)
def test_a_crash_point_kills_at_its_passage(setting: str, survived: int) -> None:
    assert passages(PRISM_CRASH_AT=setting) == (-signal.SIGKILL, [str(n + 1) for n in range(survived)])


def test_unset_it_does_nothing() -> None:
    assert passages() == (0, ["1", "2", "3", "4"])


@pytest.mark.parametrize("setting", ["worker.nowhere", "worker.before_call:0", "worker.before_call:x", "!"])
def test_an_unknown_point_stops_the_process_at_once(setting: str) -> None:
    code, output = passages(PRISM_CRASH_AT=setting)
    assert code == 3
    assert len(output[0].splitlines()) == 1
    assert " ".join(output).startswith("PRISM_CRASH_AT:")


def test_an_undeclared_point_is_found_when_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    fault.point("no.such.point")
    monkeypatch.setattr(fault, "_faults", fault.parse({"PRISM_STOP_AT": "merger.after_poll:1000"}))
    with pytest.raises(KeyError, match="not declared"):
        fault.point("no.such.point")


def test_a_stop_point_stops_until_continued() -> None:
    environ = {**os.environ, "PRISM_STOP_AT": "worker.before_call:2"}
    child = subprocess.Popen([sys.executable, "-c", PASSAGES], env=environ, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
    child.send_signal(signal.SIGCONT)
    assert child.communicate(timeout=10)[0].split() == ["2", "3", "4"]
    assert child.returncode == 0


def test_a_point_costs_almost_nothing_when_unset() -> None:
    started = time.perf_counter()
    for _ in range(100_000):
        fault.point("worker.before_call", "detail")
    assert time.perf_counter() - started < 0.2


def test_every_point_says_where_it_stands() -> None:
    assert all(where and name.count(".") == 1 for name, where in fault.POINTS.items())
