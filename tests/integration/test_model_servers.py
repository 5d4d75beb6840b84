"""One contract, four ways: the embedded server and the real Ollama, each through both of its APIs."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests
from PIL import Image

from prism.annotation import Answer, PromptFile, PromptRow, build_prompt, read_reply
from prism.modelserver import (
    CallFailed,
    CallTimeout,
    ChatMessage,
    ChatRequest,
    Endpoint,
    ModelNotRunningError,
    ModelServer,
    PromptTruncated,
    ReplyTruncated,
    RequestRefused,
    ServerAway,
    connect,
)
from prism.modelserver.errors import AwayReason
from prism_embedded.loopback import free_port
from prism_embedded.model_app import MODEL
from prism_embedded.model_server import EmbeddedModelServer
from prism_embedded.ollama_api import CHARACTERS_PER_TOKEN, CONTEXT_LENGTH
from tests.integration.ollama import CONTEXT_TOKENS, Ollama, ollama_server  # noqa: F401

SHORT_MODEL, SHORT_CONTEXT = "tiny-short", 2048
FILE = PromptFile.parse(
    {
        "system_prompt": "Classify customer feedback.",
        "columns_to_code": ["Topic", "Sentiment"],
        "validation_rules": {
            "valid_topic": ["Product", "Support"],
            "valid_sentiment": ["Positive", "Negative"],
        },
        "strict": True,
    }
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server as one of its APIs shows it.

    too_long: a model, its context in tokens, and how many characters overflow it.
    describes: whether the API tells what a model is.
    slow: makes calls take seconds, until called again with False.
    """

    backend: str
    url: str
    model: str
    too_long: tuple[str, int, int]
    describes: bool
    slow: Callable[[bool], None]

    def client(self, **changed: Any) -> ModelServer:
        endpoint = Endpoint("openai" if self.backend == "openai" else "ollama", self.url)
        return connect(replace(endpoint, **changed), pool_size=4)


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedModelServer]:
    with EmbeddedModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def short_model(ollama: Ollama) -> str:
    """A model whose context is soon full, also where a call cannot choose it."""
    body = {"model": SHORT_MODEL, "from": ollama.model, "parameters": {"num_ctx": SHORT_CONTEXT}}
    requests.post(f"{ollama.url}/api/create", json=body | {"stream": False}, timeout=60).raise_for_status()
    return SHORT_MODEL


@pytest.fixture(scope="module", params=["embedded ollama", "embedded openai", "real ollama", "real openai"])
def subject(request: pytest.FixtureRequest) -> Subject:
    server, backend = request.param.split()
    if server == "embedded":
        return _embedded(request.getfixturevalue("embedded"), backend)
    return _real(request.getfixturevalue("ollama"), request.getfixturevalue("short_model"), backend)


def _embedded(server: EmbeddedModelServer, backend: str) -> Subject:
    def slow(on: bool) -> None:
        settings = {"latency_ms": 20_000 if on else 0}
        requests.post(f"{server.url}/prism/control", json=settings, timeout=10).raise_for_status()

    context = SHORT_CONTEXT if backend == "ollama" else CONTEXT_LENGTH
    too_long = (MODEL, context, context * CHARACTERS_PER_TOKEN + 1000)
    return Subject(backend, server.url, MODEL, too_long, backend == "ollama", slow)


def _real(server: Ollama, short_model: str, backend: str) -> Subject:
    too_long = (short_model, SHORT_CONTEXT, SHORT_CONTEXT + 1000)  # a token is a byte

    def slow(on: bool) -> None:
        del on  # it is slow enough by itself

    return Subject(backend, server.url, server.model, too_long, backend == "ollama", slow)


@pytest.fixture(scope="module")
def client(subject: Subject) -> Iterator[ModelServer]:
    made = subject.client()
    yield made
    made.close()


def chat(subject: Subject, text: str, **changed: Any) -> ChatRequest:
    messages = (ChatMessage("user", text),)
    request = ChatRequest(subject.model, messages, num_ctx=CONTEXT_TOKENS, num_predict=1024, deadline_s=60.0)
    return replace(request, **changed)


def annotation(subject: Subject, row_ids: list[str]) -> tuple[ChatRequest, Callable[[str], list[Answer]]]:
    """Return the call about these rows, and what reads its reply."""
    prompt = build_prompt(FILE, [PromptRow(row_id, None, "The app crashes.", None) for row_id in row_ids])
    messages = (ChatMessage("system", prompt.system), ChatMessage("user", prompt.user))

    def read(text: str) -> list[Answer]:
        outcomes = read_reply(text, prompt, FILE)
        accepted = [one for one in outcomes if isinstance(one, Answer)]
        assert len(accepted) == len(row_ids), (text, outcomes)
        return accepted

    return chat(subject, "", messages=messages, schema=prompt.schema), read


def picture() -> str:
    made = io.BytesIO()
    Image.new("RGB", (8, 8), (30, 60, 190)).save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def test_the_server_is_there_and_lists_its_models(subject: Subject, client: ModelServer) -> None:
    assert client.version()
    listed = {one.name.removesuffix(":latest"): one.digest for one in client.models()}
    assert subject.model in listed
    assert bool(listed[subject.model]) is subject.describes
    client.assert_model(subject.model)


