"""Extra model calls of killed workers: an upper bound, from the last heartbeat of each.

A session that ends without `stopped` had calls in flight whose answers nobody may have seen; those batches
are called again elsewhere. The bound for a run is the batches of it in the last heartbeat, or all that the
worker may have in flight, whichever is more: the heartbeat is up to a second old. A session is counted
once; the store remembers. A worker that was only stopped for a while stays counted: it is an upper bound.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prism.messages import BadMessage, Heartbeat, WorkerState
from prism.messages.fleet import HEARTBEAT_EXPIRY_SECONDS

_MOST_REPLACED = 1000


@dataclass(frozen=True, slots=True)
class Loss:
    """One session that ended without saying so; `calls` by run."""

    worker_id: str
    session: str
    calls: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sign:
    """A session's last heartbeat; `lives`: it is not silent, and no other session has taken its place."""

    heartbeat: Heartbeat
    lives: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    heartbeat: Heartbeat
    at: float


@dataclass(slots=True)
class Workers:
    """The last heartbeat of each worker. `wall_clock` is compared with the records' timestamps."""

    wall_clock: Callable[[], float]
    _last: dict[str, _Seen] = field(default_factory=dict)
    _lost: list[Loss] = field(default_factory=list)
    _replaced: deque[Heartbeat] = field(default_factory=lambda: deque(maxlen=_MOST_REPLACED))

    def apply(self, key: str, value: bytes | None, timestamp_ms: int) -> None:
        """Take in one record of `prism.workers`; what is none is ignored."""
        if value is None:
            self._last.pop(key, None)
            return
        try:
            heartbeat = Heartbeat.parse(value)
        except BadMessage:
            return
        before = self._last.get(key)
        if before is not None and before.heartbeat.session != heartbeat.session:
            self._lost.extend(_loss_of(before.heartbeat))
            self._replaced.append(before.heartbeat)
        self._last[key] = _Seen(heartbeat, timestamp_ms / 1000)

    def signs(self) -> list[Sign]:
        """Return each session's last heartbeat, of those that were replaced since the last call too."""
        replaced = [Sign(one, lives=False) for one in self._replaced]
        self._replaced.clear()
        now = self.wall_clock()
        return replaced + [
            Sign(one.heartbeat, lives=now - one.at <= HEARTBEAT_EXPIRY_SECONDS) for one in self._last.values()
        ]

    def losses(self) -> list[Loss]:
        """Return the sessions that ended since the last call, or fell silent."""
        found, self._lost = self._lost, []
        now = self.wall_clock()
        for key, seen in list(self._last.items()):
            if now - seen.at > HEARTBEAT_EXPIRY_SECONDS:
                del self._last[key]
                found.extend(_loss_of(seen.heartbeat))
        return found


def _loss_of(heartbeat: Heartbeat) -> Iterator[Loss]:
    if heartbeat.state is WorkerState.STOPPED or not heartbeat.in_flight:
        return
    batches = Counter(one.split("/", 1)[0] for one in heartbeat.in_flight)
    calls = {run_id: max(count, heartbeat.limit) for run_id, count in batches.items()}
    session = heartbeat.session or f"{heartbeat.worker_id}@{heartbeat.started_at}"
    yield Loss(heartbeat.worker_id, session, calls)
