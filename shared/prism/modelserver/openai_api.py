"""The OpenAI API as vLLM, llama.cpp, LM Studio, hosted services and Ollama itself speak it.

Source: https://platform.openai.com/docs/api-reference/chat; the servers' differences: docs.vllm.ai, their
issues, and Ollama's `openai/openai.go`. What the checks rest on:

- vLLM and llama.cpp refuse a prompt that is too long. Ollama's `/v1` shortens it in silence, whatever the
  request says, and LM Studio may send an empty reply under 200. So give `context_length` for an Ollama (its
  `num_ctx`; up to v0.30.10 the tokens counted then show it) or, better, use its own API; and a reply
  without text is unusable.
- A server may lack `json_schema` (`schema_support`), and OpenAI's own refuses schemas with `prefixItems`.
- `num_ctx`, `keep_alive` and `think` have no place in this API and are not sent; what a reasoning model
  thinks (`reasoning_content`) is not part of its reply.
"""

import base64
import binascii
import re
import time
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from prism.modelserver import bodies, errors
from prism.modelserver.addresses import server_url
from prism.modelserver.bodies import count
from prism.modelserver.errors import UnusableReason
from prism.modelserver.lengths import assert_in_context
from prism.modelserver.refusals import Advice, Question, checked, error_inside
from prism.modelserver.server import ChatMessage, ChatReply, ChatRequest, ModelDescription, ModelInfo
from prism.modelserver.transport import Transport, bearer

SchemaSupport: TypeAlias = Literal["json_schema", "json_object", "none"]
"""How replies are held to a schema: by the schema itself, by JSON of any kind, or by the prompt alone."""

_HTTP_PORT = 80
_VERSION = re.compile(r"/v\d+[a-z]*\d*(/|$)")
_ADVICE = Advice(
    missing="correct the name {model}: /v1/models lists what there is",
    access="set the API key that api_key_env names, or ask for access",
    address="check the base URL",
    nobody="no OpenAI API answers",
    too_long="send less, ask for a shorter reply, or serve the model with a longer context",
    request="check the model, the schema and schema_support",
)
# "eos…" and "end_turn": Text Generation Inference and others.
_ENDED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn")
_CUT = ("length", "max_tokens", "model_length")
_CONTEXT_LENGTHS = ("max_model_len", "context_length", "context_window", "max_context_length")
_MEDIA_TYPES = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


def base_url(address: str) -> str:
    """Return the URL to which `/chat/completions` is added: `…/v1`, be it written or not.

    A path that names its version (`/openai/v1`, `/v1beta/openai`) is taken as it is; without scheme and
    port the port is 80. Raises ValueError saying what is allowed.
    """
    url = server_url(address, _HTTP_PORT)
    return url if _VERSION.search(url) else f"{url}/v1"


class OpenAICompatible:
    """A `ModelServer` that speaks OpenAI's API; see `Transport` for the parameters.

    Raises ValueError for an address or a key that cannot be one.
    health_timeout_s: seconds for everything but `chat`, which has its deadline in the request.
    schema_support: how the server can be asked to hold replies to a schema.
    context_length: tokens that the server gives the model, where known: a prompt that fills them was
        shortened. None: the server is trusted to refuse what it cannot take whole.
    """

    def __init__(
        self,
        address: str,
        *,
        pool_size: int = 16,
        connect_timeout_s: float = 5.0,
        health_timeout_s: float = 5.0,
        api_key: str | None = None,
        schema_support: SchemaSupport = "json_schema",
        context_length: int | None = None,
    ) -> None:
        self.base_url = base_url(address)
        self._health_timeout_s = health_timeout_s
        self._schema_support = schema_support
        self._context_length = context_length
        self._transport = Transport(
            self.base_url,
            # Beside the calls there is the health check.
            pool_size=pool_size + 1,
            connect_timeout_s=connect_timeout_s,
            authorization=bearer(api_key),
        )

    def chat(self, request: ChatRequest) -> ChatReply:
        path, body = "/chat/completions", bodies.encode(_chat_body(request, self._schema_support))
        question = Question(self.base_url + path, request.model, _ADVICE)
        started = time.monotonic()
        reply = checked(self._transport.call("POST", path, body, request.deadline_s), question)
        seconds = time.monotonic() - started
        return _chat_reply(reply, request, question, self._context_length, seconds)

    def version(self) -> str:
        """Return "unknown" once the server has answered: the API tells no version."""
        self._listed()
        return "unknown"

    def models(self) -> list[ModelInfo]:
        return [ModelInfo(name, "") for name in self._listed()]

    def assert_model(self, name: str) -> None:
        self._entry(name)

    def describe(self, name: str) -> ModelDescription:
        entry = self._entry(name)
        lengths = [length for key in _CONTEXT_LENGTHS if (length := count(entry, key))]
        return ModelDescription(
            name=name,
            context_length=self._context_length or (lengths[0] if lengths else None),
            supports_schema=None if self._schema_support == "json_schema" else False,
        )

    def close(self) -> None:
        self._transport.close()

    def _entry(self, name: str) -> Mapping[str, Any]:
        listed = self._listed()
        entry = listed.get(name) or listed.get(f"{name}:latest")
        if entry is None:
            there = ", ".join(bodies.one_line(one)[:60] for one in list(listed)[:5]) or "none"
            what = f"the model {name} is missing: the server has {there}"
            raise errors.ModelMissing(what, f"{self.base_url}/models", _ADVICE.missing.format(model=name))
        return entry

    def _listed(self) -> dict[str, Mapping[str, Any]]:
        answer = self._transport.call("GET", "/models", None, self._health_timeout_s)
        data = checked(answer, Question(f"{self.base_url}/models", None, _ADVICE)).get("data")
        entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
        return {bodies.text(entry, "id"): entry for entry in entries}