def test_a_missing_model_is_named_with_what_to_do(subject: Subject, client: ModelServer) -> None:
    advice = "ollama pull absent" if subject.backend == "ollama" else "/v1/models lists"
    questions: list[Callable[[], object]] = [
        lambda: client.assert_model("absent"),
        lambda: client.describe("absent"),
        lambda: client.chat(chat(subject, "Hello", model="absent")),
    ]
    for question in questions:
        with pytest.raises(ModelNotRunningError, match="the model absent is missing") as caught:
            question()
        assert advice in str(caught.value)


@pytest.mark.promise(7)
@pytest.mark.parametrize("count", [1, 3])
def test_replies_obey_the_schema_and_are_counted(subject: Subject, client: ModelServer, count: int) -> None:
    request, read = annotation(subject, [f"r{number}" for number in range(count)])
    reply = client.chat(request)
    for answer in read(reply.text):
        assert answer.values["Topic"] in ("Product", "Support")
        assert answer.values["Sentiment"] in ("Positive", "Negative")
    sent = len("".join(message.content for message in request.messages))
    assert sent // CHARACTERS_PER_TOKEN <= reply.prompt_tokens < 2 * sent
    assert len(reply.text) // CHARACTERS_PER_TOKEN <= reply.completion_tokens < 2 * len(reply.text)
    assert 0 < reply.seconds < 60
    assert reply.model.removesuffix(":latest") == subject.model


@pytest.mark.promise(7)
def test_a_reply_that_was_cut_is_not_accepted(subject: Subject, client: ModelServer) -> None:
    request, _ = annotation(subject, ["r1"])
    with pytest.raises(ReplyTruncated, match=r"num_predict|max_tokens"):
        client.chat(replace(request, num_predict=5))


@pytest.mark.promise(7)
def test_a_prompt_that_is_too_long_is_not_accepted(subject: Subject) -> None:
    model, context, characters = subject.too_long
    client = subject.client(context_length=context)
    request = chat(subject, "x" * characters, model=model, num_ctx=context, num_predict=16)
    with pytest.raises(PromptTruncated):
        client.chat(request)
    client.close()


def test_an_image_is_seen_and_a_broken_one_refused(subject: Subject, client: ModelServer) -> None:
    schema = {"type": "object", "properties": {"seen": {"enum": ["yes", "no"]}}, "required": ["seen"]}
    request = chat(subject, "Is it blue?", schema=schema)
    good = replace(request, messages=(ChatMessage("user", "Is it blue?", (picture(),)),))
    assert json.loads(client.chat(good).text)["seen"] in ("yes", "no")
    for broken in (base64.b64encode(b"no picture").decode(), picture()[:64], "no base64!"):
        bad = replace(request, messages=(ChatMessage("user", "Is it blue?", (broken,)),))
        with pytest.raises((RequestRefused, CallFailed)):
            client.chat(bad)
    assert client.chat(good).text, "the server is none the worse for it"


def test_a_call_ends_at_its_deadline(subject: Subject, client: ModelServer) -> None:
    text = {"type": "string", "minLength": 1900}  # more than 2000 is no grammar for Ollama
    schema = {"type": "object", "properties": {"text": text}, "required": ["text"]}
    subject.slow(True)
    try:
        with pytest.raises(CallTimeout, match=r"0\.3 s"):
            client.chat(chat(subject, "Tell a long story", schema=schema, num_predict=8000, deadline_s=0.3))
    finally:
        subject.slow(False)


def test_nobody_at_an_address_is_a_server_away(subject: Subject) -> None:
    client = subject.client(address=f"http://127.0.0.1:{free_port()}")
    questions: list[Callable[[], object]] = [
        client.version,
        client.models,
        lambda: client.describe(subject.model),
        lambda: client.chat(chat(subject, "Hello")),
    ]
    for question in questions:
        with pytest.raises(ServerAway) as caught:
            question()
        assert caught.value.reason is AwayReason.UNREACHABLE


@pytest.mark.promise(7)
def test_threads_get_their_own_replies(subject: Subject, client: ModelServer) -> None:
    def ask(number: int) -> int:
        # Another row's reply names another row, and `read` refuses it.
        request, read = annotation(subject, [f"row{number}"])
        return len(read(client.chat(request).text))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [1] * 4


def test_what_the_server_tells_of_a_model(subject: Subject, client: ModelServer) -> None:
    described = client.describe(subject.model)
    assert described.name == subject.model
    if not subject.describes:
        assert (described.digest, described.context_length, described.supports_images) == ("", None, None)
        assert described.supports_schema is None
        return
    assert len(described.digest) == 64
    assert described.context_length == (CONTEXT_LENGTH if subject.model == MODEL else 32_768)
    assert (described.supports_images, described.supports_schema) == (True, True)


def test_log_probabilities_are_given_or_left_out(subject: Subject, client: ModelServer) -> None:
    request, _ = annotation(subject, ["r1"])
    reply = client.chat(replace(request, logprobs=True))
    assert all(value <= 0 for value in reply.logprobs)
    # The token that ends a reply may have none.
    assert len(reply.logprobs) in (0, reply.completion_tokens - 1, reply.completion_tokens)
