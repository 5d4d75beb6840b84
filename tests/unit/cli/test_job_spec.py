"""A job file's own paths: what they lead to, and one line for what leads nowhere."""

import json
import os
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import pytest

from prism_cli.exits import BAD_INPUT, CommandFailed
from prism_cli.job_spec import JobSpec, new_run_id, read_spec

OPTIONS = Namespace(version=None, workers=None, model=None, rows=None)


def spec_of(folder: Path, path: str, prompt: str = "p.json") -> JobSpec:
    """Return the job whose only input is `path`, in a folder with two tables."""
    (folder / "p.json").write_text(json.dumps({"system_prompt": "s", "columns_to_code": ["Topic"]}))
    (folder / "data").mkdir(exist_ok=True)
    for label in "ab":
        (folder / "data" / f"{label}.csv").write_text("Message\nx\n")
    job = folder / "job.yaml"
    job.write_text(json.dumps({"input_queue": [{"path": path}], "prompts": {"config_file": prompt}}))
    return read_spec(job, OPTIONS)


def labels(spec: JobSpec) -> list[str]:
    return [one.label for one in spec.files]


def test_patterns_may_be_relative_absolute_or_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    (tmp_path / "elsewhere" / "data" / "c.tsv").write_text("Message\nx\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert labels(spec_of(tmp_path, "data/*.tsv")) == ["c"], "nothing beside the job: from here"
    (tmp_path / "elsewhere" / "data" / "c.csv").write_text("Message\nx\n")
    for pattern in ("data/*.csv", f"{tmp_path}/data/*.csv", "~/data/*.csv", "data/../data/?.csv"):
        assert labels(spec_of(tmp_path, pattern)) == ["a", "b"], pattern


def test_a_run_is_named_by_project_version_and_the_models_number(tmp_path: Path) -> None:
    spec_of(tmp_path, "data/a.csv")
    models = [{"id": 3, "name": "mistral"}, {"id": 1, "name": "llama3.2"}]
    (tmp_path / "models.json").write_text(json.dumps({"available_models": models}))
    job = json.loads((tmp_path / "job.yaml").read_text())
    named = {"project": {"name": "voice", "version": "v2.1"}, "model": {"name": "mistral"}}
    (tmp_path / "job.yaml").write_text(json.dumps({**job, **named}))
    at = datetime(2025, 1, 27, 14, 30, 52)
    assert new_run_id(read_spec(tmp_path / "job.yaml", OPTIONS), at) == "voice_v2.1_m3_20250127_143052"


def test_a_file_has_the_label_that_the_job_gives_it(tmp_path: Path) -> None:
    spec_of(tmp_path, "data/a.csv")
    queue = [{"path": "data/b.csv", "label": "second"}, {"path": "data/a.csv"}]
    job = {"input_queue": queue, "prompts": {"config_file": "p.json"}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    spec = read_spec(tmp_path / "job.yaml", OPTIONS)
    assert [(one.label, one.filename) for one in spec.files] == [("second", "b.csv"), ("a", "a.csv")]


@pytest.mark.parametrize(
    "path", ["data/**a*.csv", "~nobody-of-this-name/a.csv", "data/a\0.csv", "x" * 300, "data/*.tsv"]
)
def test_a_path_that_leads_nowhere_is_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        spec_of(tmp_path, path)
    assert failed.value.code == BAD_INPUT


def test_a_prompt_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for prompt in ("pipe", "data", "nothing.json"):
        with pytest.raises(CommandFailed) as failed:
            spec_of(tmp_path, "data/a.csv", prompt)
        assert failed.value.code == BAD_INPUT


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_name_that_is_no_text_travels(tmp_path: Path) -> None:
    spec_of(tmp_path, "data/a.csv")
    os.rename(tmp_path / "data" / "a.csv", os.fsencode(tmp_path) + b"/data/\xff.csv")
    spec = spec_of(tmp_path, "data")
    spec.request({}).to_bytes()
