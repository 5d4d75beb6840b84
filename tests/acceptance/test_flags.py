"""Flags of the commands, each given to the real command, in a fleet that is up.

Which test drives which flag is written in `tests/unit/test_flags_driven.py`.
"""

import json
import re
from pathlib import Path

import pytest

from tests.acceptance.conftest import EXAMPLE, MODEL, OTHER_MODEL, Fleet, await_true, plain_environment, prism
from tests.acceptance.jobs import Desk, table

FAULT = "text:BROKEN=http_500"
# 20 s of calls: each command is a process that starts, and the pause has to come before the run's end.
ROWS = 2000


@pytest.mark.promise(5)
def test_a_run_is_paused_gone_on_with_and_followed_by_the_flags_of_prism_v6(desk: Desk) -> None:
    made = Desk.made(desk.folder / "jobs" / "flags", desk.server, t=table(ROWS))
    there = ("--data-dir", str(desk.data_dir))
    desk.control(latency_ms=100.0, slots=2)
    sent = made.run("--run-id", "flags", "--detach", *there)
    assert (sent.returncode, sent.stdout) == (0, "flags\n"), sent.stderr
    paused = made.run("--pause-run", "--run-id", "flags", *there)
    assert paused.returncode == 0, paused.stderr
    desk.control(latency_ms=0.0, slots=0)
    assert desk.status("flags")["state"] == "paused"
    late = made.run("--monitor-only", "--run-id", "flags", "--timeout", "1", "--plain", *there)
    assert late.returncode == 1
    assert "flags has not ended within 1 s" in late.stderr
    await_true(lambda: desk.stats()["in_flight"] == 0, "nothing is called any more")
    assert 0 < desk.stats()["rows"] < ROWS
    resumed = made.run("--resume-run", "--run-id", "flags", "--json", *there)
    assert json.loads(resumed.stdout)["state"] in ("running", "completed"), resumed.stderr
    followed = made.run("--monitor-only", "--run-id", "flags", *there)
    assert followed.returncode == 0, followed.stderr
    assert followed.stdout == f"{desk.output('flags', 't')}\n"
    again = made.run("--resume", "--run-id", "flags", "--follow", *there)
    assert (again.returncode, again.stdout) == (0, followed.stdout), again.stderr
    assert "flags is there already" in again.stderr
    assert desk.stats()["rows"] == ROWS, "no row was asked again"
    assert [row["RowID"] for row in desk.rows("flags", "t")] == [str(one) for one in range(1, ROWS + 1)]


def test_flags_of_a_run_go_before_what_its_job_says(desk: Desk, jobs_fleet: Fleet) -> None:
    made = Desk.made(desk.folder / "jobs" / "said", desk.server, t="")
    (made.folder / "data" / "t.csv").unlink()
    # Where the fleet may read it itself.
    (desk.data_dir / "t.csv").write_text(table(30))
    text = (made.folder / "job.yaml").read_text()
    (made.folder / "job.yaml").write_text(text.replace("data/t.csv", str(desk.data_dir / "t.csv")))
    words = ["--model", OTHER_MODEL, "--version", "v9", "--rows", "3-7", "--rows", "11", "--priority", "8"]
    words += ["--reference", "--workers", "3", "--concurrency", "1", "--plain", "--json"]
    done = made.run(*words, "--bootstrap", jobs_fleet.bootstrap, "--data-dir", str(desk.data_dir))
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    assert re.fullmatch(rf"sample_v9_m{OTHER_MODEL}_\d{{8}}_\d{{6}}", run_id)
    assert "--workers and --concurrency change nothing" in done.stderr
    assert "0 bytes through the broker" in done.stderr
    rows = desk.rows(run_id, "t")
    assert [row["RowID"] for row in rows] == ["3", "4", "5", "6", "7", "11"]
    assert {row["Model_Name"] for row in rows} == {OTHER_MODEL}
    record = desk.record(run_id)
    assert (record.priority, record.files[0].source.kind) == (8, "uri")


