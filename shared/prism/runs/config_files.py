"""Where a job's `settings.json` and `models.json` are: beside it, in `config/` beside it, in `./config`."""

import os
from collections.abc import Iterator
from pathlib import Path

from prism.runs.catalogue import FILE_NAME as CATALOGUE
from prism.runs.project_settings import FILE_NAME as SETTINGS


def find_settings(job_path: Path, here: Path | None = None) -> Path | None:
    """Return the `settings.json` of a job file, the nearest of those that are there; None without one.

    here: the folder whose `config/` comes last, by default the working directory.
    """
    return _nearest(SETTINGS, job_path, here)


def find_catalogue(job_path: Path, here: Path | None = None) -> Path | None:
    """Return the `models.json` of a job file, found like its settings; `read_catalogue` takes its folder."""
    return _nearest(CATALOGUE, job_path, here)


def _nearest(name: str, job_path: Path, here: Path | None) -> Path | None:
    return next((path for path in _places(name, job_path, here) if os.path.lexists(path)), None)


def _places(name: str, job_path: Path, here: Path | None) -> Iterator[Path]:
    beside = job_path.absolute().parent
    yield beside / name
    yield beside / "config" / name
    yield (here or Path.cwd()) / "config" / name
