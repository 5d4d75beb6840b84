"""A dry run's calls: the sampled batches, asked one call at a time as a model worker asks them.

Prompt, deadline, repair, halving and retries are the worker's own (`Answerer`), and so is the watch that
tells a server's outage from a bad row. What differs: nobody waits for a server that is away.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prism.annotation import Problem
from prism.messages import RunRecord
from prism.modelserver import (
    AccessRefused,
    AwayReason,
    Endpoint,
    ModelMissing,
    ModelServer,
    ModelServerError,
    QuotaExhausted,
    ServerAway,
    connect,
)
from prism.runs.forecast import Taken
from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, MODEL_AWAY, CommandFailed
from prism_cli.model_check import failed
from prism_cli.survey import Sampled
from prism_model_worker.answering import Answerer, Deadlines
from prism_model_worker.contexts import RunContext
from prism_model_worker.endpoints import Endpoints, Lease
from prism_model_worker.photos.album import Album
from prism_model_worker.photos.studio import Studio
from prism_model_worker.settings import WorkerSettings, photo_limits
from prism_model_worker.tasks import BatchTask, Group

# Loading a large model is part of the first call.
_LOADING_S = 300.0
# Without progress for so long (a server that is busy, a canary that is not answered) there will be none.
_PATIENCE_S = 30.0
_LOOK_S = 0.05
# A row's pause before its next try grows to a minute and more: nobody else is asked meanwhile.
_LONGEST_PAUSE_S = 5.0
# These do not pass while somebody waits at a terminal.
_FOR_GOOD = (ModelMissing, AccessRefused, QuotaExhausted)
_AWAY = (AwayReason.UNREACHABLE, AwayReason.NOT_ONE)


@dataclass(slots=True)
class _Leave(Lease):
    """Leave for one call that remembers what went wrong."""

    met: ModelServerError | None = None

    def failed(self, error: ModelServerError) -> None:
        self.met = error
        Lease.failed(self, error)  # super() does not know a class with slots


@dataclass(slots=True)
class Outcome:
    """What the calls took, batch by batch. load_seconds: of the first, for loading the model."""

    taken: list[Taken] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    load_seconds: float = 0.0


def open_servers(
    model: str, places: Sequence[Endpoint], timeout_s: float
) -> tuple[list[tuple[str, ModelServer]], str]:
    """Return address and client of each server that has the model, and the model's digest.

    Raises CommandFailed (5, 7) when none has it, with the first one's reason; (3) for a bad address.
    """
    found: list[tuple[str, ModelServer]] = []
    digest = ""
    first: ModelServerError | None = None
    for place in places:
        client = _client(place, timeout_s)
        try:
            digest = client.describe(model).digest or digest
        except ModelServerError as error:
            client.close()
            first = first or error
        else:
            found.append((place.address, client))
    if not found:
        assert first is not None, "a model without a place"
        raise failed(first)
    return found, digest


def _client(place: Endpoint, timeout_s: float) -> ModelServer:
    try:
        # One for the calls, one for the watch.
        return connect(place, pool_size=2, connect_timeout_s=timeout_s, health_timeout_s=timeout_s)
    except ValueError as error:
        raise CommandFailed(BAD_INPUT, str(error), next="correct the address or the key") from None


class Trial:
    """Asks a run's batches. `close` must be called; it closes the clients too."""

    def __init__(
        self,
        record: RunRecord,
        model: str,
        servers: Sequence[tuple[str, ModelServer]],
        settings: WorkerSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.outcome = Outcome()
        self._clock = clock
        self._sleep = sleep
        self._opened = threading.Event()
        self._studio = Studio(photo_limits(settings))
        self._endpoints = Endpoints(
            lambda _: servers, clock, self._opened.set, settings.health_timeout_s, cap=1
        )
        self.context = RunContext.of(record, model, self._endpoints.group)
        self._endpoints.watch(self.context.servers, model)
        album = Album(self._studio, settings.photo_dir or settings.data_dir, photo_limits(settings))
        self._answerer = Answerer(Deadlines(settings.request_timeout_s), clock, album=album)
        patient = Deadlines(max(settings.request_timeout_s, _LOADING_S))
        self._first_answerer = Answerer(patient, clock, album=album)
        self._answered = False
        self._met: ModelServerError | None = None
        self._moved_at = clock()

    def close(self) -> None:
        """Stop watching, and close what was opened."""
        self._endpoints.close()
        self._studio.close()

    def ask(self, one: Sampled) -> None:
        """Ask a batch's rows until each has an outcome. Raises CommandFailed (5, 7, or 1 for neither)."""
        task = BatchTask.of(one.batch, self.context, 0, 0, self.context.record.epoch)
        task.pending = deque([Group(one.asked)])
        seconds = 0.0
        self._moved_at = self._clock()
        while not task.done:
            seconds += self._step(task)
        self._note(task, one, seconds)

    def _step(self, task: BatchTask) -> float:
        """Make one call; return the seconds that it took, 0 for one that does not count."""
        leave = self._leave()
        calls, loading = task.calls, task.load_seconds
        started = self._clock()
        pause_s = (self._answerer if self._answered else self._first_answerer).step(task, leave)
        now = self._clock()
        if leave.met is not None:
            self._met = leave.met
            _raise_if_for_good(leave.met)
        if pause_s:
            self._sleep(min(pause_s, _LONGEST_PAUSE_S))
        if task.calls == calls:
            return 0.0
        self._moved_at = self._clock()
        if self._answered or leave.met is not None:
            return now - started
        self._answered = True
        self.outcome.load_seconds = task.load_seconds - loading
        return max(0.0, now - started - self.outcome.load_seconds)

    def _leave(self) -> _Leave:
        """Return leave for one call, once a server is up and has room."""
        servers, model = self.context.servers, self.context.model
        while True:
            if self._clock() - self._moved_at > _PATIENCE_S:
                raise self._vain()
            lease = servers.acquire(model)
            if lease is not None:
                return _Leave(lease.endpoint, lease.model, lease.permit)
            self._opened.wait(_LOOK_S)
            self._opened.clear()

    def _vain(self) -> CommandFailed:
        if self._met is not None:
            return failed(self._met)
        reason = self.context.servers.closed_reason(self.context.model) or "no call could be made"
        return CommandFailed(MODEL_AWAY, printable(reason), f"for {_PATIENCE_S:.0f} s", "prism models check")

    def _note(self, task: BatchTask, one: Sampled, seconds: float) -> None:
        problems = [outcome for index in one.asked if isinstance(outcome := task.outcomes[index], Problem)]
        self.outcome.failed.update(problem.reason.value for problem in problems)
        self.outcome.taken.append(
            Taken(
                rows=len(one.asked),
                characters=one.characters,
                calls=task.calls,
                prompt_tokens=task.prompt_tokens,
                completion_tokens=task.completion_tokens,
                seconds=seconds,
                failed=len(problems),
            )
        )


def _raise_if_for_good(error: ModelServerError) -> None:
    if isinstance(error, _FOR_GOOD) or (isinstance(error, ServerAway) and error.reason in _AWAY):
        raise failed(error)
