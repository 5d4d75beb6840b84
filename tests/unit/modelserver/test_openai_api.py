"""OpenAI's API: what is sent, and what each status and each lie of a server is taken for."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from prism.modelserver import errors
from prism.modelserver.errors import AwayReason, UnusableReason
from prism.modelserver.openai_api import OpenAICompatible, base_url, media_type
from prism.modelserver.server import ChatMessage, ChatReply, ChatRequest, ModelInfo, ModelServer
from tests.unit.modelserver.server import Handler, Request, ScriptedServer, respond, respond_json

CHOICE: dict[str, Any] = {
    "index": 0,
    "message": {"role": "assistant", "content": '{"RowID": "1"}', "reasoning_content": "Let me think."},
    "finish_reason": "stop",
}
REPLY: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "llama3",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150},
}
SCHEMA = {"type": "object"}

Start = Callable[..., tuple[ScriptedServer, OpenAICompatible]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a scripted server and a client for it."""
    started: list[tuple[ScriptedServer, OpenAICompatible]] = []

    def make(handler: Handler, **settings: Any) -> tuple[ScriptedServer, OpenAICompatible]:
        server = ScriptedServer(handler)
        client = OpenAICompatible(f"http://127.0.0.1:{server.port}", health_timeout_s=2.0, **settings)
        started.append((server, client))
        return server, client

    yield make
    for server, client in started:
        client.close()
        server.close()


def always(status: int, body: object, *headers: str) -> Handler:
    return lambda connection, _: respond_json(connection, status, body, *headers)


def choice(**changed: object) -> dict[str, Any]:
    return REPLY | {"choices": [CHOICE | changed]}


def message(**changed: object) -> dict[str, Any]:
    return choice(message=CHOICE["message"] | changed)


def counted(prompt: object, completion: object) -> dict[str, Any]:
    return REPLY | {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def failure(start: Start, handler: Handler, request: ChatRequest, **settings: Any) -> errors.ModelServerError:
    _, client = start(handler, **settings)
    with pytest.raises(errors.ModelServerError) as caught:
        client.chat(request)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_call_and_its_reply(start: Start, request_: ChatRequest) -> None:
    server, client = start(always(200, REPLY))
    reply = client.chat(replace(request_, schema=SCHEMA, keep_alive="10m", think=False))
    assert reply == ChatReply('{"RowID": "1"}', 120, 30, reply.seconds, 0.0, "llama3")
    assert 0 < reply.seconds < 5
    [sent] = server.requests
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert "authorization" not in sent.headers
    assert sent.json == {
        "model": "llama3",
        "messages": [{"role": "system", "content": "Annotate."}, {"role": "user", "content": "Schön ✓"}],
        "stream": False,
        "max_tokens": 256,
        "temperature": 0.0,
        "seed": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
        },
    }


@pytest.mark.parametrize(
    ("support", "schema", "asked"),
    [("json_object", SCHEMA, {"type": "json_object"}), ("none", SCHEMA, None), ("json_schema", None, None)],
)
def test_a_schema_is_asked_for_as_the_server_can(
    start: Start, request_: ChatRequest, support: str, schema: dict[str, Any] | None, asked: object
) -> None:
    server, client = start(always(200, REPLY), schema_support=support)
    client.chat(replace(request_, schema=schema))
    assert server.requests[0].json.get("response_format") == asked


def test_no_limit_of_the_reply_is_not_sent(start: Start, request_: ChatRequest) -> None:
    server, client = start(always(200, REPLY))
    client.chat(replace(request_, num_predict=-1))
    assert "max_tokens" not in server.requests[0].json


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()


