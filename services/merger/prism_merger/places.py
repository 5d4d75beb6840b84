"""Where the merger's files lie in the data folder."""

from dataclasses import dataclass
from pathlib import Path

from prism.runs.naming import part_name


@dataclass(frozen=True, slots=True)
class Places:
    """The names of everything that is written for people. `data_dir` is absolute."""

    data_dir: Path
    ordinal: int = 0

    @property
    def outputs(self) -> Path:
        return self.data_dir / "output"

    def output(self, name: str) -> Path:
        """Return the path of a published file."""
        return self.outputs / name

    def temporary_output(self, run_id: str, label: str) -> Path:
        """Return where an output is written before it gets its name; the ordinal keeps mergers apart."""
        return self.outputs / f".{run_id}.{label}.{self.ordinal}.tmp"

    def part(self, run_id: str, label: str, number: int) -> Path:
        """Return the path of a part file, counted from 1."""
        return self.data_dir / "checkpoints" / run_id / part_name(run_id, label, number)

    def manifest(self, run_id: str) -> Path:
        """Return the path of a run's manifest."""
        return self.data_dir / "logs" / run_id / "run_manifest.json"

    def failed_ranges(self, run_id: str) -> Path:
        """Return the path of the list of rows without values."""
        return self.data_dir / "logs" / run_id / "failed_ranges.json"

    def relative(self, path: Path) -> str:
        """Return a path as messages and manifests name it."""
        return path.relative_to(self.data_dir).as_posix()
