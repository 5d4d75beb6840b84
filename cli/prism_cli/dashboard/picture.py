"""What one look shows, worked out: no terminal, no clock, no topic."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from prism.messages import Heartbeat, RunState, WorkerState
from prism.messages.fleet import RunShare
from prism.runs.catalogue import CatalogueRefused, ModelEntry
from prism.runs.costs import cost_of
from prism.runs.job import Job, JobRefused, parse_job
from prism.runs.models import entries
from prism_cli.board import RunView, WorkerView
from prism_cli.dashboard.history import MERGER_SILENT_S, Event

# Numbers stand still for at most so long, where the job names no `monitoring.dashboard_refresh`: with the
# way of a count through the topics it stays below a second.
REFRESH_S = 0.5
_LEAST_REFRESH_S = 0.1


@dataclass(frozen=True)
class Picture:
    """One look. `rates`: rows/s, the latest last; `away_s`: since when the broker is silent, if it is;
    `unsure`: nobody was heard, and it may be the broker's fault.

    `folder`: the fleet's data folder as this machine knows it; `notice`: what came of the last key.
    """

    run_id: str
    view: RunView | None
    now: datetime
    workers: tuple[WorkerView, ...] = ()
    events: tuple[Event, ...] = ()
    rates: tuple[float, ...] = ()
    away_s: float | None = None
    unsure: bool = False
    merger_silent_s: float = 0.0
    folder: Path = field(default_factory=lambda: Path("prism-data"))
    notice: str = ""

    @cached_property
    def job(self) -> Job:
        """The run's job; an empty one if a newer version wrote it."""
        try:
            return parse_job(self.view.record.job if self.view else {})
        except JobRefused:
            return Job()

    @cached_property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The models' prices; none where nobody can read them."""
        if self.view is None:
            return ()
        try:
            return entries(self.view.record, self.job)
        except CatalogueRefused:
            return ()

    @property
    def refresh_s(self) -> float:
        """The most seconds between two drawings of the numbers."""
        return refresh_of(self.view)

    @property
    def model(self) -> str:
        """The models' names: the job's, else the workers'."""
        named = [one.name for one in self.entries if one.name != "-"]
        asked = {one.heartbeat.model for one in self.workers} - {""}
        return ", ".join(named or sorted(asked))

    @property
    def living(self) -> list[Heartbeat]:
        """What the workers say that still speak."""
        return [one.heartbeat for one in self.workers if not one.lost]

    @property
    def paused(self) -> bool:
        return self.view is not None and self.view.state is RunState.PAUSED

    @property
    def ended(self) -> bool:
        return self.view is not None and self.view.ended

    @property
    def in_flight(self) -> int:
        """Batches of this run that workers have in hand."""
        return sum(one.startswith(f"{self.run_id}/") for beat in self.living for one in beat.in_flight)

    @property
    def elapsed_s(self) -> float | None:
        """Seconds since the run was accepted, until now or its end."""
        if self.view is None:
            return None
        began = moment(self.view.record.created_at)
        until = moment(self.view.record.updated_at) if self.view.ended else self.now
        return max(0.0, (until - began).total_seconds()) if began and until else None

    @property
    def tokens_per_row(self) -> float | None:
        return self.view.tokens / self.view.rows_done if self.view and self.view.rows_done else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of the run per second: its rows' speed in tokens."""
        if self.view is None or self.tokens_per_row is None:
            return None
        return self.view.rows_per_s * self.tokens_per_row

    @property
    def retries(self) -> int:
        """Calls about rows that had been asked about before."""
        return self.view.progress.repeated_calls if self.view else 0

    @property
    def cost(self) -> tuple[Decimal, str] | None:
        """What the tokens cost, and the currency; None without a price."""
        if self.view is None or not self.entries:
            return None
        found = cost_of(self.entries, self.view.progress, self.view.progress.models)
        return (found.amount, found.currency) if found is not None else None

    @property
    def merger_silent(self) -> bool:
        return not self.ended and self.merger_silent_s > MERGER_SILENT_S

    def share(self, worker: WorkerView) -> RunShare:
        """Return what a worker has done of this run; of all runs, for a worker that tells no more."""
        beat = worker.heartbeat
        if beat.runs:
            return beat.runs.get(self.run_id) or RunShare()
        return RunShare(
            rows=beat.rows_processed,
            failed=beat.errors,
            calls=beat.api_calls,
            tokens=beat.tokens_total,
            tokens_per_sec=beat.tokens_per_sec,
        )

    @property
    def servers(self) -> list["Server"]:
        """The model servers as their workers find them, those in trouble first."""
        found: dict[tuple[str, str], list[Heartbeat]] = {}
        for beat in self.living:
            found.setdefault((beat.model_server, beat.model), []).append(beat)
        servers = [_server(self.run_id, *place, beats) for place, beats in found.items()]
        return sorted(servers, key=lambda one: (one.trouble is None, one.address, one.model))

    @property
    def failed_ranges(self) -> str:
        """Where `failed_ranges.json` will be."""
        return str(self.folder / "logs" / self.run_id / "failed_ranges.json")


@dataclass(frozen=True, slots=True)
class Server:
    """A model server: how many workers use it, for how many batches, and what is wrong with it."""

    address: str
    model: str
    workers: int
    batches: int
    trouble: str | None


def _server(run_id: str, address: str, model: str, beats: list[Heartbeat]) -> Server:
    waiting = [one.reason or "no answer" for one in beats if one.state is WorkerState.WAITING]
    waiting += [one.waiting[run_id] for one in beats if run_id in one.waiting]
    batches = sum(len(one.in_flight) for one in beats)
    return Server(address, model, len(beats), batches, waiting[0] if waiting else None)


def refresh_of(view: RunView | None) -> float:
    """Return the seconds between two drawings: `monitoring.dashboard_refresh` if the job says it."""
    said = view.record.job.get("monitoring") if view is not None else None
    try:
        wanted = parse_job({"monitoring": said}).monitoring.dashboard_refresh
    except (JobRefused, ValidationError):
        return REFRESH_S
    return REFRESH_S if wanted is None else max(_LEAST_REFRESH_S, wanted)


def moment(text: str) -> datetime | None:
    """Return a timestamp of a message; None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)
