"""The files of PRISM v6, and rows of the example, through the whole fleet and the real Ollama.

Its model has random weights: what it answers means nothing. That each answer is one of the lists is the
work of the schema, which Ollama enforces.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.conftest import (
    EXAMPLE,
    MODEL,
    Fleet,
    end_fleet,
    plain_environment,
    prism,
    rows_of,
    start_fleet,
)
from tests.acceptance.jobs import SEEDS, put_seeds
from tests.integration.ollama import Ollama, serve

# Measured on two cores at a load of 6 to 8: 45 s with batches of 1, 3 and 5, 61 s with 10. A token of this
# model is a byte: 5 rows, long ones among them, fit into the 8192 that a run with such batches is given.
BATCH = 5
WAIT_S = 400.0
# In each of the two files: a label of the model's own, which that prompt allows, is long with random weights.
SEED_ROWS = 4
LISTS = {"Topic": "valid_topic", "Validated_Sentiment": "valid_sentiment", "Urgency": "valid_urgency"}


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    with serve(tmp_path_factory.mktemp("ollama")) as server:
        # Its threads wait for one another in loops: on a machine that is busy two are slower than one.
        one_thread = {"from": server.model, "parameters": {"num_thread": 1}, "stream": False}
        for name in (server.model, MODEL):
            asked = {"model": name, **one_thread}
            made = requests.post(f"{server.url}/api/create", json=asked, timeout=60.0)
            made.raise_for_status()
        yield server


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's job with smaller batches, and with lists that no answer may leave."""
    folder = tmp_path_factory.mktemp("jobs")
    job = (EXAMPLE / "feedback.yaml").read_text()
    assert "batch_size: 10 " in job
    (folder / "feedback.yaml").write_text(job.replace("batch_size: 10 ", f"batch_size: {BATCH} "))
    (folder / "feedback_prompt.json").write_text(json.dumps(example_prompt() | {"strict": True}))
    return folder


@pytest.fixture(scope="module")
def real_fleet(ollama: Ollama, jobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    words = ["--model-server", ollama.url, "--model", ollama.model, "--workers", "1", "--jobs-dir", str(jobs)]
    started = start_fleet(tmp_path_factory.mktemp("fleet"), *words)
    try:
        yield started
    finally:
        end_fleet(started)


def example_prompt() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLE / "feedback_prompt.json").read_bytes())
    return found


def write_first_rows(path: Path, count: int) -> list[dict[str, str]]:
    """Write the first rows of the example; return them."""
    rows = list(rows_of(EXAMPLE / "feedback.csv"))[:count]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_the_files_of_prism_v6_run_as_they_are(ollama: Ollama, tmp_path: Path) -> None:
    """The job says `llama3.2`, which is what the tiny model is called here; no letter of them is changed."""
    put_seeds(tmp_path, SEED_ROWS)
    done = prism(
        "run", "job_config.yaml", folder=tmp_path, environment=plain_environment(OLLAMA_HOST=ollama.url),
        timeout_s=WAIT_S,
    )  # fmt: skip
    assert done.returncode in (0, 6), done.stderr
    first, second = map(Path, done.stdout.splitlines())
    run_id = first.name.removesuffix("_q1_feedback.csv")
    assert re.fullmatch(r"customer_feedback_v1_m1_\d{8}_\d{6}", run_id)
    assert second.name == f"{run_id}_q2_feedback.csv"
    logs = tmp_path / "logs" / run_id
    manifest = json.loads((logs / "run_manifest.json").read_bytes())
    rows = [*rows_of(first), *rows_of(second)]
    ok = [row for row in rows if not row["Error"]]
    assert [row["RowID"] for row in rows] == [str(base + at) for base in (1, 500) for at in range(SEED_ROWS)]
    assert manifest["rows"] == {"in": 2 * SEED_ROWS, "ok": len(ok), "failed": len(rows) - len(ok)}
    assert manifest["rows"]["ok"] > 0
    assert (manifest["models"], manifest["model_digests"]) == ([MODEL], [digest(ollama, MODEL)])
    assert {(row["Model_Name"], row["Batch_Size"], row["Run_ID"]) for row in rows} == {(MODEL, "10", run_id)}
    assert_seed_labels(ok, logs / f"analytics_{run_id}.csv")
    summary = (logs / f"summary_{run_id}.md").read_text()
    assert f"{2 * SEED_ROWS} rows of 2 files: {len(ok)} ok" in summary
    assert (logs / f"report_{run_id}.html").stat().st_size > 0


def assert_seed_labels(ok: Sequence[dict[str, str]], analytics: Path) -> None:
    """A value is of the prompt's list, or told as a label of the model's own, which that prompt allows."""
    prompt = json.loads((SEEDS / "local_prompt_feedback.json").read_bytes())
    organic = {(one["column"], one["value"]) for one in rows_of(analytics) if one["section"] == "organic"}
    shown = dict(zip(prompt["columns_to_code"], ("Topic", "Validated_Sentiment", "Urgency"), strict=False))
    for name, column in shown.items():
        labels = {
            *prompt["validation_rules"][f"valid_{name.lower()}"],
            prompt["not_applicable_defaults"][name],
        }
        found = {row[column] for row in ok}
        assert "" not in found, column
        assert found - labels == {value for of, value in organic if of == column}, column


@pytest.mark.promise(1)
@pytest.mark.promise(2)
@pytest.mark.promise(7)
@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.chaos)])
def test_rows_get_labels_of_their_lists(
    real_fleet: Fleet, ollama: Ollama, tmp_path: Path, count: int
) -> None:
    rows_in, run_id = write_first_rows(tmp_path / "feedback.csv", count), f"real{count}"
    words = ["submit", str(tmp_path / "feedback.csv"), "--job", "feedback", "--run-id", run_id, "--wait"]
    done = real_fleet.run(*words, timeout_s=WAIT_S)
    assert done.returncode == 0, done.stderr
    rows_out = rows_of(real_fleet.data_dir / "output" / f"{run_id}_feedback.csv")
    assert [{name: row[name] for name in rows_in[0]} for row in rows_out] == rows_in
    assert_labels(rows_out)
    assert {(row["Model_Name"], row["Batch_Size"], row["Error"]) for row in rows_out} == {
        (ollama.model, str(BATCH), "")
    }
    manifest = json.loads((real_fleet.data_dir / "logs" / run_id / "run_manifest.json").read_bytes())
    assert manifest["rows"] == {"in": count, "ok": count, "failed": 0}
    assert (manifest["models"], manifest["model_digests"]) == ([ollama.model], [digest(ollama, ollama.model)])
    assert manifest["calls"] >= count / BATCH
    # A token of this model is a byte, and every prompt holds the system prompt.
    assert manifest["tokens"]["prompt"] > manifest["calls"] * len(example_prompt()["system_prompt"])
    assert manifest["tokens"]["completion"] > count * len(
        '{"RowID":"","Topic":"","Sentiment":"","Urgency":""}'
    )


def assert_labels(rows_out: Sequence[dict[str, str]]) -> None:
    rules = example_prompt()["validation_rules"]
    for column, name in LISTS.items():
        assert {row[column] for row in rows_out} <= set(rules[name]), column
    assert all(row["Key_Point"] for row in rows_out)


def digest(ollama: Ollama, model: str) -> str:
    """Return a model's digest as the server says it."""
    models = requests.get(f"{ollama.url}/api/tags", timeout=10.0).json()["models"]
    return str(next(one["digest"] for one in models if one["name"].removesuffix(":latest") == model))
