"""`prism` where there is no fleet: every failure is its exit code and one line on stderr, no traceback."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from prism_cli.arguments import MODULES
from tests.acceptance.conftest import EXAMPLE, PRISM, plain_environment, prism


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("prism")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_usage_is_exit_2(tmp_path: Path) -> None:
    for words in ([], ["frobnicate"], ["submit", "x.csv"], ["up", "--workers", "many"]):
        done = prism(*words, folder=tmp_path)
        assert done.returncode == 2, words
        one_line(done)


def test_every_command_is_listed(tmp_path: Path) -> None:
    told = prism("--help", folder=tmp_path).stdout
    for command in MODULES:
        assert f"    {command} " in told


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["watch"],
        ["cancel", "t1"],
        ["submit", str(EXAMPLE / "feedback.csv"), "--job", "feedback"],
    ],
    ids=lambda words: words[0],
)
def test_a_broker_that_is_not_there_is_exit_4_at_once(tmp_path: Path, words: list[str]) -> None:
    done = prism(*words, "--bootstrap", "127.0.0.1:9", folder=tmp_path)
    assert done.returncode == 4
    # So says whoever has knocked at the port; a Kafka client knocks for five seconds, and says it otherwise.
    assert "no Kafka broker answers at 127.0.0.1:9 (from --bootstrap)" in one_line(done)


def test_something_else_than_a_broker_is_exit_4(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        done = prism("status", "--bootstrap", f"127.0.0.1:{mute.getsockname()[1]}", folder=tmp_path)
    assert done.returncode == 4
    one_line(done)


def test_no_fleet_here_is_exit_4_and_says_how_to_get_one(tmp_path: Path) -> None:
    done = prism("status", folder=tmp_path)
    assert done.returncode == 4
    assert "prism up" in one_line(done)


def test_a_file_that_is_none_is_exit_3(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("missing.csv", ".", "pipe.csv"):
        done = prism("submit", name, "--job", "feedback", folder=tmp_path)
        assert done.returncode == 3
        one_line(done)


def test_a_wrong_setting_is_exit_3_before_anything_starts(tmp_path: Path) -> None:
    environment = plain_environment(PRISM_TOPIC_PREFIX="a b")
    done = prism("up", "--model-server", "embedded", folder=tmp_path, environment=environment)
    assert done.returncode == 3
    assert "PRISM_TOPIC_PREFIX" in done.stderr
    assert not (tmp_path / "prism-data" / "broker").exists()


@pytest.mark.parametrize(
    "words", [["--model-server", "http://127.0.0.1:9"], ["--model", "llama3.2"]], ids=" ".join
)
def test_a_model_that_cannot_be_had_is_exit_5(tmp_path: Path, words: list[str]) -> None:
    environment = plain_environment(OLLAMA_HOST="127.0.0.1:9")
    done = prism("up", *words, folder=tmp_path, environment=environment)
    assert done.returncode == 5
    one_line(done)


def test_the_doctor_in_a_folder_with_jobs(tmp_path: Path) -> None:
    environment = plain_environment(PRISM_JOBS_DIR=str(EXAMPLE))
    done = prism("doctor", "--json", folder=tmp_path, environment=environment)
    told = json.loads(done.stdout)
    checks = {one["name"]: one for one in told["checks"]}
    assert done.returncode == 0, done.stdout
    assert told["ok"]
    assert {"python", "packages", "java", "kafka", "data folder", "broker", "model server"} <= set(checks)
    assert checks["job feedback"]["ok"]
    text = prism("doctor", folder=tmp_path, environment=environment).stdout
    assert text.count("✓") == len(checks)
    assert "\x1b" not in text


def test_the_doctor_names_the_first_failure(tmp_path: Path) -> None:
    environment = plain_environment(BOOTSTRAP_SERVER="127.0.0.1:9", OLLAMA_HOST="127.0.0.1:9")
    done = prism("doctor", folder=tmp_path, environment=environment)
    assert done.returncode == 4
    assert [line[2:].split("  ")[0] for line in done.stdout.splitlines() if line.startswith("✗")] == [
        "broker",
        "model server no model server answers at http://127.0.0.1:9; start it and pull the model, "
        "or prism up --model-server embedded",
        "jobs",
    ]


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PRISM} doctor | head -1"],
        cwd=tmp_path,
        env=plain_environment(PRISM_JOBS_DIR=str(EXAMPLE)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("✓ python")