def test_images_are_data_urls(start: Start, request_: ChatRequest) -> None:
    server, client = start(always(200, REPLY))
    client.chat(replace(request_, messages=(ChatMessage("user", "What is it?", (PNG, "aGk=")),)))
    assert server.requests[0].json["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "image_url", "image_url": {"url": "data:application/octet-stream;base64,aGk="}},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("start_of_it", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "application/octet-stream"),
        (b"GIF89a", "image/gif"),
        (b"BM\x00\x00", "image/bmp"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"%PDF-1.7", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_the_media_type_is_told_by_the_first_bytes(start_of_it: bytes, kind: str) -> None:
    assert media_type(base64.b64encode(start_of_it + bytes(30) if start_of_it else b"").decode()) == kind


@pytest.mark.parametrize("image", ["!", "data:image/png;base64,iVBO", "iVBORw0", "ü"])
def test_what_is_no_base64_has_no_media_type(image: str) -> None:
    assert media_type(image) == "application/octet-stream"


def test_the_key_is_sent_and_not_shown(start: Start, request_: ChatRequest) -> None:
    server, client = start(always(401, {"error": {"message": "Incorrect API key"}}), api_key="hunter2")
    with pytest.raises(errors.AccessRefused, match="api_key_env") as caught:
        client.chat(request_)
    assert server.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in str(caught.value) + repr(client)


def test_threads_share_the_connections(start: Start, request_: ChatRequest) -> None:
    together = threading.Barrier(4)

    def handler(connection: socket.socket, request: Request) -> None:
        together.wait(5)
        respond_json(connection, 200, message(content=request.json["messages"][0]["content"]))

    server, client = start(handler)

    def call(number: int) -> bool:
        text = f"row {number}"
        return client.chat(replace(request_, messages=(ChatMessage("user", text),))).text == text

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(40)))
    assert server.connections == 4


LIST = {
    "object": "list",
    "data": [{"id": "llama3:latest"}, {"id": "org/big", "owned_by": "vllm", "max_model_len": 8192}, "odd"],
}


def test_models_and_the_presence_of_one(start: Start) -> None:
    server, made = start(always(200, LIST))
    client: ModelServer = made
    assert client.models() == [ModelInfo("llama3:latest", ""), ModelInfo("org/big", "")]
    assert client.version() == "unknown"
    for name in ("llama3", "llama3:latest", "org/big"):
        client.assert_model(name)
    with pytest.raises(errors.ModelNotRunningError, match=r"the server has llama3:latest, org/big"):
        client.assert_model("llama4")
    assert {(request.method, request.path) for request in server.requests} == {("GET", "/v1/models")}


def test_what_is_known_of_a_model(start: Start) -> None:
    _, client = start(always(200, LIST))
    described = client.describe("org/big")
    assert (described.name, described.digest, described.context_length) == ("org/big", "", 8192)
    assert (described.supports_images, described.supports_schema) == (None, None)
    _, told = start(always(200, LIST), context_length=2048, schema_support="none")
    assert (told.describe("llama3").context_length, told.describe("llama3").supports_schema) == (2048, False)
    with pytest.raises(errors.ModelMissing):
        client.describe("llama4")


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"id": "x"}}])
def test_a_list_that_is_none_is_empty(start: Start, body: object) -> None:
    _, client = start(always(200, body))
    assert client.models() == []


