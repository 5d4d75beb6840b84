"""The fleet that a job gets when none is there: what the job says of it reaches `prism up`."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from prism_cli.arguments import parser
from prism_cli.job_spec import read_spec
from prism_cli.own_fleet import plan_for
from prism_cli.up import make_plan

OPTIONS = Namespace(
    version=None,
    workers=None,
    model=None,
    rows=None,
    model_server="embedded",
    data_dir=None,
    concurrency=None,
)


def up_options(folder: Path, **sections: Any) -> Namespace:
    """Return the options of the `prism up` that a job with these sections begins."""
    (folder / "p.json").write_text(json.dumps({"system_prompt": "s", "columns_to_code": ["Topic"]}))
    (folder / "a.csv").write_text("Message\nx\n")
    job = folder / "job.yaml"
    usual = {"input_queue": [{"path": "a.csv"}], "prompts": {"config_file": "p.json"}}
    job.write_text(json.dumps({**usual, **sections}))
    options = Namespace(**{**vars(OPTIONS), "data_dir": folder / "data"})
    words = plan_for(read_spec(job, options), options, {})[0].command()
    return parser().parse_args(words[words.index("up") :])


@pytest.mark.parametrize(
    ("parallelization", "workers", "concurrency"),
    [
        ({}, 2, None),
        ({"workers": 5}, 5, None),
        ({"enabled": "true", "workers": 5}, 5, None),
        ({"enabled": "false", "workers": 5}, 1, 1),
    ],
)
def test_a_fleet_has_the_jobs_workers_or_one_that_calls_one_at_a_time(
    tmp_path: Path, parallelization: dict[str, Any], workers: int, concurrency: int | None
) -> None:
    found = up_options(tmp_path, parallelization=parallelization)
    assert (found.workers, found.concurrency) == (workers, concurrency)


def test_a_worker_is_started_again_as_often_as_the_job_says(tmp_path: Path) -> None:
    found = up_options(tmp_path, error_handling={"max_worker_retries": 7})
    assert make_plan(found, {}).worker_retries == 7
