"""One trace from kcat's message to the merged part and the published file, and from request to reply.

`pytest -s` shows the trees.
"""

import itertools
import json
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism.messages import RunState
from tests.harness.model_server import ModelControl
from tests.harness.traces import Collector, SeenSpan, tree
from tests.integration.stage import MODEL, SHORT_SESSION, Stage, await_value

TRACE_ID, SENDERS_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENDER = f"00-{TRACE_ID}-{SENDERS_SPAN}-01"
# What no span may ever show.
SECRET = "the-flamingo-sang-at-noon"
CSV = "RowID,Message\n" + "".join(f"{number},{SECRET} {number} was great\n" for number in range(1, 7))


class Traced:
    """A fleet whose spans go to a collector in this process."""

    def __init__(self, stage: Stage, model_server: str, collector: Collector) -> None:
        self.stage = stage
        self.collector = collector
        self._names = (f"run-{number}" for number in itertools.count(1))
        (stage.jobs / "traced.yaml").write_text(
            "model: {batch_size: 2}\noutput: {checkpoints: {interval: 3}}\n"
        )
        named = collector.environ
        self.services = [
            stage.service("prism_ingestor", "ingestor", **named),
            stage.service("prism_merger", "merger", **named),
            stage.worker(model_server, ready=False, CONCURRENT_REQUESTS="2", **named),
        ]
        for service in self.services:
            service.await_ready()
            assert len(service.lines("tracing_on")) == 1

    def new_name(self) -> str:
        """Return the id of a new run."""
        return next(self._names)

    def run(self, csv: str, *headers: str) -> str:
        """Drop a CSV as a person does; return the run's id once the run is completed."""
        run_id = self.new_name()
        options = [option for header in (f"run-id={run_id}", *headers) for option in ("-H", header)]
        self.stage.kcat(self.stage.topics.intake, csv.encode(), "-k", "march", *options)
        self.stage.await_state(run_id, RunState.COMPLETED)
        return run_id

    def trace(self, trace_id: str, last: str, above: str = SENDERS_SPAN) -> list[SeenSpan]:
        """Return a trace once it has its last span, and each its parent; `above`: nobody sees that one."""

        def whole() -> list[SeenSpan] | None:
            found = self.collector.trace(trace_id)
            known = {one.span_id for one in found} | {above, ""}
            ended = any(one.name == last for one in found)
            return found if ended and all(one.parent_id in known for one in found) else None

        return await_value(whole, f"a whole trace: {tree(self.collector.trace(trace_id))}")


@pytest.fixture(scope="module")
def traced(
    shared_broker: str, model_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Traced]:
    ModelControl(model_server).set(reset=True, down=False, latency_ms=0, slots=0, faults="")
    stage = Stage(shared_broker, tmp_path_factory.mktemp("traced"), "traced.")
    try:
        with Collector() as collector:
            yield Traced(stage, model_server, collector)
    finally:
        stage.close()


def path_to(span: SeenSpan, spans: list[SeenSpan]) -> list[str]:
    """Return the names from the root of what is seen to a span."""
    above = [one for one in spans if one.span_id == span.parent_id]
    return [*(path_to(above[0], spans) if above else []), span.name]


