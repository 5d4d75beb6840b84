import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prism.modelserver import errors
from prism.modelserver.errors import AwayReason, UnusableReason
from prism.modelserver.ollama import Ollama, base_url
from prism.modelserver.server import (
    ChatMessage,
    ChatReply,
    ChatRequest,
    ModelDescription,
    ModelInfo,
    ModelServer,
)
from tests.unit.modelserver.conftest import Serve
from tests.unit.modelserver.server import Handler, Request, respond, respond_json

REPLY: dict[str, Any] = {
    "model": "llama3",
    "created_at": "2026-11-21T10:11:12Z",
    "message": {"role": "assistant", "content": '[{"RowID": "1"}]'},
    "done": True,
    "done_reason": "stop",
    "total_duration": 1_500_000_000,
    "load_duration": 250_000_000,
    "prompt_eval_count": 120,
    "eval_count": 30,
}


def always(status: int, body: object, *headers: str) -> Handler:
    def handler(connection: socket.socket, request: Request) -> None:
        respond_json(connection, status, body, *headers)

    return handler


def raw(status: int, body: bytes, *headers: str) -> Handler:
    def handler(connection: socket.socket, request: Request) -> None:
        respond(connection, status, body, *headers)

    return handler


def failure(serve: Serve, handler: Handler, request: ChatRequest) -> errors.ModelServerError:
    _, client = serve(handler)
    with pytest.raises(errors.ModelServerError) as caught:
        client.chat(request)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_call_and_its_reply(serve: Serve, request_: ChatRequest) -> None:
    server, client = serve(always(200, REPLY))
    schema = {"type": "object"}
    reply = client.chat(replace(request_, schema=schema, keep_alive="10m"))
    assert reply == ChatReply('[{"RowID": "1"}]', 120, 30, 1.5, 0.25, "llama3")
    [sent] = server.requests
    assert (sent.method, sent.path, sent.headers["content-type"]) == ("POST", "/api/chat", "application/json")
    assert sent.json == {
        "model": "llama3",
        "messages": [{"role": "system", "content": "Annotate."}, {"role": "user", "content": "Schön ✓"}],
        "stream": False,
        "truncate": False,
        "think": False,
        "format": schema,
        "keep_alive": "10m",
        "options": {"num_ctx": 4096, "num_predict": 256, "temperature": 0.0, "seed": 0},
    }


def test_what_is_not_asked_for_is_not_sent(serve: Serve, request_: ChatRequest) -> None:
    server, client = serve(always(200, REPLY))
    client.chat(replace(request_, think=None))
    assert not {"format", "keep_alive", "think"} & set(server.requests[0].json)


def test_a_model_is_kept_as_long_as_the_client_was_told(serve: Serve, request_: ChatRequest) -> None:
    server, _ = serve(always(200, REPLY))
    client = Ollama(f"127.0.0.1:{server.port}", keep_alive=-1)
    client.chat(request_)
    client.chat(replace(request_, keep_alive="10m"))
    assert [one.json["keep_alive"] for one in server.requests] == [-1, "10m"]


def test_images_and_lone_surrogates_can_be_sent(serve: Serve, request_: ChatRequest) -> None:
    server, client = serve(always(200, REPLY))
    client.chat(replace(request_, messages=(ChatMessage("user", "a\ud800b", ("aGk=",)),)))
    assert server.requests[0].json["messages"] == [{"role": "user", "content": "a?b", "images": ["aGk="]}]


def test_the_key_is_sent_and_not_shown(serve: Serve, request_: ChatRequest) -> None:
    server, _ = serve(always(401, {"error": "unauthorized"}))
    client = Ollama(f"127.0.0.1:{server.port}", api_key="hunter2")
    with pytest.raises(errors.AccessRefused) as caught:
        client.chat(request_)
    assert server.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in str(caught.value) + repr(client)
    with pytest.raises(ValueError, match="API key") as refused:
        Ollama("h", api_key="hunter2\nhunter2")
    assert "hunter2" not in str(refused.value)


