"""Which server a model's calls go to, under which name, and with which key."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from prism.modelserver import Endpoint, ModelServer, connect, endpoints, errors
from prism.modelserver.ollama import Ollama
from prism.modelserver.openai_api import OpenAICompatible
from prism.modelserver.server import ChatRequest, ModelInfo
from prism.runs.catalogue import ModelEntry, entry_of
from tests.unit.modelserver.server import Request, ScriptedServer, respond_json

DEFAULT = Endpoint("ollama", "http://127.0.0.1:11434", "key-of-ollama")


def entry(**fields: Any) -> ModelEntry:
    return ModelEntry.model_validate({"name": "m"} | fields)


def ollama_says(connection: socket.socket, request: Request) -> None:
    answers: dict[str, object] = {
        "/api/chat": {
            "model": request.json.get("model") if request.body else None,
            "message": {"role": "assistant", "content": "yes"},
            "done": True,
            "done_reason": "stop",
            # More than the request's num_ctx: the cloud has its own.
            "prompt_eval_count": 9000 if "oss" in request.body.decode() else 10,
            "eval_count": 1,
        },
        "/api/tags": {"models": [{"name": "gpt-oss:120b", "digest": "abc"}, {"name": "glm-4.6"}]},
        "/api/version": {"version": "1"},
        "/api/show": {"capabilities": ["completion", "vision"], "model_info": {}},
    }
    respond_json(connection, 200, answers[request.path])


@pytest.fixture
def local() -> Iterator[ScriptedServer]:
    server = ScriptedServer(ollama_says)
    yield server
    server.close()


@pytest.fixture
def cloud() -> Iterator[ScriptedServer]:
    server = ScriptedServer(ollama_says)
    yield server
    server.close()


def address(server: ScriptedServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_a_model_of_no_catalogue_goes_to_the_default_server() -> None:
    assert endpoints(entry(), DEFAULT, {}) == (DEFAULT,)


def test_a_model_may_have_servers_of_its_own() -> None:
    made = endpoints(
        entry(
            backend="openai",
            base_url=["http://a:8000", "http://b:8000/v1"],
            api_key_env="VLLM_API_KEY",
            context_length=8192,
        ),
        DEFAULT,
        {"VLLM_API_KEY": "k"},
    )
    wanted = Endpoint("openai", "http://a:8000", "k", context_length=8192)
    assert made == (wanted, replace(wanted, address="http://b:8000/v1"))


def test_a_key_goes_only_where_it_was_named_for() -> None:
    (own,) = endpoints(entry(base_url="http://elsewhere:11434"), DEFAULT, {"OLLAMA_API_KEY": "x"})
    assert own.api_key is None
    (named,) = endpoints(entry(api_key_env="OTHER_KEY"), DEFAULT, {"OTHER_KEY": "y"})
    assert named == replace(DEFAULT, api_key="y")
    assert "key-of-ollama" not in repr(DEFAULT)


@pytest.mark.parametrize("environ", [{}, {"OTHER_KEY": ""}])
def test_a_missing_key_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(errors.AccessRefused, match="OTHER_KEY is not set"):
        endpoints(entry(api_key_env="OTHER_KEY"), DEFAULT, environ)


def test_white_space_around_a_key_does_not_count() -> None:
    (made,) = endpoints(entry(api_key_env="OTHER_KEY"), DEFAULT, {"OTHER_KEY": " sk-123\r\n"})
    assert made.api_key == "sk-123"
    for backend in ("ollama", "openai"):
        connect(Endpoint(backend, "gpu", "key-of-a-file\n"))
    assert isinstance(connect(Endpoint("ollama", "gpu", "\n")), Ollama)
    with pytest.raises(errors.AccessRefused, match="OTHER_KEY is not set"):
        endpoints(entry(api_key_env="OTHER_KEY"), DEFAULT, {"OTHER_KEY": "\n"})


@pytest.mark.parametrize("key", ["sk-hunter2\nsk-2", "sk-\x7fhunter2", "schlüssel-hunter2"])
def test_a_key_that_cannot_be_one_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(errors.AccessRefused, match="OTHER_KEY") as refused:
        endpoints(entry(api_key_env="OTHER_KEY"), DEFAULT, {"OTHER_KEY": key})
    assert "hunter2" not in str(refused.value)


def test_a_backend_of_a_newer_version_is_told_and_not_taken_for_another() -> None:
    for fields in ({}, {"base_url": ["http://gpu"]}):
        with pytest.raises(errors.ServerAway, match=r"knows no backend vllm .*; update the worker"):
            endpoints(entry_of({"name": "m", "backend": "vllm", **fields}, "m"), DEFAULT, {})


@pytest.mark.parametrize(
    ("supports", "asked"),
    [(None, "json_schema"), (True, "json_schema"), ("json_object", "json_object"), (False, "none")],
)
def test_how_a_schema_is_asked_for(supports: object, asked: str) -> None:
    (made,) = endpoints(entry(backend="openai", base_url="h", supports_schema=supports), DEFAULT, {})
    assert made.schema_support == asked


def test_the_kinds_of_clients() -> None:
    assert isinstance(connect(Endpoint("ollama", "gpu")), Ollama)
    openai = connect(Endpoint("openai", "gpu:8000", "k"))
    assert isinstance(openai, OpenAICompatible)
    assert openai.base_url == "http://gpu:8000/v1"
    for backend in ("ollama", "openai"):
        with pytest.raises(ValueError, match="no address of a model server"):
            connect(Endpoint(backend, "ftp://x"))
        with pytest.raises(ValueError, match="API key"):
            connect(Endpoint(backend, "gpu", "a\nb"))


def test_without_a_key_a_cloud_model_goes_through_the_signed_in_server(
    local: ScriptedServer, cloud: ScriptedServer, request_: ChatRequest
) -> None:
    client = connect(Endpoint("ollama", address(local), cloud_host=address(cloud)))
    reply = client.chat(replace(request_, model="gpt-oss:120b-cloud"))
    assert (reply.prompt_tokens, reply.model) == (9000, "gpt-oss:120b-cloud")
    assert local.requests[0].json["model"] == "gpt-oss:120b-cloud"
    assert cloud.requests == []
    assert client.describe("gpt-oss:120b-cloud").supports_schema is False


def test_with_a_key_a_cloud_model_goes_to_the_cloud_under_its_bare_name(
    local: ScriptedServer, cloud: ScriptedServer, request_: ChatRequest
) -> None:
    client = connect(Endpoint("ollama", address(local), "k", cloud_host=address(cloud)))
    reply = client.chat(replace(request_, model="gpt-oss:120b-cloud"))
    assert (reply.prompt_tokens, reply.model) == (9000, "gpt-oss:120b-cloud")
    assert local.requests == []
    (sent,) = cloud.requests
    assert (sent.json["model"], sent.headers["authorization"]) == ("gpt-oss:120b", "Bearer k")
    client.assert_model("glm-4.6:cloud")
    assert cloud.requests[-1].json == {"model": "glm-4.6"}
    described = client.describe("gpt-oss:120b-cloud")
    assert (described.name, described.digest) == ("gpt-oss:120b-cloud", "abc")
    assert (described.supports_images, described.supports_schema) == (True, False)


def test_with_a_key_other_models_stay_where_they_are(
    local: ScriptedServer, cloud: ScriptedServer, request_: ChatRequest
) -> None:
    client = connect(Endpoint("ollama", address(local), "k", cloud_host=address(cloud)))
    client.chat(request_)
    assert local.requests[0].json["model"] == "llama3"
    assert client.models() == [ModelInfo("gpt-oss:120b", "abc"), ModelInfo("glm-4.6", "")]
    assert client.version() == "1"
    client.close()
    assert cloud.requests == []


def test_the_cloud_itself_may_be_the_default_server(cloud: ScriptedServer, request_: ChatRequest) -> None:
    client: ModelServer = connect(Endpoint("ollama", address(cloud), "k", cloud_host=address(cloud)))
    for name in ("gpt-oss:120b-cloud", "gpt-oss:120b"):
        assert client.chat(replace(request_, model=name)).model == name
    assert [request.json["model"] for request in cloud.requests] == ["gpt-oss:120b"] * 2
    assert [one.name for one in client.models()] == ["gpt-oss:120b-cloud", "glm-4.6:cloud"]


def test_the_clouds_advice_is_its_own(request_: ChatRequest) -> None:
    server = ScriptedServer(lambda connection, _: respond_json(connection, 404, {"error": "model not found"}))
    client = connect(Endpoint("ollama", address(server), "k", cloud_host=address(server)))
    with pytest.raises(errors.ModelMissing, match=r"search\?c=cloud") as caught:
        client.chat(replace(request_, model="gpt-oss:120b-cloud"))
    assert "ollama pull" not in str(caught.value)
    server.close()