def test_one_trace_goes_from_a_row_to_its_merged_part(
    traced: Traced, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = traced.stage.topics
    run_id = traced.run(CSV, "job=traced", f"traceparent={SENDER}", "tracestate=vendor=1")
    spans = traced.trace(TRACE_ID, "publish")
    sys.stdout.write(f"\n{tree(spans)}\n")
    intake = f"process {topics.intake}"
    way = [
        intake, f"send {topics.batches}", f"process {topics.batches}", f"send {topics.results}",
        f"process {topics.results}",
    ]  # fmt: skip
    # The row: number 5 of the file, 0-based 4, in the batch of sequence 2, and in part 2 of two.
    key = f"{run_id}/march/2"
    (sent,) = (
        one for one in spans if one.name == way[1] and one.attributes["messaging.kafka.message.key"] == key
    )
    assert (sent.attributes["prism.batch.first_row"], sent.attributes["prism.batch.rows"]) == (4, 2)
    came = child_of(sent, way[2], spans)
    call = child_of(came, f"chat {MODEL}", spans)
    assert call.attributes["gen_ai.usage.input_tokens"] > 0
    assert call.attributes["gen_ai.provider.name"] == "ollama"
    merged = child_of(child_of(came, way[3], spans), way[4], spans)
    assert path_to(merged, spans) == way
    commits = [one for one in spans if one.name == f"commit {topics.results}"]
    linked = {link[1] for one in commits for link in one.links} | {one.parent_id for one in commits}
    assert merged.span_id in linked
    parts = [one for one in spans if one.name == "write parts"]
    assert all(path_to(one, spans)[0] == intake for one in parts)
    written = {one.attributes["prism.first_row"]: one.attributes["prism.parts"] for one in parts}
    assert sum(written.values()) == 2
    assert any(first <= 4 < first + 3 * count for first, count in written.items())
    (published,) = (one for one in spans if one.name == f"send {topics.outputs}")
    assert path_to(published, spans) == [intake, "publish", f"send {topics.outputs}"]
    assert {one.name for one in spans} >= {"check source", "write output"}
    assert {one.service for one in spans} == {"prism-ingestor", "prism-model-worker", "prism-merger"}
    (root,) = (one for one in spans if one.name == intake)
    assert root.parent_id == SENDERS_SPAN
    assert {one.state for one in spans} == {"vendor=1"}
    assert not any(one.failed for one in spans)
    announced = [one for one in traced.stage.seen(topics.outputs) if one.key.startswith(f"{run_id}/")]
    assert announced[0].headers["traceparent"] == f"00-{TRACE_ID}-{published.span_id}-01"


def child_of(span: SeenSpan, name: str, spans: list[SeenSpan]) -> SeenSpan:
    """Return the one span of a name under another."""
    (found,) = (one for one in spans if one.parent_id == span.span_id and one.name == name)
    return found


def test_a_request_and_its_reply_are_one_trace(traced: Traced) -> None:
    stage, trace_id = traced.stage, uuid.uuid4().hex
    body = {"key": "k1", "value": {"user_email": "who@example.com", "prompt": f"What is {SECRET}?"}}
    sender = f"00-{trace_id}-{SENDERS_SPAN}-01"
    stage.kcat(stage.requests, json.dumps(body).encode(), "-H", f"traceparent={sender}")
    await_value(lambda: stage.seen(stage.text_replies), "the reply")
    spans = traced.trace(trace_id, f"process {stage.requests}")
    sys.stdout.write(f"\n{tree(spans)}\n")
    (root,) = (one for one in spans if one.parent_id == SENDERS_SPAN)
    assert root.name == f"process {stage.requests}"
    child_of(root, f"chat {MODEL}", spans)
    sent = child_of(root, f"send {stage.text_replies}", spans)
    (reply,) = stage.seen(stage.text_replies)
    assert reply.headers["traceparent"] == f"00-{trace_id}-{sent.span_id}-01"


def test_a_request_that_is_refused_says_so_in_its_span(traced: Traced) -> None:
    stage, trace_id = traced.stage, uuid.uuid4().hex
    body = {"user_email": "who@example.com", "prompt": "What?", "photo": f"{SECRET}!"}
    sender = f"00-{trace_id}-{SENDERS_SPAN}-01"
    stage.kcat(stage.requests, json.dumps(body).encode(), "-H", f"traceparent={sender}")
    spans = traced.trace(trace_id, f"process {stage.requests}")
    (root,) = (one for one in spans if one.parent_id == SENDERS_SPAN)
    assert (root.failed, root.attributes["error.type"]) == (True, "bad_base64")
    child_of(root, f"send {stage.photo_replies}", spans)


def test_what_says_the_same_is_linked_with_whoever_asked(traced: Traced) -> None:
    ModelControl(await_model(traced)).set(latency_ms=300)
    same = "RowID,Message\n" + "".join(f"{number},{SECRET} the same\n" for number in range(1, 9))
    trace_id = uuid.uuid4().hex
    try:
        traced.run(same, "job=traced", f"traceparent=00-{trace_id}-{SENDERS_SPAN}-01")
    finally:
        ModelControl(await_model(traced)).set(latency_ms=0)
    spans = traced.trace(trace_id, "publish")
    batches = [one for one in spans if one.name == f"process {traced.stage.topics.batches}"]
    asked = [
        one
        for one in batches
        if any(call.parent_id == one.span_id for call in spans if call.name[:5] == "chat ")
    ]
    waited = [one for one in batches if one.links]
    assert len(asked) < len(batches) == 4
    assert waited
    assert {link for one in waited for link in one.links} <= {(trace_id, one.span_id) for one in asked}


def test_what_the_sender_does_not_look_at_leaves_no_span(traced: Traced) -> None:
    trace_id = uuid.uuid4().hex
    run_id = traced.run(CSV, "job=traced", f"traceparent=00-{trace_id}-{SENDERS_SPAN}-00")
    after = uuid.uuid4().hex
    traced.run(CSV, "job=traced", f"traceparent=00-{after}-{SENDERS_SPAN}-01")
    traced.trace(after, "publish")  # what was sent before it has come before it
    assert traced.collector.trace(trace_id) == []
    (announced,) = (
        one for one in traced.stage.seen(traced.stage.topics.outputs) if one.key.startswith(f"{run_id}/")
    )
    assert announced.headers["traceparent"].startswith(f"00-{trace_id}-")
    assert announced.headers["traceparent"].endswith("-00")


def test_a_takeover_goes_on_in_the_same_trace(traced: Traced) -> None:
    stage, trace_id, run_id = traced.stage, uuid.uuid4().hex, traced.new_name()
    assert traced.services[0].terminate() == 0
    dying = stage.service(
        "prism_ingestor", "dying", PRISM_CRASH_AT="ingestor.after_run_written", **SHORT_SESSION,
        **traced.collector.environ,
    )  # fmt: skip
    dying.await_ready()
    sender = f"traceparent=00-{trace_id}-{SENDERS_SPAN}-01"
    stage.kcat(stage.topics.intake, CSV.encode(), "-H", "job=traced", "-H", f"run-id={run_id}", "-H", sender)
    assert dying.process.wait(30.0) == -signal.SIGKILL
    traced.services[0] = stage.service("prism_ingestor", "ingestor", **traced.collector.environ)
    record = stage.await_state(run_id, RunState.COMPLETED)
    assert record.trace is not None
    # The span itself died with its process; what comes of the run belongs under it all the same.
    spans = traced.trace(trace_id, "publish", record.trace.span_id)
    below = {one.name for one in spans if one.parent_id == record.trace.span_id}
    # Parts are written on the way where the merger comes to it, else while it publishes.
    assert below - {"write parts"} == {"check source", f"send {stage.topics.batches}", "publish"}


def await_model(traced: Traced) -> str:
    """Return the address of the fleet's model server."""
    (call, *_) = await_value(lambda: traced.collector.named(f"chat {MODEL}"), "a call")
    return f"http://{call.attributes['server.address']}:{call.attributes['server.port']}"


@pytest.mark.promise(8)
def test_no_span_shows_a_text(traced: Traced, tmp_path: Path) -> None:
    assert traced.collector.spans
    for service in traced.services:
        assert service.process.poll() is None
    shown = "\n".join(map(repr, traced.collector.spans))
    assert SECRET not in shown
    assert "who@example.com" not in shown
    # With the last spans still to be sent: SIGTERM sends them, in time.
    traced.collector.down = False
    trace_id = uuid.uuid4().hex
    traced.run(CSV, "job=traced", f"traceparent=00-{trace_id}-{SENDERS_SPAN}-01")
    assert [service.terminate() for service in traced.services] == [0, 0, 0]
    assert traced.trace(trace_id, "publish")
    assert SECRET not in "\n".join(map(repr, traced.collector.spans))