def test_connections_are_kept_and_shared_by_threads(serve: Serve, request_: ChatRequest) -> None:
    together = threading.Barrier(4)

    def handler(connection: socket.socket, request: Request) -> None:
        together.wait(5)
        respond_json(
            connection, 200, REPLY | {"message": {"content": request.json["messages"][0]["content"]}}
        )

    server, client = serve(handler)

    def call(number: int) -> bool:
        text = f"row {number}"
        return client.chat(replace(request_, messages=(ChatMessage("user", text),))).text == text

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(40)))
    assert server.connections == 4


def test_version_models_and_the_presence_of_a_model(serve: Serve) -> None:
    answers: dict[str, object] = {
        "/api/version": {"version": "0.33.0"},
        "/api/tags": {"models": [{"name": "llama3:latest", "digest": "abc"}, "odd"]},
        "/api/show": {"details": {}},
    }
    server, ollama = serve(lambda connection, request: respond_json(connection, 200, answers[request.path]))
    client: ModelServer = ollama
    assert client.version() == "0.33.0"
    assert client.models() == [ModelInfo("llama3:latest", "abc")]
    client.assert_model("llama3")
    assert [request.method for request in server.requests] == ["GET", "GET", "POST"]
    assert server.requests[-1].json == {"model": "llama3"}


def test_a_missing_model_is_named_with_the_way_to_get_it(serve: Serve) -> None:
    _, client = serve(always(404, {"error": "model 'llama3' not found"}))
    with pytest.raises(errors.ModelNotRunningError, match="ollama pull llama3"):
        client.assert_model("llama3")
    with pytest.raises(errors.ModelMissing, match="ollama pull llama3"):
        client.describe("llama3")


SHOWN: dict[str, Any] = {
    "details": {"parameter_size": "8.0B", "quantization_level": "Q4_K_M"},
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 131_072,
        "clip.vision.context_length": 9,
    },
    "capabilities": ["completion", "vision"],
}


@pytest.mark.parametrize(
    ("changed", "described"),
    [
        ({}, ModelDescription("llama3", "abc", 131_072, True, True, "8.0B", "Q4_K_M")),
        (
            {"capabilities": ["completion"]},
            ModelDescription("llama3", "abc", 131_072, False, True, "8.0B", "Q4_K_M"),
        ),
        (
            {"remote_host": "https://ollama.com:443"},
            ModelDescription("llama3", "abc", 131_072, True, False, "8.0B", "Q4_K_M"),
        ),
        (
            {"capabilities": None, "details": None, "model_info": None},
            ModelDescription("llama3", "abc", None, None, True, None, None),
        ),
        (
            {"model_info": {"llama.context_length": 8}},
            ModelDescription("llama3", "abc", None, True, True, "8.0B", "Q4_K_M"),
        ),
    ],
)
def test_what_is_known_of_a_model(serve: Serve, changed: dict[str, Any], described: ModelDescription) -> None:
    answers: dict[str, object] = {
        "/api/tags": {"models": [{"name": "llama3:latest", "digest": "abc"}]},
        "/api/show": SHOWN | changed,
    }
    _, client = serve(lambda connection, request: respond_json(connection, 200, answers[request.path]))
    assert client.describe("llama3") == described


