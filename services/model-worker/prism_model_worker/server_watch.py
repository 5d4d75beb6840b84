"""Is the model server up? One gate per model, opened and closed by what calls and probes see.

Argument. A row may only be blamed for a failed call when the server is known to work. A refused
connection, 429 or 503 says nothing about a row: the gate closes and the task is put back as it was. A
5xx or a timeout is ambiguous: it counts against the row only if the server answered something else after
the same rows had failed before, or while they were being asked; what looks like an outage (a connection
lost in the call, 401, 403, 404, 502) only if after. Otherwise the gate closes, and a canary (one tiny
call) decides: once the canary is answered, the next failure is the row's.
So an outage never fails a row, and a row that breaks a healthy server cannot wait for ever.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from functools import partial

from prism.modelserver.errors import (
    CallTimeout,
    ModelServerError,
    QuotaExhausted,
    ReplyTruncated,
    ServerAway,
    error_type,
)
from prism.modelserver.server import ChatMessage, ChatRequest, ModelDescription, ModelServer
from prism.service.logs import get_logger
from prism_model_worker import metrics

log = get_logger(__name__)

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
# However long a server asks to be left alone: a question about its health costs nobody's quota.
LONGEST_WAIT_S = 300.0
QUIET_S = 3.0
# A model that is pulled anew while the server is up changes unseen for at most so long.
DESCRIBE_S = 10.0
CANARY_CONTEXT = 4096
# A canary may have to wait until its model is loaded, which Ollama breaks off when nobody waits any more.
LONGEST_CANARY_S = 300.0
_CANARY = "Answer with the word ok."


@dataclass(slots=True)
class Gate:
    """Whether calls to one model are let through, and when it last answered."""

    reason: str | None = "not asked yet"
    # Its kind, for the metrics: an `error_type`.
    cause: str = "starting"
    needs_canary: bool = False
    answered_at: float = -1e9
    pause_s: float = FIRST_PAUSE_S
    probe_at: float = 0.0
    described_at: float = -1e9
    # Of the call that made a canary necessary: another context would reload the model.
    num_ctx: int = CANARY_CONTEXT
    # The next canary's deadline; 0: that of a probe. One that may take longer has a thread of its own.
    canary_s: float = 0.0
    probing: bool = False


class ServerWatch:
    """Probes closed gates, and open ones that have been quiet; runs in its own thread.

    An error that nobody foresaw ends the process (`broken`), not in silence the thread.
    """

    def __init__(
        self,
        server: ModelServer,
        clock: Callable[[], float],
        on_open: Callable[[], None],
        probe_deadline_s: float,
    ) -> None:
        self.broken: BaseException | None = None
        self._server = server
        self._clock = clock
        self._on_open = on_open
        self._probe_deadline_s = probe_deadline_s
        self._lock = threading.Lock()
        self._gates: dict[str, Gate] = {}
        self._stop = threading.Event()
        self._kick = threading.Event()
        self._spawn: Callable[[Callable[[], None]], None] = _in_a_thread
        self._descriptions: dict[str, ModelDescription] = {}
        self._thread = threading.Thread(target=self._run, name="server-watch", daemon=True)

    def start(self) -> None:
        """Begin to probe."""
        self._thread.start()

    def close(self) -> None:
        """Stop probing."""
        self._stop.set()
        self._kick.set()
        self._thread.join(timeout=self._probe_deadline_s)

    def watch(self, model: str) -> None:
        """Make sure that a model has a gate."""
        with self._lock:
            if model in self._gates:
                return
            self._gates[model] = Gate()
        self._kick.set()

    def may_call(self, model: str) -> bool:
        """Return whether calls to a model are let through."""
        gate = self._gates.get(model)
        return gate is not None and gate.reason is None

    def answered(self, model: str) -> None:
        """Note that the server answered a call."""
        self._gates[model].answered_at = self._clock()

    def answered_since(self, model: str, moment: float) -> bool:
        """Return whether the server answered anything after a moment."""
        return self._gates[model].answered_at >= moment

    def digest(self, model: str) -> str:
        """Return the model's digest as the server said it last; empty when it says none."""
        known = self._descriptions.get(model)
        return known.digest if known is not None else ""

    def sees_images(self, model: str) -> bool | None:
        """Return whether the model has eyes; None when the server does not say."""
        known = self._descriptions.get(model)
        return known.supports_images if known is not None else None

    def blame(
        self,
        model: str,
        error: ModelServerError,
        needs_canary: bool = False,
        num_ctx: int = CANARY_CONTEXT,
    ) -> None:
        """Close a model's gate because of what a call met; `num_ctx`: the call's."""
        with self._lock:
            gate = self._gates[model]
            gate.num_ctx = num_ctx
            first = gate.reason is None
            gate.reason, gate.cause = _one_line(error), error_type(error)
            # That a quota is free again shows a call alone: one tiny one, not the waiting batches.
            gate.needs_canary = gate.needs_canary or needs_canary or isinstance(error, QuotaExhausted)
            if first:
                gate.pause_s = FIRST_PAUSE_S
                gate.probe_at = self._clock() + max(gate.pause_s, _retry_after(error))
        if first:
            log.warning("model_server_away", model=model, error=error)
        self._kick.set()

    def closed_reason(self, model: str | None = None) -> str | None:
        """Return why nothing can be called: of one model, or of all when every gate is closed."""
        with self._lock:
            gates = dict(self._gates)
        if model is not None:
            return gates[model].reason if model in gates else None
        reasons = [f"{name}: {gate.reason}" for name, gate in gates.items() if gate.reason is not None]
        return "; ".join(reasons) if reasons and len(reasons) == len(gates) else None

    def closed_cause(self, model: str) -> str | None:
        """Return why calls to a model are not let through, as one word; None: they are."""
        with self._lock:
            gate = self._gates.get(model)
            if gate is None:
                return "starting"
            return gate.cause if gate.reason is not None else None

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._probe_due()
            self._kick.wait(pause)
            self._kick.clear()

    def _probe_due(self) -> float:
        now = self._clock()
        with self._lock:
            gates = list(self._gates.items())
        for model, gate in gates:
            quiet = gate.reason is None and now - max(gate.answered_at, gate.probe_at) > QUIET_S
            if gate.probing:
                continue
            if quiet or (gate.reason is not None and now >= gate.probe_at):
                gate.probing = True
                (self._spawn if gate.canary_s else _at_once)(partial(self._probe, model, gate))
            elif gate.reason is None and now - gate.described_at > DESCRIBE_S:
                self._look_at(model, gate)
        due = (gate.probe_at - now for _, gate in gates if gate.reason is not None and not gate.probing)
        return min([FIRST_PAUSE_S, *(max(0.01, one) for one in due)])

    def _probe(self, model: str, gate: Gate) -> None:
        try:
            self._ask(model, gate)
        except BaseException as error:
            self.broken = error
            log.error("server_watch_broken", error=error)
        finally:
            gate.probing = False
            self._kick.set()

    def _ask(self, model: str, gate: Gate) -> None:
        try:
            self._server.assert_model(model)
            if gate.needs_canary:
                self._canary(model, gate)
        except ModelServerError as error:
            with self._lock:
                was_open = gate.reason is None
                gate.reason, gate.cause = _one_line(error), error_type(error)
                gate.pause_s = min(_longest_pause(error), gate.pause_s * 2)
                gate.probe_at = self._clock() + max(gate.pause_s, _retry_after(error))
            if was_open:
                log.warning("model_server_away", model=model, error=error)
            return
        self._opened(model, gate)

    def _opened(self, model: str, gate: Gate) -> None:
        with self._lock:
            was_closed = gate.reason is not None
            canary = gate.needs_canary
            gate.reason, gate.needs_canary, gate.pause_s = None, False, FIRST_PAUSE_S
            gate.canary_s = 0.0
            gate.probe_at = self._clock()
            if canary:
                gate.answered_at = gate.probe_at
        if was_closed:
            self._look_at(model, gate)
            log.info("model_server_ready", model=model, digest=self.digest(model)[:12])
            self._on_open()

    def _look_at(self, model: str, gate: Gate) -> None:
        """Find out what the server says of a model, so that a change in the middle of a run is seen."""
        gate.described_at = self._clock()
        with contextlib.suppress(ModelServerError):  # it is asked again soon
            self._descriptions[model] = self._server.describe(model)

    def _canary(self, model: str, gate: Gate) -> None:
        metrics.CANARIES.inc()
        deadline_s = gate.canary_s or self._probe_deadline_s
        request = ChatRequest(
            model=model,
            messages=(ChatMessage("user", _CANARY),),
            num_ctx=gate.num_ctx,
            num_predict=8,
            deadline_s=deadline_s,
        )
        try:
            self._server.chat(request)
        except ReplyTruncated:
            pass  # a talkative model is cut short, and has answered all the same
        except CallTimeout:
            gate.canary_s = min(2 * deadline_s, LONGEST_CANARY_S)
            raise


def _at_once(work: Callable[[], None]) -> None:
    work()


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="canary", daemon=True).start()


def _retry_after(error: ModelServerError) -> float:
    asked = (error.retry_after_s or 0.0) if isinstance(error, ServerAway) else 0.0
    return min(asked, LONGEST_WAIT_S)


def _longest_pause(error: ModelServerError) -> float:
    return LONGEST_WAIT_S if isinstance(error, QuotaExhausted) else LONGEST_PAUSE_S


def _one_line(error: ModelServerError) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, QuotaExhausted):
        until = f" until {error.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if error.until else ""
        said = f"quota exhausted{until}: {said}"
    return said[:300]
