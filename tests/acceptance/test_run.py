"""`prism run` as a person uses it: the job files and flags of PRISM v6, kills and pauses in the middle."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.model_state import Behaviour
from tests.acceptance.conftest import MODEL, await_true
from tests.acceptance.jobs import Desk, job, put_seeds, table

Maker = Callable[..., Desk]


@pytest.fixture
def server() -> Iterator[EmbeddedModelServer]:
    with EmbeddedModelServer(Behaviour(count_rows=True), models=[MODEL]) as started:
        yield started


@pytest.fixture
def desks(tmp_path: Path, server: EmbeddedModelServer) -> Iterator[Maker]:
    made: list[Desk] = []

    def make(name: str = "desk", sections: str = "", **files: str) -> Desk:
        made.append(Desk.made(tmp_path / name, server, sections, **files))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()


@pytest.mark.chaos
@pytest.mark.promise(5)
def test_everything_killed_at_40_percent_and_resumed_pays_for_no_merged_row_again(desks: Maker) -> None:
    content = table(300)
    calm = desks("calm", t=content)
    assert calm.run("--run-id", "r1").returncode == 0
    desk = desks("killed", t=content)
    desk.control(latency_ms=100.0, slots=2, reset=True)
    desk.begin("--run-id", "r1")
    desk.await_done("r1", 120)
    desk.kill_everything()
    asked = desk.stats()["rows"]
    desk.control(latency_ms=0.0, slots=0)
    done = desk.run("--resume", "--run-id", "r1")
    assert done.returncode == 0, done.stderr + done.stdout
    assert desk.output("r1", "t").read_bytes() == calm.output("r1", "t").read_bytes()
    assert asked < 250, "it was killed in the middle"
    # Paid for twice is what was in flight at the death, and counted.
    stats, manifest = desk.stats(), desk.manifest("r1")
    twice = stats["calls"] - 60
    assert 0 <= twice <= manifest["extra_calls"]
    assert max(stats["calls_by_rows"].values()) == (2 if twice else 1)


@pytest.mark.chaos
def test_pause_everything_restarted_resume(desks: Maker) -> None:
    # More than a window: what is fed when the pause comes is finished.
    content = table(1000)
    calm = desks("calm", t=content)
    assert calm.run("--run-id", "r1").returncode == 0
    desk = desks("paused", t=content)
    desk.control(latency_ms=100.0, slots=2, reset=True)
    desk.begin("--run-id", "r1")
    desk.await_done("r1", 90)
    paused = desk.run("--pause-run", "--run-id", "r1")
    assert paused.returncode == 0, paused.stderr

    await_true(lambda: desk.stats()["in_flight"] == 0, "nothing is called any more")
    calls = desk.stats()["calls"]
    assert calls < 200
    desk.kill_everything()
    assert desk.run("--monitor-only", "--run-id", "r1").returncode == 4, "no fleet is up"
    desk.control(latency_ms=0.0, slots=0)
    resumed = desk.run("--resume-run", "--run-id", "r1")
    assert resumed.returncode == 0, resumed.stderr
    done = desk.run("--monitor-only", "--run-id", "r1")
    assert done.returncode == 0, done.stderr
    assert desk.output("r1", "t").read_bytes() == calm.output("r1", "t").read_bytes()


def test_the_run_goes_on_when_its_commands_are_gone(desks: Maker) -> None:
    """One that is killed, and one that is interrupted and says how to come back."""
    desk = desks(t=table(2000))
    # Longer than three commands take that start on a busy machine.
    desk.control(latency_ms=300.0, slots=2)
    killed = desk.begin("--run-id", "r1", "--workers", "3")
    desk.await_done("r1", 5)
    killed.kill()
    interrupted = desk.begin("--resume", "--run-id", "r1")
    assert interrupted.stdout is not None
    assert "r1 is there already" in interrupted.stdout.readline()
    assert "r1 running" in interrupted.stdout.readline()
    workers = json.loads(desk.prism("status", "--json").stdout)["workers"]
    assert [one["worker_id"] for one in workers] == ["worker-1", "worker-2", "worker-3"]
    interrupted.send_signal(signal.SIGINT)
    told, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, told
    assert "prism watch r1" in told
    assert not desk.output("r1", "t").exists()
    desk.control(latency_ms=0.0, slots=0)
    await_true(lambda: desk.output("r1", "t").exists(), "it is published all the same")
    assert len(desk.rows("r1", "t")) == 2000
    await_true(lambda: desk.fleet_pids() == [], "and the fleet goes down")


def test_a_changed_file_or_job_under_the_same_id_is_refused_with_what_changed(desk: Desk) -> None:
    made = job(desk, "same", table(20))
    there = ("--run-id", "same", "--data-dir", str(desk.data_dir))
    # What is the default anyway, and what is free to change, is no other job.
    text = (made.folder / "job.yaml").read_text()
    text = text.replace("batch_size: 5", "batch_size: 5\n  mode: fanout\n  retries: '3'")
    (made.folder / "job.yaml").write_text(text.replace("workers: 2", "workers: 3\n  split_strategy: auto"))
    again = made.run(*there)
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stderr
    (made.folder / "data" / "t.csv").write_text(table(21))
    other = made.run("--resume", *there)
    assert other.returncode == 3
    assert "the file t.csv has other bytes" in other.stderr
    (made.folder / "data" / "t.csv").write_text(table(20))
    written = (made.folder / "job.yaml").read_text()
    (made.folder / "job.yaml").write_text(written.replace("batch_size: 5", "batch_size: 6"))
    other = made.run("--resume", *there)
    assert other.returncode == 3
    assert "the job differs at model.batch_size" in other.stderr


@pytest.mark.promise(1)
def test_the_files_of_prism_v6_run_as_they_are(desks: Maker) -> None:
    """The job, prompt, models and settings files of PRISM v6's own document, all where it has them."""
    desk = desks()
    put_seeds(desk.folder, 40)
    done = desk.run(job="job_config.yaml")
    assert done.returncode == 0, done.stderr
    outputs = [Path(line) for line in done.stdout.splitlines()]
    assert [one.parent for one in outputs] == [desk.folder / "output"] * 2
    run_id = outputs[0].name.removesuffix("_q1_feedback.csv")
    assert re.fullmatch(r"customer_feedback_v1_m1_\d{8}_\d{6}", run_id)
    header = outputs[1].read_text().splitlines()[0]
    assert header == (
        "RowID,Title,Message,Sentiment,Topic,Validated_Sentiment,Urgency,Key_Point,"
        "Model_Name,Batch_Size,Run_ID,Error"
    )
    assert "starting a fleet of 4 workers" in done.stderr
    assert desk.fleet_pids() == [], "and it has gone down by itself"
    logs = desk.folder / "logs" / run_id
    left = {"run_manifest.json", f"run_{run_id}.log", f"summary_{run_id}.md", f"analytics_{run_id}.csv"}
    assert left <= {one.name for one in logs.iterdir()}
    status = sorted((desk.folder / "status" / run_id).glob("worker_*.json"))
    assert sum(json.loads(one.read_text())["rows_processed"] for one in status) == 80
    assert len(list((desk.folder / "checkpoints" / run_id).glob("*_part*.csv"))) == 4
    told = desk.prism("run", "job_config.yaml", "--summary", "--run-id", run_id)
    assert told.returncode == 0
    assert run_id in told.stdout
    plan = desk.prism("run", "job_config.yaml", "--dry-run", "--json")
    assert json.loads(plan.stdout)["rows"] == 80
