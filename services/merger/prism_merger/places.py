"""Where the files lie that the merger writes for people: in the folders that a job names, below one root."""

from dataclasses import dataclass, replace
from pathlib import Path

from prism.runs.job import Job
from prism.runs.naming import part_name


@dataclass(frozen=True, slots=True)
class Places:
    """The names of everything that is written for people. `root` is absolute; the folders lie below it."""

    root: Path
    ordinal: int = 0
    output_dir: str = "output"
    checkpoints_dir: str = "checkpoints"
    logs_dir: str = "logs"
    status_dir: str = "status"

    def of(self, job: Job) -> "Places":
        """Return the places of a job's runs."""
        return replace(
            self,
            output_dir=self.output_dir if job.output.uri else job.output.directory,
            checkpoints_dir=job.output.checkpoints.directory,
            logs_dir=job.monitoring.logs_dir,
            status_dir=job.monitoring.status_dir,
        )

    @property
    def outputs(self) -> Path:
        return self.root / self.output_dir

    def output(self, name: str) -> Path:
        """Return the path of a published file."""
        return self.outputs / name

    def temporary_output(self, run_id: str, label: str, form: str = "csv") -> Path:
        """Return where an output is written before it gets its name; the ordinal keeps mergers apart."""
        form = "" if form == "csv" else f"{form}."
        return self.outputs / f".{run_id}.{label}.{self.ordinal}.{form}tmp"

    def part(self, run_id: str, label: str, number: int) -> Path:
        """Return the path of a part file, counted from 1."""
        return self.root / self.checkpoints_dir / run_id / part_name(run_id, label, number)

    def logs(self, run_id: str) -> Path:
        """Return the folder of what is told of a run: manifest, failures, summary."""
        return self.root / self.logs_dir / run_id

    def manifest(self, run_id: str) -> Path:
        """Return the path of a run's manifest."""
        return self.logs(run_id) / "run_manifest.json"

    def failed_ranges(self, run_id: str) -> Path:
        """Return the path of the list of rows without values."""
        return self.logs(run_id) / "failed_ranges.json"

    def run_log(self, run_id: str) -> Path:
        """Return the path of the log of a run's events."""
        return self.logs(run_id) / f"run_{run_id}.log"

    def failed_rows(self, run_id: str, label: str, alone: bool) -> Path:
        """Return the path of a file's failed rows as they came; `alone`: the run has no other file."""
        return self.logs(run_id) / ("failed_rows.csv" if alone else f"failed_rows_{label}.csv")

    def summary(self, run_id: str) -> Path:
        """Return the path of the run's account in words."""
        return self.logs(run_id) / f"summary_{run_id}.md"

    def analytics(self, run_id: str) -> Path:
        """Return the path of the run's figures as a table."""
        return self.logs(run_id) / f"analytics_{run_id}.csv"

    def report(self, run_id: str) -> Path:
        """Return the path of the run's page of plots."""
        return self.logs(run_id) / f"report_{run_id}.html"

    def disagreements(self, run_id: str) -> Path:
        """Return the path of the rows on which a run's models differ."""
        return self.logs(run_id) / "disagreements.csv"

    def reports(self, run_id: str) -> list[Path]:
        """Return the paths of summary, analytics and report."""
        return [self.summary(run_id), self.analytics(run_id), self.report(run_id)]

    def status(self, run_id: str) -> Path:
        """Return the folder of the workers' status files."""
        return self.root / self.status_dir / run_id

    def worker_status(self, run_id: str, number: int) -> Path:
        """Return the path of one worker's status file, counted from 1."""
        return self.status(run_id) / f"worker_{number}.json"

    def relative(self, path: Path) -> str:
        """Return a path as messages and manifests name it."""
        return path.relative_to(self.root).as_posix()
