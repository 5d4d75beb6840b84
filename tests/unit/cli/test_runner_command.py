"""`prism runner` without a terminal: what it needs, what it refuses, and what it writes before a run."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from prism.runs.job import read_job
from prism_cli import running
from prism_cli.__main__ import main
from prism_cli.aftermath import Tell
from prism_cli.job_spec import JobSpec

PROMPT = {"system_prompt": "Sort it.", "columns_to_code": ["Topic"]}
ALL = ["--project", "demo", "--model", "m", "--batch-size", "5", "--rows", "1-2"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[JobSpec]:
    """Stand in for the run; return what was to be run. The working directory has a table and a prompt."""
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("RowID,Message\n1,a b\n2,c d\n3,e f\n")
    Path("p.json").write_text(json.dumps(PROMPT))
    found: list[JobSpec] = []

    def run(spec: JobSpec, options: Namespace, tell: Tell) -> int:
        found.append(spec)
        return 0

    monkeypatch.setattr(running, "run_spec", run)
    return found


def test_all_flags_and_no_terminal_asks_nothing_and_runs(runs: list[JobSpec]) -> None:
    assert main(["runner", *ALL, "--create", "--input", "t.csv", "--prompt", "p.json"]) == 0
    (spec,) = runs
    assert spec.path == Path("projects/demo/job.yaml")
    assert (spec.job.model.name, spec.job.model.batch_size) == ("m", 5)
    assert spec.files[0].ranges == [(1, 2)]
    assert Path("projects/demo/data/outputs").is_dir()


def test_the_projects_own_files_need_no_flags(runs: list[JobSpec]) -> None:
    Path("projects/demo/data/inputs").mkdir(parents=True)
    Path("t.csv").rename("projects/demo/data/inputs/input.csv")
    Path("p.json").rename("projects/demo/prompt.json")
    assert main(["runner", *ALL[:-1], "all", "--yes", "--json"]) == 0
    job = read_job(Path("projects/demo/job.yaml"))[0]
    assert job.input_queue[0].path == "data/inputs/input.csv"
    assert job.input_queue[0].label == "r1-3"
    assert runs[0].files[0].ranges == []


def test_the_embedded_server_needs_no_model_and_a_prompt_can_be_proposed(runs: list[JobSpec]) -> None:
    words = ["--project", "d", "--create", "--input", "t.csv", "--batch-size", "1", "--rows", "all"]
    assert main(["runner", *words, "--prompt", "proposed", "--model-server", "embedded"]) == 0
    assert runs[0].job.model.name == "prism-embedded"
    assert json.loads(Path("projects/d/prompt.json").read_text())["columns_to_code"][0] == "Topic"


WRONG = [
    ([], 2, "--project, --input, --prompt, --model, --batch-size, --rows missing"),
    (["--project", "new", "--create"], 2, "--input, --prompt, --model, --batch-size, --rows missing"),
    (["--project", "new"], 3, "no project new (there: none)"),
    ([*ALL, "--create", "--input", "t.csv"], 2, "--prompt missing"),
    ([*ALL[:-1], "5", "--create"], 2, "say 1-100 for the first hundred"),
    ([*ALL[:-1], "1-4", "--create", "--input", "t.csv", "--prompt", "p.json"], 3, "the file has 3 rows"),
    ([*ALL, "--create", "--input", "no.csv", "--prompt", "p.json"], 3, "no such file (--input)"),
    ([*ALL, "--create", "--input", "t.csv", "--prompt", "t.csv"], 3, "(--prompt)"),
    ([*ALL, "--create", "--project", "../x", "--input", "t.csv", "--prompt", "p.json"], 3, "letters, digits"),
    ([*ALL, "--create", "--batch-size", "0", "--input", "t.csv", "--prompt", "p.json"], 3, "from 1 to 200"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG)
def test_what_is_missing_or_wrong_is_one_line_that_names_the_flag(
    words: list[str], code: int, said: str, runs: list[JobSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runner", *words]) == code
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not runs
    assert not list(Path("projects").glob("*/job.yaml"))


def test_a_refused_table_is_one_line_with_its_place(
    runs: list[JobSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("RowID,Message\n1,a\n1,b\n")
    assert main(["runner", *ALL, "--create", "--input", "t.csv", "--prompt", "p.json"]) == 3
    assert "line 3, column 1" in capsys.readouterr().err
    assert not runs