def error(text: str, code: object = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


LONG_VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens "
    "(8744 in the messages, 256 in the completion). Please reduce the length of the messages or completion."
)
LONG_LLAMA = "the request exceeds the available context size. try increasing the context size"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # No such model
        (404, error("The model `llama3` does not exist.", 404, "NotFoundError"), errors.ModelMissing),
        (404, error("The model 'llama3' does not exist", "model_not_found"), errors.ModelMissing),
        (
            404,
            {"object": "error", "message": "The model `x` does not exist.", "code": 404},
            errors.ModelMissing,
        ),
        (400, error("llama3 is not a valid model ID", 400), errors.ModelMissing),
        (400, error("Model Not Exist"), errors.ModelMissing),
        (400, error("x", "model_not_found"), errors.ModelMissing),
        # Nobody lets us in
        (401, error("Incorrect API key provided", "invalid_api_key"), errors.AccessRefused),
        (403, error("You have no access to model gpt-4", "model_not_found"), errors.AccessRefused),
        (401, {"detail": "Not authenticated"}, errors.AccessRefused),
        # One request
        (403, error("Your input was flagged", 403), errors.RequestRefused),
        (400, error("The response was filtered", "content_filter"), errors.RequestRefused),
        (400, error("Invalid schema for response_format 'reply'"), errors.RequestRefused),
        (400, error("invalid image input"), errors.RequestRefused),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, errors.RequestRefused),
        # A row's text that comes back must not close the way for others
        (400, error("cannot use: 'usage limit insufficient_quota model not exist'"), errors.RequestRefused),
        (422, {"detail": [{"input": "model_not_found, quota"}]}, errors.RequestRefused),
        # Too long
        (400, error(LONG_VLLM, 400, "BadRequestError"), errors.PromptTruncated),
        (400, {"object": "error", "message": LONG_VLLM, "code": 400}, errors.PromptTruncated),
        (400, error("x", "context_length_exceeded"), errors.PromptTruncated),
        (400, error(LONG_LLAMA, 400, "exceed_context_size_error"), errors.PromptTruncated),
        (
            400,
            error("The decoder prompt (length 9) is longer than the maximum model length of 8."),
            errors.PromptTruncated,
        ),
        (
            400,
            error("The input (9 tokens) is longer than the model's context length (8 tokens)."),
            errors.PromptTruncated,
        ),
        (
            400,
            {"error": "Trying to keep the first 5 tokens when context the overflows."},
            errors.PromptTruncated,
        ),
        (400, error("prompt is too long: 9 tokens > 8 maximum"), errors.PromptTruncated),
        (
            422,
            {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8. Given: 9"},
            errors.PromptTruncated,
        ),
        (413, error("Request too large for model", "rate_limit_exceeded"), errors.PromptTruncated),
        (
            429,
            error("Request too large for x on tokens per min (TPM): Limit 8, Requested 9"),
            errors.PromptTruncated,
        ),
        # The server
        (500, error("internal"), errors.CallFailed),
        (500, {"error": {"message": "Failed to process inputs: image: unknown format"}}, errors.CallFailed),
        (501, {}, errors.CallFailed),
        (504, {}, errors.CallTimeout),
        (408, {}, errors.CallTimeout),
        (500, error(LONG_LLAMA), errors.PromptTruncated),
    ],
)
def test_what_a_status_stands_for(
    start: Start, request_: ChatRequest, status: int, body: object, kind: type[errors.ModelServerError]
) -> None:
    found = failure(start, always(status, body), request_)
    assert type(found) is kind
    assert f"HTTP {status}" in found.what or kind is errors.ModelMissing
    assert found.where.endswith("/v1/chat/completions")
    assert found.next


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("status", "body", "reason", "seconds"),
    [
        (429, error("Rate limit reached for requests", "rate_limit_exceeded"), AwayReason.BUSY, None),
        (429, error("Rate limit reached. Please try again in 6.5s."), AwayReason.BUSY, 6.5),
        (429, error("Please retry after 6 seconds: https://x.example/quotaincrease"), AwayReason.BUSY, 6.0),
        (429, error("Slow down: https://x.example/quota"), AwayReason.BUSY, None),
        (429, error("You exceeded your current quota. Please retry in 25.3s."), AwayReason.BUSY, 25.3),
        (503, {}, AwayReason.BUSY, None),
        (502, {}, AwayReason.GATEWAY, None),
        (404, {"detail": "Not Found"}, AwayReason.NOT_ONE, None),
        (404, {}, AwayReason.NOT_ONE, None),
        (405, {}, AwayReason.NOT_ONE, None),
        (307, {}, AwayReason.NOT_ONE, None),
    ],
)
def test_a_server_without_room_says_nothing_about_the_row(
    start: Start, request_: ChatRequest, status: int, body: object, reason: AwayReason, seconds: float | None
) -> None:
    found = failure(start, always(status, body), request_)
    assert type(found) is errors.ServerAway
    assert (found.reason, found.retry_after_s) == (reason, seconds)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (error("You exceeded your current quota, check your plan.", "insufficient_quota"), None),
        (error("quota", "insufficient_quota"), None),
        (error("Rate limit reached on requests per day (RPD). Please try again in 7m12s."), 432.0),
        (error("you have reached your hourly usage limit; it resets in 3h 12m"), 11_520.0),
        (error("You exceeded your quota. Try again in 2 hours."), 7200.0),
        (error("Budget has been exceeded! Current cost: 12"), None),
    ],
)
def test_an_exhausted_account_is_no_rate(
    start: Start, request_: ChatRequest, body: object, seconds: float | None
) -> None:
    found = failure(start, always(429, body), request_)
    assert isinstance(found, errors.QuotaExhausted)
    assert found.retry_after_s == seconds
    assert (found.until is None) == (seconds is None)
    assert type(failure(start, always(402, body), request_)) is errors.QuotaExhausted
    assert type(failure(start, always(200, body), request_)) is errors.QuotaExhausted


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (error("overloaded", 503), errors.ServerAway),
        (error("Rate limit exceeded", 429), errors.ServerAway),
        (error(LONG_LLAMA, 400, "exceed_context_size_error"), errors.PromptTruncated),
        (error(LONG_LLAMA), errors.PromptTruncated),
        (error("no such thing"), errors.ReplyUnusable),
        ({"error": "Unexpected endpoint or method. (POST /v1/chat/completions)"}, errors.ReplyUnusable),
        (choice(error={"code": 502, "message": "Provider returned error"}), errors.ServerAway),
        (choice(error={"message": "upstream broke"}, finish_reason="error"), errors.ReplyUnusable),
    ],
)
def test_an_error_under_200(
    start: Start, request_: ChatRequest, body: object, kind: type[errors.ModelServerError]
) -> None:
    found = failure(start, always(200, body), request_)
    assert type(found) is kind
    assert "HTTP 200" in found.what


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>Sign in to the hotel's network</html>", UnusableReason.NOT_JSON),
        (b"", UnusableReason.NOT_JSON),
        (b"[]", UnusableReason.NOT_JSON),
        (b'data: {"choices": []}\n\n', UnusableReason.NOT_JSON),
        (b"{}", UnusableReason.NO_MESSAGE),
        (b'{"choices": []}', UnusableReason.NO_MESSAGE),
        (b'{"choices": [null]}', UnusableReason.NO_MESSAGE),
        (b'{"choices": {"0": {}}}', UnusableReason.NO_MESSAGE),
        (b'{"choices": [{"message": "text", "finish_reason": "stop"}]}', UnusableReason.NO_MESSAGE),
        (b'{"choices": [{"text": "old API", "finish_reason": "stop"}]}', UnusableReason.NO_MESSAGE),
    ],
)
def test_a_200_that_is_no_reply(
    start: Start, request_: ChatRequest, body: bytes, reason: UnusableReason
) -> None:
    found = failure(start, lambda connection, _: respond(connection, 200, body), request_)
    assert isinstance(found, errors.ReplyUnusable)
    assert found.reason is reason


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (choice(finish_reason="length"), errors.ReplyTruncated),
        (choice(finish_reason="max_tokens"), errors.ReplyTruncated),
        (choice(finish_reason="model_length"), errors.ReplyTruncated),
        (choice(finish_reason="length", message={"content": None}), errors.ReplyTruncated),
        (choice(finish_reason="content_filter"), errors.RequestRefused),
        (message(content=None, refusal="I can't\nhelp with that."), errors.RequestRefused),
        (message(content=None), errors.ReplyUnusable),
        (message(content=""), errors.ReplyUnusable),
        (message(content=" \n"), errors.ReplyUnusable),
        (message(content=7), errors.ReplyUnusable),
        (message(content=[{"type": "thinking", "thinking": "hm"}]), errors.ReplyUnusable),
        (choice(finish_reason=None), errors.ReplyUnusable),
        (choice(finish_reason="abort"), errors.ReplyUnusable),
        (choice(finish_reason="tool_calls"), errors.ReplyUnusable),
        (choice(finish_reason=["stop"]), errors.ReplyUnusable),
        (counted(4096, 1), errors.PromptTruncated),
        (counted(4092, 1), errors.PromptTruncated),
        (counted(9000, 1), errors.PromptTruncated),
        (counted(4000, 97), errors.ReplyTruncated),
    ],
)
def test_what_is_not_whole_is_never_accepted(
    start: Start, request_: ChatRequest, body: object, kind: type[errors.ModelServerError]
) -> None:
    assert type(failure(start, always(200, body), request_, context_length=4096)) is kind


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (counted(4091, 5), (4091, 5)),
        (REPLY | {"usage": None}, (0, 0)),
        (counted("many", -1), (0, 0)),
        (counted(True, 1.5), (0, 0)),
        (choice(finish_reason="eos_token"), (120, 30)),
        (message(refusal=None), (120, 30)),
        (message(content=[{"type": "thinking"}, {"type": "text", "text": '{"RowID": "1"}'}]), (120, 30)),
    ],
)
def test_what_is_whole_is_accepted(
    start: Start, request_: ChatRequest, body: object, tokens: tuple[int, int]
) -> None:
    _, client = start(always(200, body), context_length=4096)
    reply = client.chat(request_)
    assert reply.text == '{"RowID": "1"}'
    assert (reply.prompt_tokens, reply.completion_tokens) == tokens


