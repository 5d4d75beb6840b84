"""Where a dry run finds job, model and server: the options, the folder's fleet, the environment."""

import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prism.messages import RunFile, RunRecord, UriSource
from prism.runs.job import JobRefused
from prism_cli import dry_run, fleet_file
from prism_cli.arguments import parser
from prism_cli.exits import CommandFailed
from prism_cli.fleet_file import FleetFile, Service

OPENAI = {
    "name": "big",
    "backend": "openai",
    "base_url": ["http://a/v1", "http://b/v1"],
    "api_key_env": "A_KEY",
}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and nobody's settings."""
    for name in [one for one in os.environ if one.startswith(("OLLAMA", "PRISM", "BOOTSTRAP"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def options(*words: str) -> Namespace:
    return parser().parse_args(["submit", "x.csv", "--job", "j", "--dry-run", *words])


def jobs(folder: str = "jobs", model: str = "", **files: dict[str, Any]) -> Path:
    path = Path(folder)
    path.mkdir()
    (path / "j.yaml").write_text(f"model: {{name: {model}}}\n")
    if files:
        (path / "models.json").write_text(json.dumps({"available_models": list(files.values())}))
    return path.absolute()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetFile]:
    """A living fleet of this folder, with three workers."""
    folder = tmp_path / "prism-data"
    made = FleetFile(
        bootstrap="127.0.0.1:1",
        embedded_broker=True,
        topic_prefix="prism.",
        model_server="http://127.0.0.1:2",
        model="fleets-own",
        data_dir=folder,
        jobs_dir=jobs("fleet-jobs"),
        source_dir=folder,
        pid=1,
        services=[
            Service(name=name, id=name, pid=1, url="")
            for name in ("ingestor", "model-worker", "model-worker", "model-worker", "merger")
        ],
    )
    with fleet_file.owned(folder):
        made.write()
        yield made


def test_without_a_fleet_it_is_the_environment() -> None:
    folder = jobs()
    environ = {"OLLAMA_HOST": "127.0.0.1:5", "OLLAMA_MODEL": "from-environment"}
    plan = dry_run.make_plan(options(), environ)
    assert (plan.model, plan.workers, plan.jobs_dir.absolute()) == ("from-environment", 1, folder)
    assert [one.address for one in plan.places()] == ["http://127.0.0.1:5"]
    assert dry_run.make_plan(options(), {}).model is None


def recorded(plan: dry_run.Plan) -> RunRecord:
    return plan.record(RunFile(label="j", filename="j.csv", source=UriSource(uri="file:///x"), sha256=""), {})


def test_the_fleet_of_this_folder_goes_before_the_environment(fleet: FleetFile) -> None:
    environ = {"OLLAMA_HOST": "127.0.0.1:5", "OLLAMA_MODEL": "from-environment"}
    plan = dry_run.make_plan(options(), environ)
    assert (plan.model, plan.workers, plan.jobs_dir) == ("fleets-own", 3, fleet.jobs_dir)
    assert [one.address for one in plan.places()] == [fleet.model_server]
    assert plan.worker.data_dir == fleet.data_dir


def test_an_option_goes_before_the_fleet(fleet: FleetFile) -> None:
    folder = jobs("others")
    words = ["--jobs-dir", "others", "--model-server", "127.0.0.1:7"]
    plan = dry_run.make_plan(options(*words), {"OLLAMA_MODEL": "from-environment"})
    # Another server need not have the fleet's model.
    assert (plan.model, plan.jobs_dir.absolute()) == ("from-environment", folder)
    assert [one.address for one in plan.places()] == ["http://127.0.0.1:7"]


def test_the_jobs_model_goes_before_all_and_to_its_own_servers(fleet: FleetFile) -> None:
    jobs("others", "big", big=OPENAI)
    plan = dry_run.make_plan(options("--jobs-dir", "others"), {"A_KEY": "k", "OLLAMA_MODEL": "x"})
    assert plan.model == "big"
    assert [(one.address, one.api_key) for one in plan.places()] == [
        ("http://a/v1", "k"),
        ("http://b/v1", "k"),
    ]
    assert recorded(plan).model_entry["base_url"] == ["http://a/v1", "http://b/v1"]


def test_each_of_several_models_has_its_entry() -> None:
    folder = jobs(big=OPENAI)
    (folder / "j.yaml").write_text("model: {names: [big, other], mode: split}\n")
    entries = recorded(dry_run.make_plan(options(), {"A_KEY": "k"})).model_entries
    assert entries["big"]["base_url"] == ["http://a/v1", "http://b/v1"]
    assert set(entries) == {"big", "other"}


def test_a_job_without_a_model_is_the_default_servers_whatever_models_json_says() -> None:
    jobs(big=OPENAI)
    plan = dry_run.make_plan(options(), {"OLLAMA_MODEL": "big"})
    assert (plan.model, recorded(plan).model_entry) == ("big", {})
    assert [one.backend for one in plan.places()] == ["ollama"]


def test_a_key_that_is_not_set_is_exit_5() -> None:
    jobs(model="big", big=OPENAI)
    with pytest.raises(CommandFailed, match="A_KEY is not set") as failed:
        dry_run.make_plan(options(), {}).places()
    assert failed.value.code == 5


def test_a_job_that_is_not_there_or_wrong_is_refused() -> None:
    folder = jobs()
    with pytest.raises(CommandFailed, match=r"no job k\.yaml .*take one of: j") as failed:
        dry_run.make_plan(parser().parse_args(["submit", "x", "--job", "k", "--dry-run"]), {})
    assert failed.value.code == 3
    (folder / "j.yaml").write_text("model: {batch_size: many}\n")
    with pytest.raises(JobRefused, match="batch_size"):
        dry_run.make_plan(options(), {})


def test_nobody_to_name_a_model_is_exit_5() -> None:
    jobs()
    plan = dry_run.make_plan(options("--model-server", "127.0.0.1:9"), {})
    with pytest.raises(CommandFailed, match="OLLAMA_MODEL") as failed:
        dry_run._first_model(plan)
    assert failed.value.code == 5
