"""`prism submit --dry-run`: real calls to a server whose latency and tokens are known, and no broker."""

import gzip
import json
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism.annotation import PromptFile, PromptRow, build_prompt
from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.model_state import Behaviour
from tests.acceptance.conftest import EXAMPLE, PRISM, await_true, plain_environment, prism, rows_of
from tests.acceptance.test_cli_alone import one_line
from tests.harness.model_server import ModelControl

FEEDBACK = EXAMPLE / "feedback.csv"
ROWS, BATCHES = 500, 50
LATENCY_S = 0.05
PRICE = {"prompt": 2, "completion": 10, "currency": "EUR"}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedModelServer]:
    with EmbeddedModelServer(Behaviour(count_rows=True), models=["tiny"]) as started:
        yield started


@pytest.fixture
def model(server: EmbeddedModelServer) -> ModelControl:
    made = ModelControl(server.url)
    made.set(reset=True, down=False, latency_ms=LATENCY_S * 1000, faults="")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the example's job in it, its model named and priced."""
    shutil.copytree(EXAMPLE, tmp_path / "jobs")
    job(tmp_path)
    priced = {"available_models": [{"name": "tiny", "price": PRICE}]}
    (tmp_path / "jobs" / "models.json").write_text(json.dumps(priced))
    return tmp_path


def job(folder: Path, more: str = "", model: str = "tiny") -> None:
    text = (
        f"model: {{name: {model}, batch_size: 10, delay: 0}}\nprompts: {{config_file: feedback_prompt.json}}"
    )
    (folder / "jobs" / "feedback.yaml").write_text(f"{text}\n{more}")


def dry(
    folder: Path, model: ModelControl, *words: str | Path, file: Path = FEEDBACK
) -> "subprocess.CompletedProcess[str]":
    # A broker that is not there: whoever looks for one fails.
    environment = plain_environment(BOOTSTRAP_SERVER="127.0.0.1:9", OLLAMA_HOST=model.url)
    command = ["submit", file, "--job", "feedback", "--dry-run", *words]
    return prism(*command, folder=folder, environment=environment)


