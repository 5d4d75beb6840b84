"""The model servers that a worker may call: which is up, which has room, and which is asked next.

    task ─► ServerGroup.acquire ─► Lease (a server, a permit) ─► one call ─► lease settled, once

Argument. Each server has a gate per model (`ServerWatch`: is it up?) and a limit of its own
(`ConcurrencyLimit`: how much can it take?), shared by all that call it, bulk and requests. A permit is
taken before a task leaves the queue, so nothing waits for room with rows in its hands, and a caller gives
it back when its call ends, however it ends. Of several servers for one model the one with the largest free
share is asked; one that is away is left out, and its watch tries it again.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prism.modelserver.errors import AwayReason, CallTimeout, ModelServerError, ServerAway
from prism.modelserver.server import ChatReply, ChatRequest, ModelDescription, ModelInfo, ModelServer
from prism.runs.catalogue import ModelEntry
from prism.service.logs import get_logger
from prism_model_worker.blame import is_refusal
from prism_model_worker.concurrency import ConcurrencyLimit, Permit
from prism_model_worker.measurement import MeasuredServer
from prism_model_worker.server_watch import CANARY_CONTEXT, ServerWatch

log = get_logger(__name__)

# Returns the address of each server of an entry, and a client for it. Raises ModelServerError, and ValueError
# for an address that is none.
Connect = Callable[[ModelEntry], Sequence[tuple[str, ModelServer]]]


class Endpoint:
    """One model server: its client, whether it is up, and how much it can take."""

    def __init__(
        self,
        url: str,
        server: ModelServer,
        clock: Callable[[], float],
        on_open: Callable[[], None],
        probe_deadline_s: float,
        cap: int | None,
        provider: str = "ollama",
    ) -> None:
        """`provider`: OpenTelemetry's `gen_ai.provider.name`."""
        self.url = url
        self.provider = provider
        self.server = MeasuredServer(server, provider)
        self.watch = ServerWatch(self.server, clock, on_open, probe_deadline_s)
        self.limit = ConcurrencyLimit(clock, cap)

    @property
    def free_share(self) -> float:
        """Share of the limit that is not in use."""
        return 1 - self.limit.in_flight / max(1, self.limit.limit)


@dataclass(slots=True)
class Lease:
    """Leave for one call to one server. Ends with exactly one of its methods; later ones do nothing."""

    endpoint: Endpoint
    model: str
    permit: Permit | None

    @property
    def server(self) -> ModelServer:
        """The server's client."""
        return self.endpoint.server

    @property
    def watch(self) -> ServerWatch:
        """The server's gates."""
        return self.endpoint.watch

    def answered(self, work: float) -> None:
        """The call was answered; `work`: its rows."""
        permit = self._end()
        if permit is not None:
            self.endpoint.limit.answered(permit, work)
        self.watch.answered(self.model)

    def failed(self, error: ModelServerError) -> None:
        """The call was not answered. Tells the limit only: the caller knows whether to close the gate."""
        permit = self._end()
        if permit is None:
            return
        if is_refusal(error):
            self.endpoint.limit.refused(permit, getattr(error, "retry_after_s", None))
        else:
            self.endpoint.limit.failed(permit, timed_out=isinstance(error, CallTimeout))

    def unused(self) -> None:
        """No call was made."""
        permit = self._end()
        if permit is not None:
            self.endpoint.limit.failed(permit)

    def close_gate(
        self, error: ModelServerError, needs_canary: bool = False, num_ctx: int = CANARY_CONTEXT
    ) -> None:
        """Let no call through until the server's watch has seen it work."""
        self.watch.blame(self.model, error, needs_canary, num_ctx)

    def _end(self) -> Permit | None:
        permit, self.permit = self.permit, None
        return permit


class NoServer:
    """Stands where a server cannot even be asked: whatever one asks, the answer is why."""

    def __init__(self, error: ModelServerError) -> None:
        self._error = error

    def chat(self, _request: ChatRequest) -> ChatReply:
        raise self._error

    def version(self) -> str:
        raise self._error

    def models(self) -> list[ModelInfo]:
        raise self._error

    def assert_model(self, _name: str) -> None:
        raise self._error

    def describe(self, _name: str) -> ModelDescription:
        raise self._error

    def close(self) -> None:
        return None


