"""The page for moving from PRISM v6 leaves out no key and no flag that its users know."""

import json
import re
from pathlib import Path

import pytest

from prism.runs.job import Job
from prism.runs.keys import key_paths

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "moving-from-v6.md").read_text(encoding="utf-8")
SEEDS = ROOT / "tests" / "data" / "seeds"
NEW = ("merge.max_failed", "output.formats", "output.columns", "table", "budget", "dedupe")
FLAGS = (
    "--dry-run",
    "--workers",
    "--version",
    "--monitor-only",
    "--run-id",
    "--resume",
    "--summary",
    "--pause-run",
    "--resume-run",
)


@pytest.mark.parametrize("path", [path for path in key_paths(Job) if not path.startswith(NEW)])
def test_every_key_of_the_job_file_is_there(path: str) -> None:
    assert re.search(rf"[`.]{path.rpartition('.')[2]}`", PAGE) or f"`{path}" in PAGE


@pytest.mark.parametrize("name", NEW)
def test_what_is_new_is_there(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("key", json.loads((SEEDS / "local_settings.json").read_text(encoding="utf-8")))
def test_every_key_of_the_settings_is_there(key: str) -> None:
    assert f"`{key}`" in PAGE.split("## settings.json")[1]


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_is_there(flag: str) -> None:
    assert f"| `… {flag} " in PAGE or f"| `… {flag}`" in PAGE
