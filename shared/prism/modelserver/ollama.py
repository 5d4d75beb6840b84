"""Ollama's native API: https://github.com/ollama/ollama/blob/main/docs/api.md

Facts behind the checks, from Ollama's source (v0.33: `server/routes.go`, `llm/llama_server.go`):
a prompt longer than `num_ctx` is shortened and answered with 200. Up to v0.30.10 what is left fills
`num_ctx`, and `prompt_eval_count` shows it; later versions leave about half, which nothing in the reply
shows. Since v0.12.4 a request may say `truncate: false` and is then answered 400. So that is always sent,
and the count compared as well. `shift: false` is not sent: it is a property of the loaded model, and
another client's default would reload the model at each turn.

An image for a model without eyes is ignored in silence, under 200: `describe` tells which model has eyes.
"""

from collections.abc import Mapping
from typing import Any

from prism.modelserver import errors
from prism.modelserver.addresses import server_url
from prism.modelserver.bodies import count, encode, logprobs, text
from prism.modelserver.cloud import is_cloud
from prism.modelserver.errors import UnusableReason
from prism.modelserver.lengths import assert_in_context
from prism.modelserver.refusals import Advice, Question, checked
from prism.modelserver.server import ChatReply, ChatRequest, ModelDescription, ModelInfo
from prism.modelserver.transport import Transport, bearer

DEFAULT_PORT = 11434
_ADVICE = Advice(
    missing="ollama pull {model}",
    access="set OLLAMA_API_KEY, or sign in at the server",
    address="check OLLAMA_HOST",
    nobody="no Ollama answers",
    too_long="raise num_ctx, or send less",
    request="check the model, the schema and the options",
)
_CLOUD_ADVICE = Advice(
    missing="see ollama.com/search?c=cloud for what there is instead of {model}",
    access="set OLLAMA_API_KEY to a key from ollama.com/settings/keys",
    address="check the cloud's address",
    nobody="no Ollama answers",
    too_long="send less, or choose a model with a longer context",
    request="check the model, the schema and the options",
)


def base_url(host: str) -> str:
    """Return the URL for what OLLAMA_HOST may be, as Ollama's own client reads it (see `server_url`).

    The port is 11434 without a scheme; `ollama.com` alone is the cloud. Raises ValueError.
    """
    address = host.strip()
    return server_url("https://ollama.com" if address == "ollama.com" else address, DEFAULT_PORT)


class Ollama:
    """A `ModelServer` that speaks Ollama's API; see `Transport` for the parameters.

    Raises ValueError for a host or a key that cannot be one.
    health_timeout_s: seconds for everything but `chat`, which has its deadline in the request.
    in_cloud: the host is Ollama's cloud: it gives each model its own context, whatever `num_ctx` says.
    keep_alive: of every call, see `ChatRequest`; one that says otherwise would unload the model for all.
    """

    def __init__(
        self,
        host: str,
        *,
        pool_size: int = 16,
        connect_timeout_s: float = 5.0,
        health_timeout_s: float = 5.0,
        api_key: str | None = None,
        in_cloud: bool = False,
        keep_alive: str | int | None = None,
    ) -> None:
        self.base_url = base_url(host)
        self._health_timeout_s = health_timeout_s
        self._in_cloud = in_cloud
        self._keep_alive = keep_alive
        self._advice = _CLOUD_ADVICE if in_cloud else _ADVICE
        self._transport = Transport(
            self.base_url,
            # Beside the calls there is the health check.
            pool_size=pool_size + 1,
            connect_timeout_s=connect_timeout_s,
            authorization=bearer(api_key),
        )

    def chat(self, request: ChatRequest) -> ChatReply:
        path, body = "/api/chat", encode(_chat_body(request, self._keep_alive))
        reply = self._call("POST", path, body, request.deadline_s, request.model)
        local = not (self._in_cloud or reply.get("remote_host") or is_cloud(request.model))
        return _chat_reply(reply, request, local, self.base_url + path)

    def version(self) -> str:
        return text(self._get("/api/version"), "version", "unknown")

    def models(self) -> list[ModelInfo]:
        listed = self._get("/api/tags").get("models")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return [ModelInfo(text(entry, "name"), text(entry, "digest")) for entry in entries]

    def assert_model(self, name: str) -> None:
        self._show(name)

    def describe(self, name: str) -> ModelDescription:
        shown = self._show(name)
        details = _mapping(shown.get("details"))
        capabilities = shown.get("capabilities")
        digests = {one.name: one.digest for one in self.models()}
        return ModelDescription(
            name=name,
            digest=digests.get(name) or digests.get(f"{name}:latest") or "",
            context_length=_context_length(_mapping(shown.get("model_info"))),
            supports_images="vision" in capabilities if isinstance(capabilities, list) else None,
            # The cloud takes a schema and does not hold to it.
            supports_schema=not (self._in_cloud or shown.get("remote_host") or is_cloud(name)),
            parameters=text(details, "parameter_size") or None,
            quantisation=text(details, "quantization_level") or None,
        )

    def close(self) -> None:
        self._transport.close()

    def _show(self, name: str) -> dict[str, Any]:
        return self._call("POST", "/api/show", encode({"model": name}), self._health_timeout_s, name)

    def _get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path, None, self._health_timeout_s, None)

    def _call(
        self, method: str, path: str, body: bytes | None, deadline_s: float, model: str | None
    ) -> dict[str, Any]:
        answer = self._transport.call(method, path, body, deadline_s)
        return checked(answer, Question(self.base_url + path, model, self._advice))


