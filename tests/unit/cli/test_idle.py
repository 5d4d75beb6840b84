"""Who keeps a fleet up, who may take it down, and what is waited for meanwhile."""

import os
import threading
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prism.messages import RunState
from prism.runs.catalogue import Catalogue
from prism.runs.job import parse_job
from prism_cli import aftermath, fleet_file, running
from prism_cli.aftermath import Aftermath
from prism_cli.exits import BAD_INPUT, CommandFailed
from prism_cli.fleet_file import FleetFile
from prism_cli.idle import alone, looking_on
from prism_cli.job_spec import JobSpec
from prism_cli.model_choice import EMBEDDED_MODEL
from prism_cli.own_fleet import await_up, take_down

NO_PROCESS = 2**22 + 1  # more than Linux gives


def fleet_of(folder: Path, pid: int) -> FleetFile:
    return FleetFile(
        bootstrap="127.0.0.1:1", embedded_broker=True, topic_prefix="prism.", model_server="", model="m",
        data_dir=folder, jobs_dir=folder, source_dir=folder, pid=pid,
    )  # fmt: skip


def test_a_fleet_is_taken_down_only_while_nobody_looks_on(tmp_path: Path) -> None:
    with looking_on(tmp_path), looking_on(tmp_path), alone(tmp_path) as nobody:
        assert not nobody
    with alone(tmp_path) as nobody:
        assert nobody


def test_who_comes_while_a_fleet_goes_down_waits_until_it_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entered = threading.Event()

    def come() -> None:
        with looking_on(tmp_path):
            entered.set()

    with alone(tmp_path) as nobody:
        assert nobody
        comer = threading.Thread(target=come)
        comer.start()
        assert not entered.wait(0.5)
    assert entered.wait(10)
    comer.join()
    assert "waiting for the fleet" in capsys.readouterr().err


def test_a_folder_that_cannot_be_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed) as failed, looking_on(tmp_path / "file"):
        pass
    assert failed.value.code == BAD_INPUT


def test_a_fleet_that_is_being_started_is_waited_for(tmp_path: Path) -> None:
    """At first its file is that of a fleet that was killed."""
    assert not await_up(tmp_path)
    fleet_of(tmp_path, NO_PROCESS).write()
    assert not await_up(tmp_path)
    with fleet_file.owned(tmp_path):
        starter = threading.Timer(0.5, fleet_of(tmp_path, os.getpid()).write)
        starter.start()
        assert await_up(tmp_path)
        assert not starter.is_alive()


@pytest.mark.parametrize(("told", "rounds"), [("retry", ["retry"]), ("publish", [])])
def test_what_the_flag_says_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, rounds: list[str]
) -> None:
    """Rows that fail whatever is done would be asked for ever."""

    def view(run_id: str, parent: str) -> Any:
        record = SimpleNamespace(parent=parent, rows=3)
        progress = SimpleNamespace(rows_failed=3, outputs=["it"], reports=["r"])
        state = RunState.COMPLETED_WITH_FAILURES
        return SimpleNamespace(run_id=run_id, record=record, progress=progress, state=state)

    begun: list[str] = []

    def begin(*_: Any, publish_only: bool) -> str:
        begun.append("publish" if publish_only else "retry")
        assert len(begun) < 3
        return "r.r1"

    monkeypatch.setattr("prism_cli.retry.begin", begin)
    monkeypatch.setattr(aftermath, "attend", lambda _board, run_id, _timeout, **_: view(run_id, "r"))
    options = Namespace(on_failure=told, json=False, timeout=None, plain=True)
    nothing = cast(Any, SimpleNamespace(data_dir=tmp_path))
    assert Aftermath(nothing, nothing, nothing, options, lambda *_: 6).after(view("r", "")) == 6
    assert begun == rounds


@pytest.mark.parametrize(("named", "flag"), [(None, "auto"), ("llama3.2", "auto"), ("llama3.2", "embedded")])
def test_a_job_without_a_model_is_the_same_with_its_fleet_up_and_down(
    tmp_path: Path, named: str | None, flag: str
) -> None:
    """Brought up for it, the embedded fleet gave it its own model's name."""
    fields = {"model": {"name": named}} if named else {}
    job = parse_job(fields)
    spec = JobSpec(tmp_path / "job.yaml", job, fields, {}, Catalogue(), ())
    fleet = fleet_of(tmp_path, 1).model_copy(update={"model": EMBEDDED_MODEL})
    connection: Any = SimpleNamespace(fleet=fleet)
    found = running._for_fleet(connection, spec, Namespace(model_server=flag))
    assert found.job.model.name == (named if named and flag == "auto" else EMBEDDED_MODEL)


@pytest.mark.parametrize(
    ("model", "flags", "said"),
    [
        ("llama3.2", {"model_server": "embedded"}, "--model-server changes nothing"),
        ("llama3.2", {"workers": 2, "concurrency": 3}, "--workers and --concurrency change nothing"),
        (EMBEDDED_MODEL, {"model_server": "embedded"}, ""),
        ("llama3.2", {}, ""),
    ],
)
def test_what_a_fleet_that_is_there_decides_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, flags: dict[str, Any], said: str
) -> None:
    fleet = fleet_of(tmp_path, 1).model_copy(update={"model": model})
    connection: Any = SimpleNamespace(fleet=fleet, bootstrap="b:1")
    options = {"workers": None, "concurrency": None, "model_server": "auto", **flags}
    running._say_what_does_not_hold(connection, Namespace(**options))
    told = capsys.readouterr().err
    assert said in told
    assert bool(told) == bool(said)


def test_a_fleet_that_is_being_started_is_taken_down_once_it_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other process that has the number of one that was killed."""
    killed: list[int] = []
    lock = fleet_file.owned(tmp_path)
    end = threading.Event()

    def kill(pid: int, number: int) -> None:
        if number:
            killed.append(pid)
            end.set()

    def live() -> None:
        with lock:
            begun.set()
            time.sleep(0.3)
            fleet_of(tmp_path, os.getpid()).write()
            end.wait(10)

    begun = threading.Event()
    monkeypatch.setattr("prism_cli.own_fleet.os.kill", kill)
    fleet_of(tmp_path, os.getppid()).write()
    starter = threading.Thread(target=live)
    starter.start()
    assert begun.wait(10)
    take_down(tmp_path)
    starter.join()
    assert killed == [os.getpid()]