def _chat_body(request: ChatRequest, schema_support: SchemaSupport) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": _content(message)} for message in request.messages],
        "stream": False,
        "temperature": request.temperature,
        "seed": request.seed,
    }
    optional = {
        "max_tokens": request.num_predict if request.num_predict > 0 else None,
        "response_format": _response_format(request.schema, schema_support),
        "logprobs": request.logprobs or None,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def _response_format(schema: Mapping[str, Any] | None, support: SchemaSupport) -> dict[str, Any] | None:
    if schema is None or support == "none":
        return None
    if support == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    urls = [f"data:{media_type(image)};base64,{image}" for image in message.images]
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "text", "text": message.content}, *images]


def media_type(image: str) -> str:
    """Return the media type of an image in base64, by its first bytes."""
    try:
        start = base64.b64decode(image[:16], validate=True)
    except (binascii.Error, ValueError):
        return "application/octet-stream"
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return "image/webp"
    return next((kind for sign, kind in _MEDIA_TYPES if start.startswith(sign)), "application/octet-stream")


def _chat_reply(
    reply: Mapping[str, Any],
    request: ChatRequest,
    question: Question,
    context_length: int | None,
    seconds: float,
) -> ChatReply:
    """Return the reply if it is whole and answers the whole prompt."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if said := bodies.said(choice):
        raise error_inside(said, None, question)
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise _unusable("the answer has no message", question, UnusableReason.NO_MESSAGE)
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt_tokens, completion_tokens = count(counts, "prompt_tokens"), count(counts, "completion_tokens")
    if context_length is not None:
        advice = _ADVICE.too_long
        assert_in_context(
            prompt_tokens, completion_tokens, context_length, "context_length", question.where, advice
        )
    _assert_ended(choice.get("finish_reason"), message, completion_tokens, request, question)
    log_probabilities = choice.get("logprobs") if request.logprobs else None
    return ChatReply(
        text=_text(message, question),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=seconds,
        load_seconds=0.0,
        model=bodies.text(reply, "model", request.model),
        logprobs=bodies.logprobs(
            log_probabilities.get("content") if isinstance(log_probabilities, dict) else None
        ),
    )


def _assert_ended(
    finish_reason: object,
    message: Mapping[str, Any],
    completion_tokens: int,
    request: ChatRequest,
    question: Question,
) -> None:
    if finish_reason in _CUT:
        what = f"the reply was cut after {completion_tokens} tokens: max_tokens {request.num_predict}"
        raise errors.ReplyTruncated(what, question.where, "raise max_tokens, or send less")
    refused = message.get("refusal")
    if finish_reason == "content_filter" or refused:
        why = bodies.one_line(str(refused)) if refused else "the server's filter"
        raise errors.RequestRefused(f"the model refused: {why}", question.where, "ask another model")
    if finish_reason not in _ENDED:
        what = f"the reply is not done: finish_reason {bodies.one_line(str(finish_reason))}"
        raise _unusable(what, question, UnusableReason.NOT_DONE)


def _text(message: Mapping[str, Any], question: Question) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content.strip():
        raise _unusable("the reply has no text", question, UnusableReason.NO_MESSAGE)
    return content


def _unusable(what: str, question: Question, reason: UnusableReason) -> errors.ReplyUnusable:
    return errors.ReplyUnusable(what, question.where, "see the server's log", reason=reason)
