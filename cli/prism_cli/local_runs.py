"""The runs whose files lie on this machine, found by their manifests."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism.runs.naming import is_run_id
from prism_cli.places import noted_root
from prism_merger.places import Places
from prism_merger.run_files import MANIFEST, RunFiles, places_of

# A job may put its logs into folders of folders; somebody's whole home is not searched.
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A run on this machine; without a manifest it has not ended, or was never begun."""

    files: RunFiles
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return self.files.run_id


def output_root(data_dir: Path, environ: Mapping[str, str]) -> Path:
    """Return the folder below which a fleet writes what people read."""
    named = environ.get("PRISM_OUTPUT_ROOT") or noted_root(data_dir) or data_dir
    return Path(named).expanduser().absolute()


def find_run(root: Path, run_id: str) -> LocalRun:
    """Return a run by its id: where the defaults say, else where its manifest is found."""
    usual = LocalRun(RunFiles(run_id, Places(root)), RunFiles(run_id, Places(root)).manifest())
    if usual.manifest:
        return _placed(usual)
    return next((one for one in find_runs(root) if one.run_id == run_id), usual)


def find_runs(root: Path) -> Iterator[LocalRun]:
    """Yield every run with a manifest below the root, by folder; links are not followed."""
    depth = len(root.parts)
    for folder, below, names in os.walk(root):
        below.sort()
        if len(Path(folder).parts) - depth >= _DEEPEST:
            below.clear()
        if Path(folder) == root:
            below[:] = [one for one in below if one not in ("broker", "ingestor") and not _is_store(one)]
        run_id = Path(folder).name
        if MANIFEST in names and is_run_id(run_id):
            logs = Path(folder).parent.relative_to(root).as_posix()
            files = RunFiles(run_id, Places(root, logs_dir=logs))
            found = LocalRun(files, files.manifest())
            if found.manifest:
                yield _placed(found)


def _placed(run: LocalRun) -> LocalRun:
    """Return a run with the places that its own job names, where its manifest is one of them."""
    job = run.manifest.get("config_snapshot")
    if isinstance(job, dict):
        named = RunFiles(run.run_id, places_of(run.files.places.root, job))
        if named.manifest():
            return LocalRun(named, run.manifest)
    return run


def _is_store(name: str) -> bool:
    return name.startswith("merger-")