class ServerGroup:
    """The servers of one entry."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)

    def watch(self, model: str) -> None:
        """Make sure that each server is asked whether it has the model."""
        for one in self.endpoints:
            one.watch.watch(model)

    def may_call(self, model: str) -> bool:
        """Return whether any server lets calls through."""
        return any(one.watch.may_call(model) for one in self.endpoints)

    def acquire(self, model: str, urgent: bool = False) -> Lease | None:
        """Return leave for one call, if any server is up and has room now. urgent: somebody waits for it."""
        up = [one for one in self.endpoints if one.watch.may_call(model)]
        for one in sorted(up, key=lambda one: -one.free_share) if len(up) > 1 else up:
            permit = one.limit.try_acquire(urgent)
            if permit is not None:
                return Lease(one, model, permit)
        return None

    def wait_hint_s(self, model: str, urgent: bool = False) -> float | None:
        """Seconds until there may be room by time alone; None: only when a call ends or a gate opens."""
        hints = [one.limit.wait_hint_s(urgent) for one in self.endpoints if one.watch.may_call(model)]
        known = [one for one in hints if one is not None]
        return min(known) if known else None

    def out_of_quota(self, model: str) -> bool:
        """Return whether the model cannot be called, and that for a used-up quota alone."""
        return {one.watch.closed_cause(model) for one in self.endpoints} == {"quota"}

    def closed_reason(self, model: str) -> str | None:
        """Return why the model cannot be called at any of its servers."""
        if self.may_call(model):
            return None
        reasons = dict.fromkeys(one.watch.closed_reason(model) or "" for one in self.endpoints)
        return "; ".join(reason for reason in reasons if reason) or None


class Endpoints:
    """All servers that a worker knows, made when a run first names them. Any thread may ask."""

    def __init__(
        self,
        connect: Connect,
        clock: Callable[[], float],
        on_open: Callable[[], None],
        probe_deadline_s: float,
        cap: int | None,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._on_open = on_open
        self._probe_deadline_s = probe_deadline_s
        self._cap = cap
        self._lock = threading.Lock()
        self._groups: dict[tuple[object, ...], ServerGroup] = {}
        self._known: dict[tuple[object, ...], Endpoint] = {}
        self._watched: set[tuple[ServerGroup, str]] = set()

    def group(self, entry: ModelEntry) -> ServerGroup:
        """Return the servers of an entry; those that two entries share are the same."""
        key = (
            entry.backend,
            entry.base_url,
            entry.api_key_env,
            entry.context_length,
            entry.supports_schema,
        )
        with self._lock:
            if key not in self._groups:
                # Without an address of its own an entry is answered by the worker's Ollama.
                provider = entry.backend if entry.base_url else "ollama"
                self._groups[key] = ServerGroup(
                    [self._endpoint((*key, url), url, one, provider) for url, one in self._servers(entry)]
                )
            return self._groups[key]

    def _servers(self, entry: ModelEntry) -> Sequence[tuple[str, ModelServer]]:
        try:
            return self._connect(entry)
        except ModelServerError as error:
            reason = error
        except ValueError as error:
            advice = "correct it, and send the run again"
            reason = ServerAway(str(error), "models.json", advice, reason=AwayReason.NOT_ONE)
        # The runs of this model wait, and say why; the others go on.
        log.warning("no_model_server", model=entry.name, error=reason)
        return [("", NoServer(reason))]

    def _endpoint(self, key: tuple[object, ...], url: str, server: ModelServer, provider: str) -> Endpoint:
        if key not in self._known:
            made = Endpoint(
                url, server, self._clock, self._on_open, self._probe_deadline_s, self._cap, provider
            )
            made.watch.start()
            self._known[key] = made
        return self._known[key]

    def watch(self, group: ServerGroup, model: str) -> None:
        """Begin to ask a group's servers for a model."""
        with self._lock:
            self._watched.add((group, model))
        group.watch(model)

    @property
    def limit(self) -> int:
        """Most calls at once now, over all servers."""
        return sum(one.limit.limit for one in list(self._known.values()))

    @property
    def in_flight(self) -> int:
        """Calls that are under way, over all servers."""
        return sum(one.limit.in_flight for one in list(self._known.values()))

    def closed_causes(self, model: str) -> list[str | None]:
        """Return for each server of a model why it is not called, as one word; None: it is."""
        with self._lock:
            groups = [group for group, watched in self._watched if watched == model]
        return [one.watch.closed_cause(model) for group in groups for one in group.endpoints]

    def closed_reason(self) -> str | None:
        """Return why nothing can be called: of all models that are watched none can."""
        with self._lock:
            watched = list(self._watched)
        reasons = [(model, group.closed_reason(model)) for group, model in watched]
        if not reasons or any(reason is None for _, reason in reasons):
            return None
        return "; ".join(f"{model}: {reason}" for model, reason in reasons)

    @property
    def broken(self) -> BaseException | None:
        """What ended a watch."""
        return next((one.watch.broken for one in list(self._known.values()) if one.watch.broken), None)

    def starved_reason(self) -> str | None:
        """Return which servers refuse every single call, if none takes any."""
        known = list(self._known.values())
        if not known or not all(one.limit.starved for one in known):
            return None
        return "the model server is busy: it refuses even a single call"

    def urls(self) -> list[str]:
        """Return the servers' addresses."""
        return [one.url for one in list(self._known.values())]

    def close(self) -> None:
        """Stop watching and close the clients."""
        for one in list(self._known.values()):
            one.watch.close()
            one.server.close()
