"""What users of PRISM v6 have on their disks is read as it stands: jobs, models, settings, prompts."""

from pathlib import Path
from typing import Any

import pytest

from prism.annotation import PromptFile
from prism.runs.catalogue import parse_catalogue
from prism.runs.job import Job, RowRange, parse_job, read_job
from prism.runs.keys import key_paths
from prism.runs.project_settings import ProjectSettings, read_settings

SEEDS = Path(__file__).parents[2] / "data" / "seeds"
DOCUMENTS = next(
    (
        one / "shared" / "seeds"
        for one in SEEDS.parents
        if (one / "shared" / "seeds" / "BEHAVIOUR.md").is_file()
    ),
    None,
)


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*_*.*")), ids=lambda path: path.name)
def test_the_examples_are_those_of_the_documents(path: Path) -> None:
    if DOCUMENTS is None:
        pytest.skip("the seeds are not at hand")
    document = DOCUMENTS / f"prism-v6-{path.name.split('_')[0]}.md"
    block = f"\n```{path.suffix.removeprefix('.')}\n{path.read_text(encoding='utf-8')}```"
    assert block in document.read_text(encoding="utf-8")


def test_every_key_of_the_local_job_has_its_value() -> None:
    job, fields = read_job(SEEDS / "local_job_config.yaml")
    assert job.model_dump(mode="json", exclude={"budget", "table", "dedupe"}) == {
        "project": {
            "name": "customer_feedback",
            "version": "v1",
            "description": "Classify customer feedback by topic and sentiment",
        },
        "model": {
            "name": "llama3.2",
            "names": [],
            "mode": "fanout",
            "batch_size": 10,
            "retries": 3,
            "delay": 5.0,
        },
        "input_queue": [
            {"path": "data/feedback_q1.csv", "label": "q1_feedback"},
            {"path": "data/feedback_q2.csv", "label": "q2_feedback"},
        ],
        "parallelization": {
            "enabled": True,
            "workers": 4,
            "split_strategy": "auto",
            "manual_ranges": [{"start": 1, "end": 500}, {"start": 501, "end": 1000}],
        },
        "output": {
            "directory": "output/",
            "naming_pattern": "{run_id}_{label}",
            "formats": ["csv"],
            "columns": None,
            "checkpoints": {"directory": "checkpoints/", "interval": 25, "cleanup_after_merge": False},
        },
        "error_handling": {
            "strategy": "continue_and_report",
            "max_worker_retries": 2,
            "save_failed_ranges": True,
            "prompt_on_failure": True,
        },
        "merge": {"auto_merge": True, "condition": "all_success", "sort_by": "RowID", "max_failed": None},
        "prompts": {"config_file": "prompts/example_prompt.json"},
        "monitoring": {
            "status_dir": "status/",
            "logs_dir": "logs/",
            "dashboard_refresh": 5.0,
            "save_terminal_logs": True,
            "create_summaries": True,
            "create_analytics": True,
        },
    }
    assert set(_paths(fields)) <= set(key_paths(Job))


def _paths(fields: Any, above: str = "") -> list[str]:
    """Return the dotted names of what stands in a file."""
    if isinstance(fields, list):
        return [path for item in fields for path in _paths(item, above)]
    if not isinstance(fields, dict):
        return []
    return [path for key, value in fields.items() for path in (above + key, *_paths(value, f"{above}{key}."))]


def test_the_cloud_job_is_read() -> None:
    job, _ = read_job(SEEDS / "cloud_job_config.yaml")
    assert (job.model.name, job.model.delay, job.parallelization.workers) == ("gpt-oss:20b-cloud", 5.0, 4)
    assert job.prompts.config_file == "prompts/classification_prompt.json"


@pytest.mark.parametrize(
    ("name", "section", "key", "value"),
    [
        ("cloud_more_workers", "parallelization", "workers", 8),
        ("cloud_larger_batches", "model", "batch_size", 15),
        ("cloud_thinking_model", "model", "name", "kimi-k2-thinking:cloud"),
        ("local_manual_ranges", "parallelization", "split_strategy", "manual"),
    ],
)
def test_a_piece_of_a_job_is_a_job(name: str, section: str, key: str, value: object) -> None:
    job, fields = read_job(SEEDS / f"{name}.yaml")
    assert getattr(getattr(job, section), key) == value
    assert parse_job(fields) == job


def test_row_ranges_and_files_keep_their_order() -> None:
    ranges = read_job(SEEDS / "local_manual_ranges.yaml")[0].parallelization.manual_ranges
    assert ranges == [
        RowRange(start=start, end=end) for start, end in ((1, 100), (101, 300), (301, 600), (601, 1000))
    ]
    files = read_job(SEEDS / "local_several_files.yaml")[0].input_queue
    assert [(one.path, one.label) for one in files] == [
        ("data/january.csv", "jan"),
        ("data/february.csv", "feb"),
        ("data/march.csv", "mar"),
    ]


def test_the_models_are_read_with_their_numbers_and_batch_sizes() -> None:
    catalogue = parse_catalogue((SEEDS / "local_models.json").read_bytes())
    assert catalogue.ids == {"llama3.2": "1", "mistral": "2", "qwen2.5:14b": "3"}
    assert catalogue.entry("mistral").recommended_for == "classification"
    assert catalogue.entry("mistral").description == "Mistral 7B - Good for classification"
    assert [(one.size, one.description, int(one.speed_multiplier)) for one in catalogue.batch_sizes] == [
        (1, "Maximum accuracy", 1),
        (5, "Balanced", 5),
        (10, "Fast", 10),
        (15, "Very fast", 15),
    ]


def test_the_settings_are_those_that_are_assumed() -> None:
    settings = read_settings(SEEDS / "local_settings.json")
    assert settings == ProjectSettings()
    assert settings.model_fields_set == set(ProjectSettings.model_fields)


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*_prompt_*.json")), ids=lambda path: path.name)
def test_the_prompts_are_read_without_a_warning(path: Path) -> None:
    prompt = PromptFile.parse(path.read_bytes())
    assert prompt.warnings == ()
    assert len(prompt.columns_to_code) in (3, 4)
