"""What the dashboard remembers between two looks: what happened, and how the speed went.

The topics say how things are; that a worker fell silent, that a run stalled, that rows failed since the last
look, only whoever looked before can say. Silence is measured by this machine's clock, from when something new
came: the clocks of others may be wrong.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prism.messages import RunState, WorkerState
from prism.messages.fleet import HEARTBEAT_EXPIRY_SECONDS
from prism_cli.board import RunView, WorkerView
from prism_cli.dashboard.amounts import plural

_MOST_EVENTS = 200
_MOST_RATES = 240
_RATE_S = 1.0
# The merger speaks once a second.
MERGER_SILENT_S = 6.0
# After an outage everything that was heard is old; give everybody the time to speak.
_RECOVERY_S = HEARTBEAT_EXPIRY_SECONDS + 2.0
# In a fleet that lives something comes each second; what is silent for longer may be the broker, for which
# its client needs this long to say so.
_QUIET_S, _CERTAIN_S = 3.0, 10.0
# A file that lies there this long with nobody to take it up is worth a word.
_PATIENCE_S = 10.0

GOOD, NEUTRAL, WARNING, BAD = "green", "cyan", "yellow", "red"
_STATE_STYLES = {
    RunState.COMPLETED: GOOD,
    RunState.COMPLETED_WITH_FAILURES: WARNING,
    RunState.PAUSED: WARNING,
    RunState.CANCELLED: WARNING,
    RunState.REFUSED: BAD,
    RunState.FAILED: BAD,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `key`: a later event of the same key takes this one's place."""

    at: datetime
    text: str
    style: str = NEUTRAL
    key: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the topics showed.

    `at_s`: a steady clock; `quiet_s`: for how long nothing at all came; `away`: the broker does not answer.
    """

    at: datetime
    at_s: float
    view: RunView | None
    workers: tuple[WorkerView, ...] = ()
    quiet_s: float = 0.0
    away: bool = False

    @property
    def unsure(self) -> bool:
        """Whether a silence may be the broker's: it takes some seconds until its client says so."""
        return self.away or _QUIET_S < self.quiet_s < _CERTAIN_S


@dataclass(slots=True)
class _Known:
    """One worker as it was last seen."""

    session: str
    lost: bool
    reason: str | None
    waits_for_run: str | None
    errors: int