def test_failed_rows_are_done_again_as_the_flags_say(desk: Desk, jobs_fleet: Fleet) -> None:
    """`--on-failure retry` does them once more; `prism retry` with its own flags as often as it is asked."""
    desk.control(faults=FAULT)
    section = f"model: {{name: {MODEL}, batch_size: 5, retries: 1, delay: 0}}\n"
    content = table(10, mark=lambda number: "BROKEN" if number == 3 else "")
    made = Desk.made(desk.folder / "jobs" / "failing", desk.server, section, t=content)
    there = ("--data-dir", str(desk.data_dir))
    done = made.run("--run-id", "failing", "--on-failure", "retry", *there)
    assert done.returncode == 6, done.stderr
    assert "failing.r1 does 1 failed rows again" in done.stderr
    desk.control(faults="")
    sent = prism("retry", "failing", "--detach", "--json", *there, folder=made.folder)
    assert json.loads(sent.stdout)["run_id"] == "failing.r2", sent.stderr
    followed = prism("watch", "failing.r2", "--bootstrap", jobs_fleet.bootstrap, folder=made.folder)
    assert followed.returncode == 0, followed.stderr
    assert {row["Error"] for row in desk.rows("failing", "t")} == {""}
    whole = prism(
        "retry", "failing", "--timeout", "60", "--bootstrap", jobs_fleet.bootstrap, folder=made.folder
    )
    assert whole.returncode == 3
    assert "failing.r2 has no failed rows" in whole.stderr