@pytest.mark.parametrize("given", [[{"token": "a", "logprob": -0.5}], None, "odd"])
def test_log_probabilities_if_asked_for_and_given(serve: Serve, request_: ChatRequest, given: object) -> None:
    server, client = serve(always(200, REPLY | {"logprobs": given}))
    reply = client.chat(replace(request_, logprobs=True))
    assert reply.logprobs == ((-0.5,) if isinstance(given, list) else ())
    assert server.requests[0].json["logprobs"] is True


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (404, "model 'llama3' not found", errors.ModelMissing),
        (401, "unauthorized", errors.AccessRefused),
        (403, "this model requires a subscription", errors.AccessRefused),
        (400, "invalid format: expected JSON schema", errors.RequestRefused),
        (422, "no", errors.RequestRefused),
        (500, "model runner has unexpectedly stopped", errors.CallFailed),
        (501, "", errors.CallFailed),
        (504, "", errors.CallTimeout),
        (408, "", errors.CallTimeout),
        (400, "the input length exceeds the context length", errors.PromptTruncated),
        (400, '{"message":"request (9 tokens) exceeds the available context size"}', errors.PromptTruncated),
        (400, "the prompt is longer than the context length currently available", errors.PromptTruncated),
    ],
)
def test_what_a_status_stands_for(
    serve: Serve, request_: ChatRequest, status: int, said: str, kind: type[errors.ModelServerError]
) -> None:
    error = failure(serve, always(status, {"error": said}), request_)
    assert type(error) is kind
    assert f"HTTP {status}" in error.what or kind is errors.ModelMissing
    assert said in error.what
    assert error.where.endswith("/api/chat")


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (503, "server busy, please try again", AwayReason.BUSY),
        (429, "too many requests", AwayReason.BUSY),
        (502, "bad gateway", AwayReason.GATEWAY),
        (404, "404 page not found", AwayReason.NOT_ONE),
        (405, "", AwayReason.NOT_ONE),
    ],
)
def test_a_server_without_room_says_nothing_about_the_row(
    serve: Serve, request_: ChatRequest, status: int, said: str, reason: AwayReason
) -> None:
    error = failure(serve, always(status, {"error": said}, "Retry-After: 7"), request_)
    assert type(error) is errors.ServerAway
    assert error.reason is reason
    assert error.retry_after_s == (7.0 if status in (429, 502, 503) else None)


@pytest.mark.parametrize("value", ["soon", "-1", "", "٣"])
def test_an_odd_retry_after_is_no_error(serve: Serve, request_: ChatRequest, value: str) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(f"HTTP/1.1 503 X\r\nContent-Length: 0\r\nRetry-After: {value}\r\n\r\n".encode())

    error = failure(serve, handler, request_)
    assert isinstance(error, errors.ServerAway)
    assert error.retry_after_s in (None, 3.0)


def test_retry_after_may_be_a_date(serve: Serve, request_: ChatRequest) -> None:
    error = failure(serve, always(503, {}, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"), request_)
    assert isinstance(error, errors.ServerAway)
    assert error.retry_after_s == 0.0


@pytest.mark.parametrize("said", ["you've reached your hourly usage limit", "Weekly usage limit, upgrade"])
def test_a_usage_limit_is_a_matter_of_hours(serve: Serve, request_: ChatRequest, said: str) -> None:
    error = failure(serve, always(429, {"error": said}), request_)
    assert isinstance(error, errors.QuotaExhausted)
    assert (error.until, error.retry_after_s) == (None, None)
    told = failure(serve, always(429, {"error": said}, "Retry-After: 3600"), request_)
    assert isinstance(told, errors.QuotaExhausted)
    assert told.until is not None
    assert isinstance(failure(serve, always(200, {"error": said}), request_), errors.QuotaExhausted)


def test_a_limit_may_say_when_it_ends(serve: Serve, request_: ChatRequest) -> None:
    before = datetime.now(UTC)
    told = failure(serve, always(429, {"error": "weekly usage limit reached, resets in 3h 12m"}), request_)
    assert isinstance(told, errors.QuotaExhausted)
    assert told.retry_after_s == 11_520.0
    assert told.until is not None
    assert timedelta(hours=3, minutes=12) <= told.until - before < timedelta(hours=3, minutes=13)


def test_a_redirect_is_not_followed(serve: Serve, request_: ChatRequest) -> None:
    other, _ = serve(always(200, REPLY))
    redirect = raw(307, b"", f"Location: http://127.0.0.1:{other.port}/api/chat")
    error = failure(serve, redirect, request_)
    assert isinstance(error, errors.ServerAway)
    assert error.reason is AwayReason.NOT_ONE
    assert other.requests == []


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>Sign in to the hotel's network</html>", UnusableReason.NOT_JSON),
        (b"", UnusableReason.NOT_JSON),
        (b"[]", UnusableReason.NOT_JSON),
        (b'{"message": {"content": "cut', UnusableReason.NOT_JSON),
        (b"\xff\xfe", UnusableReason.NOT_JSON),
        (b"[" * 100_000, UnusableReason.NOT_JSON),
        (b'{"error": "llama runner process has terminated"}', UnusableReason.ERROR_INSIDE),
        (b'{"error": {"message": "x"}}', UnusableReason.ERROR_INSIDE),
        (b"{}", UnusableReason.NO_MESSAGE),
        (b'{"message": "text", "done": true}', UnusableReason.NO_MESSAGE),
        (b'{"message": {"content": null}, "done": true}', UnusableReason.NO_MESSAGE),
        (b'{"message": {"content": "x"}, "done": false}', UnusableReason.NOT_DONE),
        (b'{"message": {"content": "x"}}', UnusableReason.NOT_DONE),
        (b'{"message": {"content": ""}, "done": true, "done_reason": "load"}', UnusableReason.NOT_DONE),
    ],
)
def test_a_200_that_is_no_reply(
    serve: Serve, request_: ChatRequest, body: bytes, reason: UnusableReason
) -> None:
    error = failure(serve, raw(200, body), request_)
    assert isinstance(error, errors.ReplyUnusable)
    assert error.reason is reason