@dataclass(slots=True)
class History:
    """Takes looks, tells what changed. Not thread-safe: whoever looks owns it."""

    events: deque[Event] = field(default_factory=lambda: deque(maxlen=_MOST_EVENTS))
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_RATES))
    away_since: float | None = None
    merger_silent_s: float = 0.0
    _news: int = 0
    _state: RunState | None = None
    _stalled: str | None = None
    _detail: str | None = None
    _failed: dict[str, int] = field(default_factory=dict)
    _workers: dict[str, _Known] | None = None
    _began: float | None = None
    _told_waiting: bool = False
    _back_at: float = float("-inf")
    _rated_at: float = float("-inf")
    _progress: tuple[str, float] = ("", 0.0)
    _merger_told: bool = False

    def take(self, look: Look) -> bool:
        """Remember a look; return whether something happened that a person should see at once."""
        if self._began is None:
            self._began = look.at_s
        before = self._news
        self._take_broker(look)
        if not look.away:
            self._take_run(look)
        if not look.unsure:
            self._take_workers(look)
        return self._news != before

    def newest_first(self) -> tuple[Event, ...]:
        """Return what happened."""
        return tuple(reversed(self.events))

    def note(self, at: datetime, text: str, style: str = NEUTRAL, key: str = "") -> None:
        """Remember that something happened. What has a key counts up, and can wait for the next drawing."""
        if key:
            said = [one for one in self.events if one.key == key]
            for one in said:
                self.events.remove(one)
        else:
            self._news += 1
        self.events.append(Event(at, text, style, key))

    def away_s(self, at_s: float) -> float | None:
        """Return for how long the broker has not answered; None while it does."""
        return None if self.away_since is None else max(0.0, at_s - self.away_since)

    def _take_broker(self, look: Look) -> None:
        if look.away and self.away_since is None:
            self.away_since = look.at_s - look.quiet_s
            self.note(look.at, "the broker does not answer; waiting for it", BAD)
        elif not look.away and self.away_since is not None:
            self.away_since, self._back_at = None, look.at_s
            self._progress = (self._progress[0], look.at_s)
            self.note(look.at, "the broker is back", GOOD)

    def _take_run(self, look: Look) -> None:
        view = look.view
        if view is None:
            self._take_absence(look)
            return
        if view.state is not self._state:
            self._state = view.state
            self.note(
                look.at, f"the run is {_state_words(view.state)}", _STATE_STYLES.get(view.state, NEUTRAL)
            )
        self._take_stall(look, view)
        self._take_failures(look, view)
        self._take_progress(look, view)

    def _take_absence(self, look: Look) -> None:
        waited = look.at_s - (self._began or 0.0)
        if waited > _PATIENCE_S and not self._told_waiting:
            self._told_waiting = True
            self.note(look.at, "nobody has taken the run up; is an ingestor running? prism doctor", WARNING)

    def _take_stall(self, look: Look, view: RunView) -> None:
        stalled = None if view.ended else view.record.stalled
        if stalled != self._stalled:
            text, style = (f"stalled: {stalled}", BAD) if stalled else ("it moves again", GOOD)
            if stalled or not view.ended:
                self.note(look.at, text, style)
            self._stalled = stalled
        detail = view.progress.detail
        if detail != self._detail:
            if detail and detail != stalled:
                self.note(look.at, detail, WARNING)
            self._detail = detail

    def _take_failures(self, look: Look, view: RunView) -> None:
        for reason, number in view.progress.failed_by_reason.items():
            if number > self._failed.get(reason, 0):
                self.note(
                    look.at, f"{plural(number, 'row')} failed as {reason}", WARNING, key=f"failed/{reason}"
                )
        self._failed = dict(view.progress.failed_by_reason)

    def _take_progress(self, look: Look, view: RunView) -> None:
        if look.at_s - self._rated_at >= _RATE_S and not view.ended:
            self._rated_at = look.at_s
            self.rates.append(view.progress.rows_per_s)
        updated = view.progress.updated_at
        if updated != self._progress[0] or view.ended or not updated:
            self._progress = (updated, look.at_s)
            if self._merger_told:
                self._merger_told = False
                self.note(look.at, "the merger is back", GOOD)
        self.merger_silent_s = 0.0 if look.unsure else look.at_s - self._progress[1]
        if self.merger_silent_s > MERGER_SILENT_S and not self._merger_told:
            self._merger_told = True
            self.note(look.at, "the merger has fallen silent: the counts stand still", BAD)

    def _take_workers(self, look: Look) -> None:
        if look.at_s - self._back_at < _RECOVERY_S:
            return
        run_id = look.view.run_id if look.view else ""
        seen = {one.heartbeat.worker_id: one for one in look.workers}
        known = self._workers
        if known is None:
            known = self._workers = {}
            for name, worker in seen.items():
                known[name] = _known(worker, run_id)
                self._take_first(look, name, known[name])
            return
        for name in [one for one in known if one not in seen]:
            del known[name]
            self.note(look.at, f"{name} has stopped")
        for name, worker in seen.items():
            self._take_worker(look, name, known.get(name), _known(worker, run_id))
            known[name] = _known(worker, run_id)

    def _take_first(self, look: Look, name: str, now: _Known) -> None:
        if now.lost:
            self.note(look.at, f"{name} is silent", BAD)
        elif now.reason:
            self.note(look.at, f"{name} waits: {now.reason}", WARNING)

    def _take_worker(self, look: Look, name: str, before: _Known | None, now: _Known) -> None:
        if before is None:
            self.note(look.at, f"{name} has joined", GOOD)
        elif now.lost != before.lost:
            text, style = (f"{name} has fallen silent", BAD) if now.lost else (f"{name} is back", GOOD)
            self.note(look.at, text, style)
        elif now.session != before.session:
            self.note(look.at, f"{name} was started anew", WARNING)
        elif now.reason != before.reason and not now.lost:
            text = f"{name} waits: {now.reason}" if now.reason else f"{name} goes on"
            self.note(look.at, text, WARNING if now.reason else GOOD)
        elif now.waits_for_run != before.waits_for_run and not now.lost and now.waits_for_run:
            self.note(look.at, f"{name} gets no answer for this run: {now.waits_for_run}", WARNING)


def silent_workers(workers: Sequence[WorkerView]) -> int:
    """Return how many have not been heard of for too long."""
    return sum(one.lost for one in workers)


def _known(worker: WorkerView, run_id: str) -> _Known:
    beat = worker.heartbeat
    reason = beat.reason if beat.state is WorkerState.WAITING else None
    return _Known(beat.session, worker.lost, reason, beat.waiting.get(run_id), beat.errors)


def _state_words(state: RunState) -> str:
    return state.value.replace("_", " ")
