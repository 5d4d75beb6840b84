"""`prism up` as a process: a CSV comes back annotated, and nothing stays behind."""

import hashlib
import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import requests

from prism_embedded.loopback import free_port
from tests.acceptance.conftest import (
    EXAMPLE,
    Fleet,
    Starter,
    await_true,
    is_gone,
    plain_environment,
    prism,
    rows_of,
)
from tests.harness.model_server import ModelControl

CSV = EXAMPLE / "feedback.csv"


def family(fleet: Fleet) -> list[int]:
    """Return every process that `prism up` has started, directly or not, and its own.

    But for what makes the archive of the broker's classes, once on a machine: it comes and goes.
    """
    children = psutil.Process(fleet.process.pid).children(recursive=True)
    return [fleet.process.pid, *(one.pid for one in children if not makes_an_archive(one))]


def makes_an_archive(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return True
    return "class_archive" in words or "-Xshare:dump" in words or not words  # without words: it is a zombie


def slow_down(fleet: Fleet, latency_ms: float) -> None:
    """Let the fleet's own model server take its time."""
    ModelControl(fleet.told["model_server"]).set(latency_ms=latency_ms)


def test_the_first_line_says_all_that_is_up(fleet: Fleet) -> None:
    names = [one["name"] for one in fleet.told["services"]]
    assert sorted(names) == ["broker", "ingestor", "merger", "model-server", "model-worker", "model-worker"]
    assert sorted(family(fleet)) == sorted(fleet.pids())
    assert fleet.told["model"] == "prism-embedded"
    assert Path(fleet.told["data_dir"]) == fleet.folder / "prism-data"


def test_a_second_fleet_in_the_same_folder_is_refused(fleet: Fleet) -> None:
    done = fleet.run("up")
    assert done.returncode == 3
    assert "a fleet runs here already" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_doctor_finds_the_fleet_well(fleet: Fleet) -> None:
    done = fleet.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "✓ worker-2" in done.stdout


def test_an_unknown_run_is_exit_3(fleet: Fleet) -> None:
    for words in (["status", "nobody"], ["watch", "nobody"], ["cancel", "nobody"]):
        done = fleet.run(*words)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("prism: no run nobody")


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_submit_and_wait_gives_every_row_back_in_order(fleet: Fleet) -> None:
    done = fleet.run("submit", CSV, "--job", "feedback", "--run-id", "s1", "--label", "march", "--wait")
    assert done.returncode in (0, 6), done.stderr
    (path,) = done.stdout.splitlines()
    assert Path(path) == fleet.data_dir / "output" / "s1_march.csv"
    rows_in, rows_out = rows_of(CSV), rows_of(Path(path))
    assert [row["Message"] for row in rows_out] == [row["Message"] for row in rows_in]
    assert {row["Model_Name"] for row in rows_out if not row["Error"]} == {"prism-embedded"}
    told = fleet.status("s1")
    assert told["rows"]["in"] == len(rows_in)
    assert told["rows"]["ok"] + told["rows"]["failed"] == len(rows_in)
    (output,) = told["outputs"]
    assert output["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    manifest = json.loads((fleet.data_dir / "logs" / "s1" / "run_manifest.json").read_text())
    assert output["sha256"] in json.dumps(manifest)


def test_a_run_is_fetched_from_its_merger_and_what_it_left_is_purged(fleet: Fleet, tmp_path: Path) -> None:
    small = tmp_path / "small.csv"
    small.write_text("Message\nI love it\nI hate it\n")
    done = fleet.run("submit", small, "--job", "feedback", "--run-id", "f1", "--label", "march", "--wait")
    output = Path(done.stdout.strip()).read_bytes()
    parts = fleet.data_dir / "checkpoints" / "f1"
    assert list(parts.iterdir())
    merger = next(one["url"] for one in fleet.told["services"] if one["name"] == "merger")
    assert "files_token" not in fleet.told
    token = json.loads((fleet.data_dir / "fleet.json").read_text())["files_token"]
    assert requests.get(f"{merger}/runs/f1", timeout=10.0).status_code == 401
    # From another folder, as from another machine.
    words = ("fetch", "f1", "--url", merger, "--json")
    fetched = prism(*words, folder=tmp_path, environment=plain_environment(PRISM_FILES_TOKEN=token))
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "f1" / "output" / "f1_march.csv").read_bytes() == output
    assert (tmp_path / "f1" / "logs" / "f1" / "run_manifest.json").is_file()
    # Beside the fleet they need not be brought, but can be.
    here = fleet.run("fetch", "f1", "--only", "outputs")
    assert here.stdout == done.stdout
    copied = fleet.run("fetch", "f1", "--only", "all", "--to", tmp_path / "all")
    assert copied.returncode == 0, copied.stderr
    assert len(list((tmp_path / "all" / "checkpoints" / "f1").iterdir())) == len(list(parts.iterdir()))
    assert fleet.run("purge", "f1").returncode == 2
    purged = fleet.run("purge", "f1", "--yes")
    assert purged.returncode == 0, purged.stderr
    assert not parts.exists()
    assert Path(done.stdout.strip()).read_bytes() == output
    logs = list((fleet.data_dir / "logs" / "services").iterdir())
    assert [one.name for one in logs if token in one.read_text()] == []
    assert any("f1" in one.read_text() for one in logs), "the logs are there"


def test_what_an_unended_run_left_is_not_purged(fleet: Fleet, tmp_path: Path) -> None:
    slow_down(fleet, 2000.0)
    try:
        fleet.run("submit", CSV, "--job", "feedback", "--run-id", "f2")
        refused = fleet.run("purge", "f2", "--what", "all", "--yes")
        assert refused.returncode == 3
        assert "f2 stays: it has not ended" in refused.stderr
    finally:
        slow_down(fleet, 0.0)
        fleet.run("cancel", "f2")


def test_the_same_run_again_is_the_same_run_and_another_file_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    words = ["submit", str(CSV), "--job", "feedback", "--run-id", "s2", "--wait", "--json"]
    first, second = fleet.run(*words), fleet.run(*words)
    assert first.returncode == second.returncode, second.stderr
    assert json.loads(first.stdout)["outputs"] == json.loads(second.stdout)["outputs"]
    other = tmp_path / "other.csv"
    other.write_text("Message\nhello\n")
    done = fleet.run("submit", other, "--job", "feedback", "--run-id", "s2")
    assert done.returncode == 3
    assert "another file" in done.stderr


def test_a_file_that_cannot_be_used_is_exit_3_with_its_place(fleet: Fleet, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"RowID,Message\n1,good\n2,\xff\xfe\n")
    done = fleet.run("submit", bad, "--job", "feedback", "--run-id", "bad1", "--wait")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "not_utf8" in done.stderr
    told = fleet.status("bad1")
    assert (told["state"], told["reason"], told["line"]) == ("refused", "not_utf8", 3)


def test_a_large_file_comes_as_chunks(fleet: Fleet, tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    with large.open("w") as file:
        file.write("Message,Note\n")
        file.writelines(f"row {number},{'x' * 400_000}\n" for number in range(41))
    done = fleet.run("submit", large, "--job", "feedback", "--run-id", "l1", "--wait", "--json")
    told = json.loads(done.stdout)
    assert told["rows"]["in"] == 41, done.stderr


def test_a_file_in_the_fleets_folder_can_go_by_reference(fleet: Fleet) -> None:
    path = fleet.data_dir / "inside.csv"
    path.write_text("Message\nI love it\nI hate it\n")
    done = fleet.run("submit", path, "--job", "feedback", "--run-id", "r1", "--reference", "--wait", "--json")
    assert json.loads(done.stdout)["rows"] == {"in": 2, "ok": 2, "failed": 0}, done.stderr


def test_a_job_that_is_not_there_is_refused_before_anything_is_sent(fleet: Fleet) -> None:
    done = fleet.run("submit", CSV, "--job", "feedbak")
    assert done.returncode == 3
    assert "feedback" in done.stderr


@pytest.mark.promise(2)
def test_a_csv_dropped_with_kcat_comes_back(fleet: Fleet, kcat: str) -> None:
    words = [kcat, "-P", "-b", fleet.bootstrap, "-t", "prism.intake", "-k", "march", "-H", "job=feedback"]
    subprocess.run([*words, "-H", "run-id=k1", str(CSV)], check=True, timeout=60)
    done = fleet.run("watch", "k1")
    assert done.returncode in (0, 6), done.stderr
    rows_out = rows_of(fleet.data_dir / "output" / "k1_march.csv")
    assert [row["Message"] for row in rows_out] == [row["Message"] for row in rows_of(CSV)]


def test_the_list_has_runs_and_workers(fleet: Fleet) -> None:
    fleet.run("submit", CSV, "--job", "feedback", "--run-id", "list1", "--wait")
    told = json.loads(fleet.run("status", "--json").stdout)
    assert "list1" in [one["run_id"] for one in told["runs"]]
    assert [one["worker_id"] for one in told["workers"]] == ["worker-1", "worker-2"]
    shown = fleet.run("status").stdout
    assert "list1" in shown
    assert "worker-2" in shown


def test_pause_resume_and_cancel_say_what_came_of_it(fleets: Starter, tmp_path: Path) -> None:
    fleet = fleets("--workers", "1", "--concurrency", "1")
    # Every command is a process that starts: the run must outlast them on the slowest machine.
    slow_down(fleet, latency_ms=1000)
    many = tmp_path / "many.csv"
    many.write_text("Message\n" + "".join(f"Screen {number} broke after a day\n" for number in range(10_000)))
    sent = fleet.run("submit", many, "--job", "feedback", "--run-id", "p1")
    assert (sent.returncode, sent.stdout) == (0, "p1\n"), sent.stderr
    await_true(lambda: fleet.status("p1")["state"] == "running", "the run is running")
    for command, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        done = fleet.run(command, "p1", "--json")
        assert done.returncode == 0, (command, done.stderr)
        assert json.loads(done.stdout)["state"] == state
    done = fleet.run("pause", "p1")
    assert done.returncode == 3
    assert "has ended" in done.stderr


@pytest.mark.chaos
def test_a_killed_worker_is_replaced_within_seconds(fleets: Starter) -> None:
    fleet = fleets()
    victim = fleet.pid_now("worker-1")
    psutil.Process(victim).kill()
    await_true(lambda: fleet.pid_now("worker-1") != victim, "another worker-1", 5.0)
    died = next(event for event in fleet.events if event["event"] == "died")
    assert (died["id"], died["pid"], died["status"]) == ("worker-1", victim, -9)
    done = fleet.run("submit", CSV, "--job", "feedback", "--wait", "--json")
    assert json.loads(done.stdout)["rows"]["in"] == len(rows_of(CSV)), done.stderr


@pytest.mark.chaos
def test_a_killed_broker_comes_back_with_its_data(fleets: Starter) -> None:
    fleet = fleets()
    first = fleet.run("submit", CSV, "--job", "feedback", "--run-id", "b1", "--wait")
    assert first.returncode in (0, 6), first.stderr
    victim = fleet.pid_now("broker")
    psutil.Process(victim).kill()
    await_true(lambda: fleet.pid_now("broker") != victim, "another broker", 30.0)
    assert fleet.status("b1")["state"].startswith("completed")
    second = fleet.run("submit", CSV, "--job", "feedback", "--run-id", "b2", "--wait")
    assert second.returncode in (0, 6), second.stderr


@pytest.mark.parametrize("how", ["Ctrl-C", "prism down"])
def test_a_stop_leaves_nothing_running(fleets: Starter, how: str) -> None:
    port = free_port()
    fleet = fleets("--broker-port", str(port), "--worker-retries", "0")
    assert fleet.bootstrap.endswith(f":{port}")
    psutil.Process(fleet.pid_now("worker-1")).kill()
    given_up = {"event": "given_up", "id": "worker-1"}
    await_true(lambda: any(given_up.items() <= event.items() for event in fleet.events), "it stays down")
    pids = family(fleet)
    if how == "prism down":
        down = fleet.run("down", "--json")
        assert (down.returncode, json.loads(down.stdout)["was_up"]) == (0, True), down.stderr
        assert fleet.process.wait(60) == 0
    else:
        assert fleet.end(signal.SIGINT) == 0
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert not (fleet.data_dir / "fleet.json").exists()
    done = fleet.run("status")
    assert done.returncode == 4


@pytest.mark.chaos
@pytest.mark.promise(10)
def test_a_fleet_that_is_killed_leaves_nothing_running_and_goes_on_later(fleets: Starter) -> None:
    fleet = fleets()
    sent = fleet.run("submit", CSV, "--job", "feedback", "--run-id", "g1")
    assert sent.returncode == 0, sent.stderr
    pids = family(fleet)
    fleet.end(signal.SIGKILL)
    await_true(lambda: all(is_gone(pid) for pid in pids), "every child of the killed fleet is gone", 10.0)
    done = fleet.run("status")
    assert done.returncode == 4
    assert "the fleet of this folder is gone" in done.stderr
    again = fleets()
    assert again.bootstrap == fleet.bootstrap
    done = again.run("watch", "g1")
    assert done.returncode in (0, 6), done.stderr
    rows_out = rows_of(again.data_dir / "output" / "g1_feedback.csv")
    assert [row["Message"] for row in rows_out] == [row["Message"] for row in rows_of(CSV)]


def test_a_second_signal_hurries(fleets: Starter) -> None:
    fleet = fleets()
    pids = family(fleet)
    for one in fleet.told["services"]:
        if one["name"] == "merger":
            psutil.Process(one["pid"]).suspend()
    fleet.process.send_signal(signal.SIGINT)
    await_true(lambda: any(event["event"] == "stopped" for event in fleet.events), "a service stopped", 30.0)
    assert fleet.end(signal.SIGINT) == 130
    await_true(lambda: all(is_gone(pid) for pid in pids), "every child is gone", 10.0)


def test_the_demonstration_shows_rows_and_stops(tmp_path: Path) -> None:
    done = prism("demo", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prism-embedded: it answers by rules" in done.stdout
    path = next(
        line.split("  ", 1)[1].strip() for line in done.stdout.splitlines() if line.startswith("output")
    )
    assert len(rows_of(Path(path))) == len(rows_of(CSV))
