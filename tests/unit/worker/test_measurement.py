"""What is measured of calls to models."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.modelserver.errors import (
    AwayReason,
    CallTimeout,
    ModelServerError,
    QuotaExhausted,
    ServerAway,
    error_type,
)
from prism.modelserver.server import ChatMessage, ChatReply, ChatRequest
from prism.service.metrics import KEPT_S, BoundedLabel
from prism_model_worker import metrics
from prism_model_worker.measurement import MeasuredServer, parts_of

ASKED = ChatRequest("measured", (ChatMessage("user", "hello"),), 4096, 8, 5.0)
TOLD = ChatReply("ok", 40, 2, seconds=1.0, load_seconds=0.25, model="measured", compute_seconds=0.5)


class Server:
    """Answers, or fails, as it is told to."""

    def __init__(self, outcome: ChatReply | ModelServerError) -> None:
        self.outcome = outcome

    def chat(self, _request: ChatRequest) -> ChatReply:
        if isinstance(self.outcome, ModelServerError):
            raise self.outcome
        return self.outcome


def value(name: str, **labels: str) -> float:
    known: Mapping[str, str] = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "measured",
        **labels,
    }
    return metrics.REGISTRY.get_sample_value(name, dict(known)) or 0.0


def test_a_call_is_measured_by_outcome_and_tokens_by_type() -> None:
    count = "gen_ai_client_operation_duration_seconds_count"
    before = value(count, error_type=""), value(count, error_type="timeout")
    MeasuredServer(Server(TOLD), "openai").chat(ASKED)  # type: ignore[arg-type]
    with pytest.raises(CallTimeout):
        MeasuredServer(Server(CallTimeout("late")), "openai").chat(ASKED)  # type: ignore[arg-type]
    assert (value(count, error_type=""), value(count, error_type="timeout")) == (before[0] + 1, before[1] + 1)
    assert value("gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 40
    assert value("gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CallTimeout("late"), "timeout"),
        (QuotaExhausted("enough"), "quota"),
        (ServerAway("gone", reason=AwayReason.UNREACHABLE), "unreachable"),
        (ModelServerError("odd"), "_OTHER"),
    ],
)
def test_an_errors_kind_is_of_a_closed_list(error: ModelServerError, kind: str) -> None:
    assert error_type(error) == kind


def test_the_servers_own_timings_say_what_a_call_went_to() -> None:
    assert parts_of(TOLD, 1.5) == {"compute": 0.5, "load": 0.25, "queue": 0.25, "transfer": 0.5}


times = st.floats(0, 1e4)


@given(call=times, total=times, load=times, compute=st.none() | times)
def test_the_parts_of_a_call_add_up_whatever_the_server_tells(
    call: float, total: float, load: float, compute: float | None
) -> None:
    reply = ChatReply("ok", 1, 1, total, load, "measured", compute_seconds=compute)
    found = parts_of(reply, call)
    assert sum(found.values()) == pytest.approx(call)
    assert min(found.values()) >= 0


def test_a_model_that_is_forgotten_leaves_no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    label = BoundedLabel(1, metrics.forget_model, lambda: now)
    monkeypatch.setattr(metrics, "MODEL", label)
    server = MeasuredServer(Server(TOLD), "openai")  # type: ignore[arg-type]
    server.chat(replace(ASKED, model="old"))
    assert shown("old") >= {"gen_ai_client_token_usage_sum", "prism_worker_model_time_seconds_total"}
    now += KEPT_S
    server.chat(replace(ASKED, model="new"))
    assert shown("old") == set()
    assert "gen_ai_client_operation_duration_seconds_count" in shown("new")


def shown(model: str) -> set[str]:
    samples = (one for family in metrics.REGISTRY.collect() for one in family.samples)
    return {one.name for one in samples if model in one.labels.values()}
