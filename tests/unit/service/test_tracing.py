"""Tracing: off for nothing, by the standard variables, in the conventions' names, and never in the way."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler

from prism.messages import TraceContext
from prism.service import tracing
from prism.service.spans import resource_of
from tests.harness.traces import Collector, Memory, tree

SENDER = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")
UNSEEN = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


@dataclass(frozen=True)
class Came:
    topic: str = "prism.intake"
    partition: int = 3
    offset: int = 42


@dataclass(frozen=True)
class Sent:
    """A record that the broker has, as a delivery report shows it."""

    def partition(self) -> int | None:
        return 1

    def offset(self) -> int | None:
        return 7


RECORD = Came()


@pytest.fixture(autouse=True)
def _off() -> Iterator[None]:
    yield
    tracing.use(None)


def traced(sampler: Sampler | None = None) -> Memory:
    """Trace into memory until the test ends."""
    return Memory(sampler).__enter__()


def test_a_trace_is_one_tree_from_the_senders_span_on() -> None:
    memory = traced()
    intake = tracing.process(RECORD, SENDER, {"prism.run.id": "r"})
    assert intake.context is not None
    run = TraceContext.of(intake.context.parent, intake.context.state)  # as it travels with the run
    intake.end()
    sent = tracing.send("prism.batches", run, {"messaging.kafka.message.key": "r/l/0"})
    came = tracing.process(Came("prism.batches", 1, 7), sent.context)
    with tracing.chat(came, "ollama", "m:1", "http://host:11434", {"gen_ai.output.type": "json"}) as call:
        call.set({"gen_ai.usage.input_tokens": 12})
    sent.delivered(Sent())
    came.end()
    spans = {one.name: one for one in memory.spans}
    assert {one.trace_id for one in spans.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {one.state for one in spans.values()} == {"vendor=1"}
    names = ["process prism.intake", "send prism.batches", "process prism.batches", "chat m:1"]
    parents = [spans[name].parent_id for name in names]
    assert parents == ["b7ad6b7169203331", *(spans[name].span_id for name in names[:-1])]
    assert [spans[name].kind for name in names] == ["consumer", "producer", "consumer", "client"]
    assert spans["process prism.intake"].attributes == {
        "messaging.system": "kafka",
        "messaging.destination.name": "prism.intake",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 42,
        "prism.run.id": "r",
    }
    assert spans["chat m:1"].attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "m:1",
        "gen_ai.output.type": "json",
        "gen_ai.usage.input_tokens": 12,
        "server.address": "host",
        "server.port": 11434,
    }
    where = ("messaging.destination.partition.id", "messaging.kafka.offset")
    assert [spans["send prism.batches"].attributes[name] for name in where] == ["1", 7]
    shown = tree(memory.spans).splitlines()
    assert [line.lstrip("└─ ").split("  ")[0] for line in shown[1:]] == names


def test_an_error_is_a_type_and_not_a_text() -> None:
    memory = traced()
    with pytest.raises(ValueError, match="secret"), tracing.step("check source", None):
        raise ValueError("secret row text")
    span = memory["check source"]
    assert (span.failed, span.attributes) == (True, {"error.type": "ValueError"})
    assert "secret" not in repr(span)


def test_a_commit_has_links_with_all_that_it_makes_durable() -> None:
    memory = traced()
    first, second = tracing.process(RECORD, SENDER), tracing.process(RECORD, None)
    commit = tracing.commit("prism.results", first, {"messaging.batch.message_count": 2}, [second])
    second.link(commit)
    for one in (commit, first, second):
        one.end()
    found = memory["commit prism.results"]
    ours, other = (one for one in memory.spans if one.name.startswith("process"))
    assert (found.parent_id, found.links) == (ours.span_id, ((other.trace_id, other.span_id),))
    assert other.links == ((found.trace_id, found.span_id),)
    assert found.attributes["messaging.operation.type"] == "settle"


def test_what_the_sender_does_not_look_at_costs_no_span_and_stays_unseen() -> None:
    memory = traced()
    span = tracing.process(RECORD, UNSEEN)
    assert not span.recording
    assert tracing.chat(span, "ollama", "m", "http://h", {}) is tracing.OFF
    sent = tracing.send("prism.batches", span)
    assert sent.context is not None
    assert (sent.context.parent[:35], sent.context.sampled) == (UNSEEN.parent[:35], False)
    sent.end()
    span.end()
    assert memory.spans == []


def test_the_sampler_decides_where_nobody_has() -> None:
    memory = traced(ParentBased(ALWAYS_OFF))
    tracing.process(RECORD, None).end()
    tracing.process(RECORD, SENDER).end()
    assert [one.trace_id for one in memory.spans] == ["0af7651916cd43dd8448eb211c80319c"]


def test_off_is_nothing() -> None:
    span = tracing.process(RECORD, SENDER)
    assert span is tracing.OFF
    assert tracing.send("t", span) is tracing.step("s", None) is tracing.commit("t", None, {}, []) is span
    assert (span.context, span.recording, tracing.is_on()) == (None, False, False)
    with span as entered:
        entered.set({"a": 1})
        entered.link(span)
        entered.fail("x")
    span.end()
    tracing.close()


# Each number is asked: the most batches that this takes a moment for.
@given(st.integers(1, 5_000))
@example(100_000)
def test_a_run_has_a_bounded_number_of_batches_in_its_trace(batches: int) -> None:
    chosen = sum(tracing.in_run(number, batches) for number in range(batches))
    assert tracing.in_run(0, batches)
    assert min(batches, tracing.BATCHES_IN_RUN // 2) <= chosen <= tracing.BATCHES_IN_RUN


# The environment


def on_with(caplog: pytest.LogCaptureFixture, **environ: str) -> tuple[bool, str]:
    """Return whether an environment turns tracing on, and what the log says of it."""
    with caplog.at_level("INFO", logger="prism"):
        tracing.configure("prism-merger", "m0", environ)
    found = [record for record in caplog.records if record.name.startswith("prism")]
    on = tracing.is_on()
    tracing.use(None)
    return on, "; ".join(str(getattr(one, "prism_extras", "")) for one in found)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_it_is_off_without_a_word(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert on_with(caplog, **environ) == (False, "")


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "http://host:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, "http://host:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[c"}, "http://host:4318"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "only http/protobuf",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    environ: dict[str, str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    on, said = on_with(caplog, **environ)
    assert not on
    assert said.count("reason") == 1
    assert why in said


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5000"), ("OTEL_SPAN_LINK_COUNT_LIMIT", "-3")]
)
def test_what_the_sdk_refuses_of_the_environment_ends_no_service(
    name: str, value: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    on, said = on_with(caplog, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert not on
    assert said.count("reason") == 1
    assert "must be" in said


@pytest.mark.parametrize("which", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
@pytest.mark.parametrize("value", ["authorization: Bearer s3cret", "a=b,s3cret", "basic: czNjcmV0s3cret=="])
def test_a_token_that_is_written_wrongly_is_in_no_log(
    which: str, value: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(which, value)
    on, said = on_with(caplog, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **{which: value})
    assert not on
    assert f"{which}: allowed: name=value" in said
    assert "s3cret" not in caplog.text + said


def test_a_senders_state_that_is_none_fills_no_log(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    tracing.configure("prism-merger", "m0", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint})
    for state in ("no state", "a=1,a=2"):
        tracing.process(RECORD, TraceContext(SENDER.parent, state)).end()
    tracing.close()
    assert "opentelemetry" not in {one.name.partition(".")[0] for one in caplog.records}


def test_without_the_extra_it_is_one_line_and_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "prism.service.spans")
    on, said = on_with(caplog, OTEL_EXPORTER_OTLP_ENDPOINT="http://user:password@collector:4318/x?token=t")
    assert not on
    assert "prism-merger[tracing]" in said
    assert "collector:4318" in said
    assert "password" not in said
    assert "token" not in said


def test_nothing_of_opentelemetry_is_loaded_while_it_is_off() -> None:
    code = (
        "import sys; from prism.service import tracing; tracing.configure('prism-merger', 'm', {});"
        "import prism_ingestor.ingestor, prism_model_worker.worker, prism_merger.loop;"
        "sys.exit(any(one.startswith('opentelemetry') for one in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_environment_file_counts_as_for_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1\nOTHER=1\n")
    for name in ("OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards, whatever `.env` brings
        monkeypatch.delenv(name)
    tracing.configure("prism-merger", "m0")
    assert tracing.is_on()
    tracing.close(0.0)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing.configure("prism-merger", "m0")
    assert not tracing.is_on()


def test_the_environment_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resource_of("prism-merger", "m0").attributes["service.name"] == "prism-merger"
    assert resource_of("prism-merger", "m0").attributes["service.instance.id"] == "m0"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,service.namespace=x")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    found = resource_of("prism-merger", "m0").attributes
    assert (found["service.name"], found["service.namespace"]) == ("mine", "x")
    assert found["deployment.environment.name"] == "staging"


# The collector


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        yield made


def test_spans_reach_a_collector_and_the_last_ones_too(collector: Collector) -> None:
    tracing.configure("prism-merger", "m0", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint})
    tracing.step("one", None).end()
    tracing.close()
    (span,) = collector.spans
    assert (span.name, span.service, span.resource["service.instance.id"]) == ("one", "prism-merger", "m0")


@pytest.mark.promise(9)
def test_a_collector_that_never_answers_holds_nothing_up(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    collector.silent.set()
    tracing.configure("prism-merger", "m0", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint})
    began = time.monotonic()
    for _ in range(2000):
        tracing.step("one", None).end()
    assert time.monotonic() - began < 1.0
    began = time.monotonic()
    tracing.close(0.2)
    assert time.monotonic() - began < 1.0
    assert any(getattr(one, "prism_action", "") == "last_spans_not_sent" for one in caplog.records)


def test_a_collector_that_is_away_is_said_once(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.down = True
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    tracing.configure("prism-merger", "m0", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint})
    caplog.set_level("INFO", logger="prism")

    def said(action: str) -> int:
        return sum(getattr(one, "prism_action", "") == action for one in caplog.records)

    for number in range(2):
        tracing.step("lost", None).end()
        before, deadline = collector.asked, time.monotonic() + 10.0
        while (collector.asked <= before or not said("spans_not_sent")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert said("spans_not_sent") == 1, number
    collector.down = False
    tracing.step("found", None).end()
    tracing.close()
    assert said("spans_not_sent") == 1
    assert [one.name for one in collector.spans if one.name == "found"] == ["found"]
    assert said("spans_sent_again") == 1


SERVICE = """
import sys
from prism.service import tracing
from prism.service.lifecycle import run_service
def main(stop):
    tracing.configure("prism-merger", "m0")
    tracing.step("last", None).end()
    print("ready", flush=True)
    stop.wait()
sys.exit(run_service("merger", main))
"""


@pytest.mark.parametrize("silent", [False, True])
def test_a_service_that_is_stopped_sends_its_last_spans_and_waits_for_nobody(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    if silent:
        collector.silent.set()
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        began = time.monotonic()
        service.send_signal(signal.SIGTERM)
        assert service.wait(20.0) == 0
    assert [one.name for one in collector.spans] == ([] if silent else ["last"])
    assert time.monotonic() - began < 10.0