def _chat_body(request: ChatRequest, keep_alive: str | int | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [
            {"role": message.role, "content": message.content}
            | ({"images": list(message.images)} if message.images else {})
            for message in request.messages
        ],
        "stream": False,
        "truncate": False,
        "options": {
            "num_ctx": request.num_ctx,
            "num_predict": request.num_predict,
            "temperature": request.temperature,
            "seed": request.seed,
        },
    }
    optional = {
        "format": request.schema,
        "keep_alive": keep_alive if request.keep_alive is None else request.keep_alive,
        "think": request.think,
        "logprobs": request.logprobs or None,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def _chat_reply(reply: Mapping[str, Any], request: ChatRequest, local: bool, where: str) -> ChatReply:
    """Return the reply if it is whole and answers the whole prompt."""
    message = reply.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise errors.ReplyUnusable("the answer has no message", where, reason=UnusableReason.NO_MESSAGE)
    if reply.get("done") is not True or reply.get("done_reason") in ("load", "unload"):
        raise errors.ReplyUnusable("the reply is not done", where, reason=UnusableReason.NOT_DONE)
    prompt_tokens, completion_tokens = count(reply, "prompt_eval_count"), count(reply, "eval_count")
    if local:
        advice = _ADVICE.too_long
        assert_in_context(prompt_tokens, completion_tokens, request.num_ctx, "num_ctx", where, advice)
    _assert_uncut(reply, completion_tokens, request, where)
    return ChatReply(
        text=content,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=count(reply, "total_duration") / 1e9,
        load_seconds=count(reply, "load_duration") / 1e9,
        model=text(reply, "model", request.model),
        logprobs=logprobs(reply.get("logprobs")) if request.logprobs else (),
        compute_seconds=_compute_seconds(reply),
    )


def _compute_seconds(reply: Mapping[str, Any]) -> float | None:
    nanoseconds = count(reply, "prompt_eval_duration") + count(reply, "eval_duration")
    return nanoseconds / 1e9 if nanoseconds else None


def _assert_uncut(reply: Mapping[str, Any], completion_tokens: int, request: ChatRequest, where: str) -> None:
    done_reason = reply.get("done_reason")
    cut = done_reason is None and 0 < request.num_predict <= completion_tokens
    if done_reason == "length" or cut:
        limits = f"num_predict {request.num_predict}, num_ctx {request.num_ctx}"
        what = f"the reply was cut after {completion_tokens} tokens: {limits}"
        raise errors.ReplyTruncated(what, where, "raise num_predict, or send less")


def _context_length(model_info: Mapping[str, Any]) -> int | None:
    architecture = model_info.get("general.architecture")
    return count(model_info, f"{architecture}.context_length") or None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
