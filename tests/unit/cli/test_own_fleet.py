"""The fleet that a run which has ended gets once more: what its manifest says of it."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from prism.runs.catalogue import Catalogue, ModelEntry
from prism.runs.job import parse_job
from prism_cli import own_fleet
from prism_cli.exits import BROKER_AWAY, MODEL_AWAY, CommandFailed
from prism_cli.job_spec import JobSpec, SpecFile
from prism_cli.model_choice import EMBEDDED_MODEL
from prism_cli.submission import examine

# Nothing listens there.
ENVIRON = {"OLLAMA_HOST": "http://127.0.0.1:1"}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prism-data").mkdir()
    return Namespace(data_dir=tmp_path / "prism-data", bootstrap=None, model_server="auto")


def leave(folder: Path, models: list[str], **job: Any) -> None:
    """Write the manifest of a run `a`, beside the data folder."""
    logs = folder / "logs" / "a"
    logs.mkdir(parents=True)
    found = {"run_id": "a", "config_snapshot": job, "models": models, "files": []}
    (logs / "run_manifest.json").write_text(json.dumps(found))
    (folder / "prism-data" / "output-root").write_text(f"{folder}\n")


def test_it_is_like_the_one_before(options: Namespace, tmp_path: Path) -> None:
    leave(tmp_path, [EMBEDDED_MODEL], parallelization={"workers": "3"})
    plan = own_fleet.plan_again("a", options, ENVIRON)
    assert (plan.workers, plan.choice.embedded, plan.elsewhere) == (3, True, False)
    assert "--output-root" not in plan.command(), "where the outputs lie is noted in the data folder"


def test_a_model_that_is_gone_is_said(options: Namespace, tmp_path: Path) -> None:
    leave(tmp_path, ["llama3.2"], model={"name": "llama3.2"})
    with pytest.raises(CommandFailed) as caught:
        own_fleet.plan_again("a", options, ENVIRON)
    assert caught.value.code == MODEL_AWAY


def test_a_model_with_an_address_is_asked_there(options: Namespace, tmp_path: Path) -> None:
    leave(tmp_path, ["far"], model={"names": ["far", "away"]})
    entries = [{"name": name, "base_url": "http://127.0.0.1:2"} for name in ("far", "away")]
    (tmp_path / "models.json").write_text(json.dumps({"available_models": entries, "batch_sizes": []}))
    plan = own_fleet.plan_again("a", options, ENVIRON)
    assert plan.elsewhere
    assert plan.notice is None


def test_a_run_that_nobody_knows_needs_the_fleet_that_has_it(options: Namespace) -> None:
    with pytest.raises(CommandFailed) as caught:
        own_fleet.plan_again("a", options, ENVIRON)
    assert caught.value.code == BROKER_AWAY


def spec_of(folder: Path, names: list[str], **addresses: str) -> JobSpec:
    table = folder / "t.csv"
    table.write_text("Message\nx\n")
    job = parse_job({"model": {"names": names}})
    entries = tuple(ModelEntry(name=name, base_url=(url,)) for name, url in addresses.items())
    files = (SpecFile("t", examine(table), []),)
    return JobSpec(
        folder / "job.yaml", job, {"model": {"names": names}}, {}, Catalogue(available_models=entries), files
    )


@pytest.mark.parametrize("names", [[EMBEDDED_MODEL, "far"], ["far", EMBEDDED_MODEL]])
def test_the_rules_may_be_one_of_several_models(options: Namespace, tmp_path: Path, names: list[str]) -> None:
    options.concurrency = None
    plan, spec = own_fleet.plan_for(spec_of(tmp_path, names, far="http://127.0.0.1:2"), options, ENVIRON)
    assert spec.job.model.names == names
    assert plan.choice.embedded
    options.model_server = "embedded"
    _, spec = own_fleet.plan_for(spec_of(tmp_path, names, far="http://127.0.0.1:2"), options, ENVIRON)
    assert spec.job.model.chosen == (EMBEDDED_MODEL,)


def test_a_model_that_is_nowhere_is_said_before_anything_starts(options: Namespace, tmp_path: Path) -> None:
    options.concurrency = None
    for names in (["far", "llama3.2"], [EMBEDDED_MODEL, "llama3.2"]):
        with pytest.raises(CommandFailed) as caught:
            own_fleet.plan_for(spec_of(tmp_path, names, far="http://127.0.0.1:2"), options, ENVIRON)
        assert caught.value.code == MODEL_AWAY