@pytest.fixture(scope="module")
def ended(jobs_fleet: Fleet) -> str:
    """A run of three rows that has ended."""
    path = jobs_fleet.folder / "three.csv"
    path.write_text("Message\nI love it\nI hate it\nlate again\n")
    words = (
        "--job",
        "feedback",
        "--run-id",
        "ended",
        "--label",
        "three",
        "--priority",
        "7",
        "--timeout",
        "60",
    )
    there = ("--data-dir", jobs_fleet.data_dir)
    done = prism("submit", path, *words, "--wait", "--json", *there, folder=jobs_fleet.folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_id"] == "ended"
    return "ended"


OVER = ("cancel", "pause", "resume")
"""Commands that an ended run refuses."""


@pytest.mark.parametrize(
    ("place", "commands"),
    [
        ("--data-dir", ("status", "watch", "cancel", "pause", "resume", "merge", "summary")),
        # Of the others `test_cli_alone.py` shows it.
        ("--bootstrap", ("pause", "resume", "merge", "summary")),
    ],
)
def test_a_run_is_found_from_anywhere(
    ended: str, jobs_fleet: Fleet, tmp_path: Path, place: str, commands: tuple[str, ...]
) -> None:
    where = (place, jobs_fleet.bootstrap if place == "--bootstrap" else str(jobs_fleet.data_dir))
    for command in commands:
        done = prism(command, ended, *where, "--json", folder=tmp_path)
        assert done.returncode == (3 if command in OVER else 0), (command, done.stderr)
        if command in OVER:
            assert f"{ended} has ended (completed)" in done.stderr
        else:
            assert json.loads(done.stdout)["run_id"] == ended


def test_the_doctor_looks_where_it_is_told_to(jobs_fleet: Fleet, tmp_path: Path) -> None:
    words = ("doctor", "--data-dir", jobs_fleet.data_dir, "--bootstrap", jobs_fleet.bootstrap, "--json")
    checks = {one["name"]: one for one in json.loads(prism(*words, folder=tmp_path).stdout)["checks"]}
    assert "from --bootstrap" in checks["broker"]["detail"]
    assert str(jobs_fleet.data_dir) in checks["data folder"]["detail"]


def test_what_a_run_left_is_shown_and_fetched_as_the_flags_say(
    ended: str, jobs_fleet: Fleet, tmp_path: Path
) -> None:
    merger = next(one["url"] for one in jobs_fleet.told["services"] if one["name"] == "merger")
    token = tmp_path / "token"
    token.write_text(json.loads((jobs_fleet.data_dir / "fleet.json").read_text())["files_token"])
    output = tmp_path / "here" / "output" / "ended_three.csv"
    output.parent.mkdir(parents=True)
    output.write_text("another")
    words = ("fetch", ended, "--url", merger, "--token-file", token, "--to", "here", "--only", "outputs")
    kept = prism(*words, folder=tmp_path)
    assert (kept.returncode, output.read_text()) == (3, "another"), kept.stderr
    forced = prism(*words, "--force", "--json", folder=tmp_path)
    assert forced.returncode == 0, forced.stderr
    assert output.read_bytes() == (jobs_fleet.folder / "output" / "ended_three.csv").read_bytes()
    found = prism("fetch", ended, "--data-dir", jobs_fleet.data_dir, "--to", "all", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "all" / "logs" / ended / "run_manifest.json").is_file()
    kinds = ("--what", "parts,outputs", "--dry-run", "--json", "--data-dir", jobs_fleet.data_dir)
    environment = plain_environment(PRISM_OUTPUT_ROOT=str(jobs_fleet.folder))
    for age, some in (("1w", False), ("0s", True)):
        older = ("--older-than", age, "--bootstrap", jobs_fleet.bootstrap)
        would = prism("purge", ended, *kinds, *older, folder=tmp_path, environment=environment)
        assert would.returncode == 0, would.stderr
        assert bool(json.loads(would.stdout)["files"]) is some
    assert (jobs_fleet.folder / "output" / "ended_three.csv").is_file()


def test_the_models_of_a_fleet_or_a_server_are_listed_and_checked(jobs_fleet: Fleet, tmp_path: Path) -> None:
    server = str(jobs_fleet.told["model_server"])
    listed = prism("models", "--model-server", server, "--jobs-dir", EXAMPLE, "--json", folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    told = json.loads(listed.stdout)
    assert told["default_server"] == server
    assert {MODEL, OTHER_MODEL} <= {one["name"].removesuffix(":latest") for one in told["models"]}
    checked = prism("models", "--data-dir", jobs_fleet.data_dir, "check", MODEL, "--json", folder=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["model"] == MODEL


def test_a_plan_is_made_without_a_fleet(tmp_path: Path, desk: Desk) -> None:
    made = Desk.made(tmp_path / "plan", desk.server, t=table(40))
    words = ("--model-server", "embedded", "--sample", "2", "--concurrency", "3", "--workers", "5", "--json")
    done = made.run("--dry-run", *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["workers"], told["rows"]) == ("prism-embedded", 5, 40)
    assert told["files"][0]["sample"]["batches"] == 2
    assert told["files"][0]["forecast"]["concurrency"] == 3
    assert desk.stats()["calls"] == 0
    submitted = ("submit", "data/t.csv", "--job", "job", "--jobs-dir", ".", "--model-server", desk.server.url)
    done = made.prism(*submitted, "--dry-run", "--sample", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert desk.stats()["calls"] == 3


def test_a_job_is_proposed_as_the_flags_say(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(table(20))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "job_config.yaml").write_text("old")
    words = ("--project", "voices", "--model", MODEL, "--columns", "Topic,Mood", "--output", "mine", "--json")
    assert prism("init", "t.csv", *words, folder=tmp_path).returncode == 3
    done = prism("init", "t.csv", *words, "--force", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["project"], told["columns_to_code"]) == ("voices", ["Topic", "Mood"])
    written = (tmp_path / "mine" / "job_config.yaml").read_text()
    assert MODEL in written
    assert (tmp_path / told["prompt"]).is_file()


def test_down_says_whether_a_fleet_was_up(tmp_path: Path) -> None:
    done = prism("down", "--data-dir", "nowhere", "--json", folder=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["was_up"]) == (0, False), done.stderr