def test_a_servers_error_text_stays_one_short_line(serve: Serve, request_: ChatRequest) -> None:
    error = failure(serve, always(500, {"error": "a\nb\x1b[31m\u2028" + "x" * 10_000}), request_)
    assert error.what.startswith("HTTP 500: a b [31m x")
    assert len(str(error)) < 500


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"prompt_eval_count": 4096}, errors.PromptTruncated),
        ({"prompt_eval_count": 4092}, errors.PromptTruncated),
        ({"prompt_eval_count": 5000}, errors.PromptTruncated),
        ({"prompt_eval_count": 4000, "eval_count": 97}, errors.ReplyTruncated),
        ({"done_reason": "length"}, errors.ReplyTruncated),
        ({"done_reason": None, "eval_count": 256}, errors.ReplyTruncated),
    ],
)
def test_what_was_cut_is_never_accepted(
    serve: Serve, request_: ChatRequest, changed: dict[str, object], kind: type[errors.ModelServerError]
) -> None:
    assert type(failure(serve, always(200, REPLY | changed), request_)) is kind


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt_eval_count": 3840, "eval_count": 256},
        {"done_reason": "stop", "eval_count": 256},
        {"done_reason": None, "eval_count": 255},
        {"prompt_eval_count": 5000, "remote_host": "https://ollama.com"},
        {"prompt_eval_count": None, "eval_count": "many", "total_duration": -1},
    ],
)
def test_what_is_whole_is_accepted(serve: Serve, request_: ChatRequest, changed: dict[str, object]) -> None:
    _, client = serve(always(200, REPLY | changed))
    assert client.chat(request_).text == '[{"RowID": "1"}]'


def test_a_cloud_models_context_is_not_ours(serve: Serve, request_: ChatRequest) -> None:
    _, client = serve(always(200, REPLY | {"prompt_eval_count": 5000}))
    assert client.chat(replace(request_, model="gpt-oss:120b-cloud")).prompt_tokens == 5000


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("gpu", "http://gpu:11434"),
        ("gpu:8000", "http://gpu:8000"),
        (":8000", "http://127.0.0.1:8000"),
        (" http://localhost:11434/ ", "http://localhost:11434"),
        ("HTTP://gpu:1", "http://gpu:1"),
        ("http://gpu", "http://gpu:80"),
        ("https://gpu", "https://gpu:443"),
        ("https://gpu/prefix/", "https://gpu:443/prefix"),
        ("ollama.com", "https://ollama.com:443"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:99", "http://127.0.0.1:99"),
        ("::", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:99", "http://[::1]:99"),
        ("[::]:99", "http://[::1]:99"),
    ],
)
def test_the_forms_of_a_host(host: str, url: str) -> None:
    assert base_url(host) == url
    assert base_url(url) == url


@pytest.mark.parametrize(
    "host",
    ["ftp://gpu", "a b", "gpu:99999", "gpu:x", "http://gpu/a?b", "http://u:hunter2@gpu", "gpu\nHost: x"],
)
def test_what_is_no_host_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(ValueError, match="allowed: host, host:port") as refused:
        base_url(host)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)
