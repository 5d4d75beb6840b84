"""Whatever number or name a server tells, a call ends in a reply that can be counted, or in a typed error."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.messages import Usage
from prism.modelserver import ModelServer, Ollama, OpenAICompatible
from prism.modelserver.errors import ModelServerError
from prism.modelserver.server import ChatMessage, ChatReply, ChatRequest
from prism.modelserver.transport import Answer

Path = tuple[str | int, ...]
REQUEST = ChatRequest("m", (ChatMessage("user", "x"),), num_ctx=4096, num_predict=100, deadline_s=5.0)
LARGEST = 2**53
NATIVE: dict[str, Any] = {
    "model": "m",
    "message": {"role": "assistant", "content": "hi"},
    "done": True,
    "done_reason": "stop",
    "total_duration": 2_000_000_000,
    "load_duration": 1_000_000_000,
    "prompt_eval_count": 10,
    "eval_count": 5,
    "remote_host": "https://ollama.com",
    "logprobs": [{"token": "hi", "logprob": -0.5}],
}
OPENAI: dict[str, Any] = {
    "model": "m",
    "choices": [
        {
            "message": {"role": "assistant", "content": "hi"},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "hi", "logprob": -0.5}]},
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}
CLIENTS: dict[str, tuple[Callable[[str], ModelServer], dict[str, Any]]] = {
    "ollama": (Ollama, NATIVE),
    "openai": (OpenAICompatible, OPENAI),
}
# Each of them is what Python's JSON reader takes for a value.
ABSURD = {
    "400 digits": "1" + "0" * 400,
    "4,000 digits": "9" * 4000,
    "below zero": "-" + "1" * 400,
    "a little below zero": "-1",
    "beyond 2^53": str(LARGEST + 1),
    "a fraction": "0.5",
    "1e400": "1e400",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "a text": '"12"',
    "true": "true",
    "none": "null",
    "a list": "[1]",
    "an object": '{"tokens": 1}',
}


def answered(api: str, document: str, request: ChatRequest = REQUEST) -> ChatReply:
    make, _ = CLIENTS[api]
    client = make("http://127.0.0.1:1")
    client._transport.call = lambda *_: Answer(200, document.encode(), None)  # type: ignore[attr-defined]
    return client.chat(request)


def changed(document: dict[str, Any], path: Path, text: str) -> str:
    """Return the document in JSON, with a JSON text of any kind at one place."""
    made = copy.deepcopy(document)
    inner: Any = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = "HERE"
    return json.dumps(made).replace('"HERE"', text)


COUNTS: list[tuple[str, Path, str]] = [
    ("ollama", ("prompt_eval_count",), "prompt_tokens"),
    ("ollama", ("eval_count",), "completion_tokens"),
    ("ollama", ("total_duration",), "seconds"),
    ("ollama", ("load_duration",), "load_seconds"),
    ("openai", ("usage", "prompt_tokens"), "prompt_tokens"),
    ("openai", ("usage", "completion_tokens"), "completion_tokens"),
]


@pytest.mark.promise(9)
@pytest.mark.parametrize("absurd", ABSURD.values(), ids=ABSURD)
@pytest.mark.parametrize(("api", "path", "name"), COUNTS, ids=lambda one: one if isinstance(one, str) else "")
def test_an_absurd_number_counts_as_not_told(api: str, path: Path, name: str, absurd: str) -> None:
    document = CLIENTS[api][1]
    assert getattr(answered(api, json.dumps(document)), name) > 0
    reply = answered(api, changed(document, path, absurd))
    assert reply.text == "hi"
    assert getattr(reply, name) == 0


@pytest.mark.parametrize(("api", "path", "name"), COUNTS, ids=lambda one: one if isinstance(one, str) else "")
def test_the_largest_number_is_told(api: str, path: Path, name: str) -> None:
    found = getattr(answered(api, changed(CLIENTS[api][1], path, str(LARGEST))), name)
    assert found == (LARGEST / 1e9 if "seconds" in name else LARGEST)


LOGPROBS: dict[str, Path] = {
    "ollama": ("logprobs", 0, "logprob"),
    "openai": ("choices", 0, "logprobs", "content", 0, "logprob"),
}


@pytest.mark.promise(9)
@pytest.mark.parametrize("absurd", ABSURD.values(), ids=ABSURD)
@pytest.mark.parametrize(("api", "path"), LOGPROBS.items())
def test_absurd_log_probabilities_are_left_out(api: str, path: Path, absurd: str) -> None:
    document = changed(CLIENTS[api][1], path, absurd)
    found = answered(api, document, replace(REQUEST, logprobs=True)).logprobs
    assert found == {"-1": (-1.0,), "0.5": (0.5,)}.get(absurd, ())


@pytest.mark.parametrize("api", CLIENTS)
def test_log_probabilities_are_read_only_if_asked_for(api: str) -> None:
    document = json.dumps(CLIENTS[api][1])
    assert answered(api, document, replace(REQUEST, logprobs=True)).logprobs == (-0.5,)
    assert answered(api, document).logprobs == ()


def paths(value: Any, here: Path = ()) -> list[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*here, key), *paths(item, (*here, key)))]


PLACES = [(api, path) for api, (_, document) in CLIENTS.items() for path in paths(document)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ODD = JSON.map(json.dumps) | st.sampled_from(list(ABSURD.values()))
DEEP = st.integers(1, 1200).map(lambda depth: "[" * depth + "]" * depth)


@given(st.sampled_from(PLACES), ODD | DEEP)
def test_whatever_stands_where_the_outcome_is_typed_and_can_be_counted(place: Any, odd: str) -> None:
    api, path = place
    try:
        reply = answered(api, changed(CLIENTS[api][1], path, odd), replace(REQUEST, logprobs=True))
    except ModelServerError as error:
        str(error).encode()
        return
    tokens = reply.prompt_tokens + reply.completion_tokens
    usage = Usage(prompt_tokens=tokens, model_seconds=reply.seconds, load_seconds=reply.load_seconds)
    assert 0 <= float(usage.prompt_tokens) <= 2 * LARGEST
    assert 0 <= usage.load_seconds <= LARGEST
    reply.model.encode()


def described(api: str, listed: dict[str, Any], shown: dict[str, Any]) -> Any:
    make, _ = CLIENTS[api]
    client = make("http://127.0.0.1:1")
    answers = {"/api/show": shown, "/api/tags": listed, "/models": listed, "/api/version": listed}
    client._transport.call = lambda _, path, *__: Answer(  # type: ignore[attr-defined]
        200, json.dumps(answers[path]).encode(), None
    )
    return client.describe("m"), client.models(), client.version()


@pytest.mark.parametrize("odd", [10**400, -1, True, "\ud800", "x" * 301, "a\nb", ["x"], {"x": 1}, None])
def test_what_is_absurd_is_not_known_of_a_model(odd: Any) -> None:
    shown = {
        "model_info": {"general.architecture": "a", "a.context_length": odd},
        "details": {"parameter_size": odd, "quantization_level": odd},
    }
    tags = {"models": [{"name": "m", "digest": odd}, {"name": odd}], "version": odd}
    found, models, version = described("ollama", tags, shown)
    assert (found.digest, found.context_length) == ("", None)
    assert (found.parameters, found.quantisation) == (None, None)
    assert ([one.name for one in models], version) == (["m", ""], "unknown")
    found, models, _ = described("openai", {"data": [{"id": "m", "max_model_len": odd}, {"id": odd}]}, {})
    assert found.context_length is None
    assert [one.name for one in models] == ["m", ""]