def told(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def tokens_by_hand(folder: Path) -> int:
    """Return the prompt tokens of all batches as the embedded server counts them."""
    file = PromptFile.parse((folder / "jobs" / "feedback_prompt.json").read_bytes())
    rows = [
        PromptRow(row["RowID"], row["Title"], row["Message"], row["Sentiment"]) for row in rows_of(FEEDBACK)
    ]
    prompts = [build_prompt(file, rows[at : at + 10]) for at in range(0, ROWS, 10)]
    return sum(math.ceil((len(one.system) + len(one.user)) / 4) for one in prompts)


def test_a_sample_of_ten_foretells_what_all_batches_take(folder: Path, model: ModelControl) -> None:
    found = told(dry(folder, model, "--json", "--concurrency", "5"))
    assert (found["rows"], found["batches"], found["rows_asked"]) == (ROWS, BATCHES, ROWS)
    assert (found["model"], found["server"]) == ("tiny", model.url)
    sample, ahead = found["sample"], found["forecast"]
    stats = model.stats()
    assert (sample["batches"], sample["calls"], sample["rows"]) == (10, 10, 100)
    assert (stats["calls"], stats["rows"], stats["max_in_flight"]) == (10, 100, 1)
    assert ahead["calls"] == {"point": BATCHES, "low": BATCHES, "high": BATCHES}
    # Prompt tokens grow with the characters shown, which are known: a few rounded quarters remain.
    by_hand = tokens_by_hand(folder)
    prompt = ahead["prompt_tokens"]
    assert prompt["high"] - prompt["low"] < 0.001 * prompt["point"]
    assert abs(prompt["point"] - by_hand) < 0.001 * by_hand
    assert LATENCY_S <= sample["seconds_per_call"] < 20 * LATENCY_S
    assert ahead["seconds"]["point"] == pytest.approx(BATCHES * sample["seconds"] / 10, rel=0.001)
    assert ahead["seconds_concurrent"]["point"] == pytest.approx(ahead["seconds"]["point"] / 5, rel=0.001)
    # Ten batches without a failure do not prove that there is none.
    assert ahead["rows_failed"]["point"] == 0 < ahead["rows_failed"]["high"] < 25
    assert sample["load_seconds"] < 0.01


def test_a_sample_of_everything_is_what_everything_takes(folder: Path, model: ModelControl) -> None:
    model.set(latency_ms=0)
    found = told(dry(folder, model, "--json", "--sample", "1000"))
    by_hand = tokens_by_hand(folder)
    ahead, sample = found["forecast"], found["sample"]
    assert model.stats()["calls"] == BATCHES == sample["calls"]
    assert ahead["prompt_tokens"] == dict.fromkeys(("point", "low", "high"), by_hand)
    completion = sample["completion_tokens"]
    assert ahead["completion_tokens"] == dict.fromkeys(("point", "low", "high"), completion)
    cost = (2 * by_hand + 10 * completion) / 1e6
    assert ahead["cost"] == dict.fromkeys(("point", "low", "high"), pytest.approx(cost, rel=1e-5))
    assert ahead["rows_failed"] == {"point": 0, "low": 0, "high": 0}
    # A small sample is near it; that its interval has it nine times of ten is the unit tests' to show.
    small = told(dry(folder, model, "--json", "--sample", "10"))["forecast"]
    for name in ("prompt_tokens", "completion_tokens", "cost"):
        width = small[name]["high"] - small[name]["low"]
        assert 0 < width < 0.2 * ahead[name]["point"]
        assert abs(small[name]["point"] - ahead[name]["point"]) < 2 * width


def test_the_same_file_gives_the_same_sample(folder: Path, model: ModelControl) -> None:
    first = told(dry(folder, model, "--json", "--sample", "4"))
    met = set(model.stats()["calls_by_rows"])
    assert len(met) == 40
    second = told(dry(folder, model, "--json", "--sample", "4"))
    assert set(model.stats()["calls_by_rows"]) == met
    assert first["sample"]["prompt_tokens"] == second["sample"]["prompt_tokens"]


def test_rows_that_say_the_same_are_asked_once(folder: Path, model: ModelControl) -> None:
    twice = folder / "twice.csv"
    lines = FEEDBACK.read_text().splitlines(keepends=True)
    assert lines[1].startswith("1,")
    again = "".join(f"again-{n},{lines[1].partition(',')[2]}" for n in range(15))
    twice.write_text(lines[0] + lines[1] + again)
    found = told(dry(folder, model, "--json", file=twice))
    assert (found["rows"], found["rows_reused"], found["rows_asked"], found["batches"]) == (16, 15, 1, 2)
    assert found["forecast"]["calls"]["point"] == 1
    assert model.stats()["rows"] == 1
    job(folder, "dedupe: false\n")
    found = told(dry(folder, model, "--json", file=twice))
    assert (found["rows_reused"], found["forecast"]["calls"]["point"]) == (0, 2)


def test_calls_made_again_and_rows_that_fail_are_foretold(folder: Path, model: ModelControl) -> None:
    # Every reply to a batch with this word is none: repaired, halved, and at last one row fails.
    model.set(latency_ms=0, faults="text:battery=truncated_json")
    found = told(dry(folder, model, "--json", "--sample", "1000"))
    with_it = sum("battery" in row["Title"] + row["Message"] for row in rows_of(FEEDBACK))
    ahead = found["forecast"]
    assert 0 < with_it < ROWS
    assert ahead["rows_failed"] == dict.fromkeys(("point", "low", "high"), with_it)
    assert found["sample"]["failed"] == {"not_json": with_it}
    assert ahead["calls"]["point"] == model.stats()["calls"] > BATCHES


def test_a_budget_that_will_not_do_is_a_warning(folder: Path, model: ModelControl) -> None:
    job(folder, "budget: {tokens: 1000, money: 100}\n")
    done = dry(folder, model, "--json")
    assert told(done)["budget"] == {"tokens": 1000, "money": "100", "exceeded": "yes"}
    assert one_line_of_stderr(done).startswith("prism: the run is expected to reach its budget.tokens")


def one_line_of_stderr(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_person_gets_a_table(folder: Path, model: ModelControl) -> None:
    done = dry(folder, model, "--concurrency", "5", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert "500 rows in 50 batches" in done.stdout
    assert f"tiny at {model.url}" in done.stdout
    for line in ("calls", "prompt tokens", "completion tokens", "cost, EUR", "failed rows", "time, 5 calls"):
        assert f"\n{line}" in done.stdout
    assert "\x1b" not in done.stdout


def test_any_name_will_do_and_a_packed_file_too(folder: Path, model: ModelControl) -> None:
    odd = folder / os.fsdecode(b"m\xe4rz 2026.csv.gz")
    odd.write_bytes(gzip.compress(FEEDBACK.read_bytes()))
    found = told(dry(folder, model, "--json", "--sample", "2", file=odd))
    assert (found["file"], found["rows"]) == ("m·rz 2026.csv.gz", ROWS)


def test_a_refused_file_is_exit_3_with_line_and_column_before_any_call(
    folder: Path, model: ModelControl
) -> None:
    file = folder / "twice.csv"
    file.write_text("RowID,Message\n1,a\n2,b\n1,c\n")
    done = dry(folder, model, "--json", file=file)
    assert done.returncode == 3
    assert "duplicate_row_id: line 4, column 1" in one_line(done)
    assert model.stats()["calls"] == 0


def test_a_job_or_prompt_that_cannot_be_used_is_exit_3(folder: Path, model: ModelControl) -> None:
    (folder / "jobs" / "feedback_prompt.json").write_text("{")
    done = dry(folder, model)
    assert done.returncode == 3
    assert "bad_prompt: feedback_prompt.json" in one_line(done)
    job(folder, "table: {delimiter: long}\n")
    done = dry(folder, model)
    assert done.returncode == 3
    assert "table.delimiter" in one_line(done)
    done = prism("submit", FEEDBACK, "--job", "other", "--dry-run", folder=folder)
    assert done.returncode == 3
    assert "feedback" in one_line(done)


def test_a_model_that_is_missing_is_exit_5(folder: Path, model: ModelControl) -> None:
    job(folder, model="absent")
    done = dry(folder, model)
    assert done.returncode == 5
    assert "ollama pull absent" in one_line(done)


@pytest.mark.parametrize("how", ["nobody", "down"])
def test_a_server_that_is_down_is_exit_5_at_once(folder: Path, model: ModelControl, how: str) -> None:
    model.set(down=True)
    words = ["--model-server", "http://127.0.0.1:9"] if how == "nobody" else []
    done = dry(folder, model, *words)
    assert done.returncode == 5
    one_line(done)


def test_a_quota_is_exit_7(folder: Path, model: ModelControl) -> None:
    model.set(faults="quota=1")
    done = dry(folder, model)
    assert done.returncode == 7
    assert "usage limit" in one_line(done)
    assert model.stats()["calls"] == 1


def test_ctrl_c_is_exit_130_and_leaves_nothing(folder: Path, model: ModelControl) -> None:
    model.set(latency_ms=60_000)
    scratch = folder / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [PRISM, "submit", str(FEEDBACK), "--job", "feedback", "--dry-run"],
        cwd=folder,
        env=plain_environment(OLLAMA_HOST=model.url, TMPDIR=str(scratch)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A runner started in the background ignores it, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        await_true(lambda: model.stats()["in_flight"] == 1, "the first call")
        assert os.listdir(scratch) != []
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out, errors) == (130, "", "prism: interrupted\n")
    assert os.listdir(scratch) == []
