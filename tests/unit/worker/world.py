"""A run, batches of it, and a model server that does as it is told."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from prism.messages import Batch, BatchRow, MessageSource, RunFile, RunRecord, RunState
from prism.modelserver.errors import ModelServerError
from prism.modelserver.server import ChatReply, ChatRequest, ModelDescription, ModelInfo
from prism_model_worker.answering import Answerer, Deadlines
from prism_model_worker.contexts import RunContext
from prism_model_worker.endpoints import Endpoint, Lease, ServerGroup
from prism_model_worker.tasks import BatchTask

MODEL = "m"
PROMPT = {
    "system_prompt": "Classify.",
    "columns_to_code": ["Mood"],
    "validation_rules": {"valid_moods": ["good", "bad"]},
    "strict": True,
}
# What a scripted server does with one call, given the row ids: a reply's text, or an error to raise.
Script = Callable[[Sequence[str], ChatRequest], str | ModelServerError]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run_record(state: RunState = RunState.RUNNING, **model: str) -> RunRecord:
    return RunRecord(
        run_id="r",
        epoch=1,
        state=state,
        job_name="feedback",
        job={"model": {"delay": "1", "retries": "3", "batch_size": "10"} | model},
        prompt=PROMPT,
        files=[
            RunFile(
                label="l",
                source=MessageSource(partition=0, offsets=[0]),
                columns=["RowID", "Message"],
                rows=100,
            )
        ],
    )


class Servers(ServerGroup):
    """Servers that have room without end, but for the models whose gate is closed."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self.closed: set[str] = set()
        clock = Clock()
        self._endpoint = endpoint or Endpoint("", ScriptedServer(clock), clock, lambda: None, 5.0, None)
        super().__init__([self._endpoint])

    def may_call(self, model: str) -> bool:
        return model not in self.closed

    def acquire(self, model: str, urgent: bool = False) -> Lease | None:  # noqa: ARG002
        return Lease(self._endpoint, model, None) if self.may_call(model) else None


def context(
    state: RunState = RunState.RUNNING, servers: ServerGroup | None = None, **model: str
) -> RunContext:
    return RunContext.of(run_record(state, **model), MODEL, lambda _: servers or SERVERS)


def batch(rows: int | Sequence[BatchRow], sequence: int = 0) -> Batch:
    if isinstance(rows, int):
        rows = [BatchRow(row_id=f"id{n}", cells=[f"id{n}", f"text {n}"]) for n in range(rows)]
    return Batch(run_id="r", label="l", sequence=sequence, first_row=0, rows=list(rows))


def task(rows: int | Sequence[BatchRow] = 4, of: RunContext | None = None, offset: int = 0) -> BatchTask:
    return BatchTask.of(batch(rows), of or context(), 0, offset, 1)


def reply(row_ids: Sequence[str], **instead: Any) -> str:
    """Return a good reply; `instead` replaces some rows' values, None leaves a row out."""
    items = [
        {"RowID": row_id, "Mood": instead.get(row_id, "good")}
        for row_id in row_ids
        if instead.get(row_id, "good") is not None
    ]
    return json.dumps({"mentions": items} if len(row_ids) > 1 else (items[0] if items else {}))


class ScriptedServer:
    """A ModelServer: `script` answers the calls, `down` every question, `mute` the canaries."""

    def __init__(self, clock: Clock, script: Script | None = None) -> None:
        self.script: Script = script or (lambda ids, _: reply(ids))
        self.down: ModelServerError | None = None
        self.mute: ModelServerError | None = None
        self.asked: list[tuple[str, ...]] = []
        self.requests: list[ChatRequest] = []
        self.canaries = 0
        self.canary_contexts: list[int] = []
        self._clock = clock

    def chat(self, request: ChatRequest) -> ChatReply:
        self._clock.now += 0.5
        row_ids = (
            tuple(re.findall(r"^RowID: (\S+)$", request.messages[1].content, re.M))
            if len(request.messages) > 1
            else ()
        )
        if not row_ids:
            self.canaries += 1
            self.canary_contexts.append(request.num_ctx)
            self._fail()
            if self.mute is not None:
                raise self.mute
            return ChatReply("ok", 1, 1, 0.1, 0.0, request.model)
        self.asked.append(row_ids)
        self.requests.append(request)
        self._fail()
        said = self.script(row_ids, request)
        if isinstance(said, ModelServerError):
            raise said
        return ChatReply(said, 100, 10, 0.4, 0.0, request.model)

    def _fail(self) -> None:
        if self.down is not None:
            raise self.down

    def version(self) -> str:
        return "1"

    def describe(self, name: str) -> ModelDescription:
        self._fail()
        return ModelDescription(name, "sha256:abc")

    def models(self) -> list[ModelInfo]:
        self._fail()
        return [ModelInfo(f"{MODEL}:latest", "sha256:abc")]

    def assert_model(self, name: str) -> None:
        del name
        self._fail()

    def close(self) -> None:
        pass


class Bench:
    """An answerer and a watch on a scripted server, driven by hand: no thread runs."""

    def __init__(self, script: Script | None = None, jitter: float = 1.0) -> None:
        self.clock = Clock()
        self.server = ScriptedServer(self.clock, script)
        self.opened = 0
        self.endpoint = Endpoint("", self.server, self.clock, self._on_open, 5.0, None)
        self.servers = Servers(self.endpoint)
        self.watch = self.endpoint.watch
        self.watch._spawn = lambda work: work()
        self.watch.watch(MODEL)
        self.watch._probe_due()
        self.answerer = Answerer(Deadlines(60.0), self.clock, lambda: jitter)
        self.pauses: list[float] = []

    def _on_open(self) -> None:
        self.opened += 1

    def step(self, work: BatchTask) -> float:
        """Make one call for a task."""
        return self.answerer.step(work, Lease(self.endpoint, MODEL, None))

    def probe(self, after_s: float = 10.0) -> None:
        """Let time pass, and the watch look."""
        self.clock.now += after_s
        self.watch._probe_due()

    def answer(self, work: BatchTask, most: int = 1000) -> int:
        """Step until the task is done, probing when the gate is closed; return the steps taken."""
        for steps in range(1, most + 1):
            if work.done:
                return steps - 1
            if not self.watch.may_call(MODEL):
                self.probe()
                continue
            pause_s = self.step(work)
            if pause_s:
                self.pauses.append(pause_s)
                self.clock.now += pause_s
        return most


SERVERS = Servers()