def test_without_a_context_length_the_server_is_trusted(start: Start, request_: ChatRequest) -> None:
    _, client = start(always(200, counted(1_000_000, 1)))
    assert client.chat(request_).prompt_tokens == 1_000_000


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": 0}]}, (-0.5, 0.0)),
        ({"content": None}, ()),
        (None, ()),
        ({"content": [{"token": "a"}, "odd"]}, ()),
    ],
)
def test_log_probabilities_if_asked_for_and_given(
    start: Start, request_: ChatRequest, given: object, found: tuple[float, ...]
) -> None:
    server, client = start(always(200, choice(logprobs=given)))
    assert client.chat(replace(request_, logprobs=True)).logprobs == found
    assert server.requests[0].json["logprobs"] is True


def test_an_error_text_stays_one_short_line(start: Start, request_: ChatRequest) -> None:
    found = failure(start, always(500, error("a\nb\x1b[31m\u2028" + "x" * 10_000)), request_)
    assert found.what.startswith("HTTP 500: a b [31m x")
    assert len(str(found)) < 500


def test_the_deadline_ends_a_call(start: Start, request_: ChatRequest) -> None:
    def hang(connection: socket.socket, request: Request) -> None:
        server.closing.wait(10)

    server, client = start(hang)
    with pytest.raises(errors.CallTimeout):
        client.chat(replace(request_, deadline_s=0.2))


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://gpu:8000", "http://gpu:8000/v1"),
        ("http://gpu:8000/", "http://gpu:8000/v1"),
        ("http://gpu:8000/v1", "http://gpu:8000/v1"),
        ("http://gpu:8000/v1/", "http://gpu:8000/v1"),
        ("gpu:8000", "http://gpu:8000/v1"),
        ("gpu", "http://gpu:80/v1"),
        (":8000", "http://127.0.0.1:8000/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
        ("https://api.example", "https://api.example:443/v1"),
        ("https://api.example/openai/v1", "https://api.example:443/openai/v1"),
        ("https://api.example/openai", "https://api.example:443/openai/v1"),
        ("https://api.example/v1beta/openai/", "https://api.example:443/v1beta/openai"),
        ("https://api.example/paas/v4", "https://api.example:443/paas/v4"),
        ("https://v2.example", "https://v2.example:443/v1"),
    ],
)
def test_the_forms_of_an_address(address: str, url: str) -> None:
    assert base_url(address) == url
    assert base_url(url) == url


@pytest.mark.parametrize("address", ["ftp://gpu", "a b", "http://gpu/v1?key=x", "http://u:hunter2@gpu"])
def test_what_is_no_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(ValueError, match="allowed: host, host:port") as refused:
        OpenAICompatible(address)
    assert "hunter2" not in str(refused.value)
