"""The bodies of Ollama's HTTP API, and of the part of OpenAI's that Ollama has.

Source: Ollama's `docs/api.md` and `docs/openai.md`. Times are in ns; tokens are guessed as characters / 4.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from prism_embedded.answers import to_json

CHARACTERS_PER_TOKEN = 4
DEFAULT_NUM_CTX = 4096  # Ollama's own
CONTEXT_LENGTH = 131_072
STREAM_CHARACTERS = 24  # of one piece of a streamed answer


class BadRequest(Exception):
    """A request that Ollama would answer with 400."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request for an answer, whichever API it came by.

    :param api: "chat", "generate" or "openai".
    :param prompts: the user messages, oldest first.
    :param other_characters: the size of the other messages.
    :param format: a JSON schema, "json" or None.
    :param images: base 64.
    :param num_predict: the largest number of tokens of the answer; 0: no limit.
    """

    api: str
    model: str
    prompts: tuple[str, ...]
    other_characters: int
    format: Mapping[str, Any] | str | None
    images: tuple[str, ...]
    stream: bool
    num_ctx: int = DEFAULT_NUM_CTX
    num_predict: int = 0
    unload: bool = False
    started_ns: int = field(default_factory=time.perf_counter_ns)

    @property
    def is_empty(self) -> bool:
        """Whether it only asks to load or unload the model."""
        return not self.prompts and not self.images and self.api != "openai"

    @property
    def prompt_tokens(self) -> int:
        """The size of the prompt as it came."""
        return tokens(self.other_characters + sum(map(len, self.prompts)))

    def cut_to_context(self) -> "Call":
        """The call as a model sees it: a prompt over `num_ctx` loses its beginning, as with Ollama."""
        excess = (self.prompt_tokens - self.num_ctx) * CHARACTERS_PER_TOKEN
        if excess <= 0:
            return self
        kept = []
        for prompt in self.prompts:
            kept.append(prompt[excess:])
            excess = max(0, excess - len(prompt))
        return replace(self, prompts=tuple(kept))


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer's text and why it ends: "stop", "length", "load" or "unload".

    :param shortened: the prompt is said to have filled the context.
    """

    text: str
    reason: str = "stop"
    shortened: bool = False


def tokens(characters: int) -> int:
    """About how many tokens so many characters are."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def read_chat(body: Mapping[str, Any]) -> Call:
    """The call of a body of `/api/chat`. :raises BadRequest: it is none."""
    return _from_messages("chat", body, body.get("format"), body.get("options"), stream=True)


def read_generate(body: Mapping[str, Any]) -> Call:
    """The call of a body of `/api/generate`. :raises BadRequest: it is none."""
    prompt, system = _text(body, "prompt"), _text(body, "system")
    return Call(
        api="generate",
        model=_model(body),
        prompts=(prompt,) if prompt else (),
        other_characters=len(system),
        format=_format(body.get("format")),
        images=_images(body),
        stream=bool(body.get("stream", True)),
        unload=body.get("keep_alive") in (0, "0", "0s"),
        **_options(body.get("options")),
    )


def read_openai(body: Mapping[str, Any]) -> Call:
    """The call of a body of `/v1/chat/completions`. :raises BadRequest: it is none."""
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema" and isinstance(wanted, dict):
        holder = wanted.get("json_schema")
        form: Any = holder.get("schema") if isinstance(holder, dict) else None
    else:
        form = "json" if kind == "json_object" else None
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    options = {"num_predict": limit, "num_ctx": CONTEXT_LENGTH}  # OpenAI's API has no num_ctx
    return _from_messages("openai", body, form, options, stream=False)


def _from_messages(api: str, body: Mapping[str, Any], form: Any, options: Any, stream: bool) -> Call:
    messages = body.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest("messages must be a list of objects")
    prompts: list[str] = []
    images: list[str] = []
    others = 0
    for message in messages:
        text, urls = _content(message)
        if message.get("role") == "user":
            prompts.append(text)
            images += [*_images(message), *urls]
        else:
            others += len(text)
    return Call(
        api=api,
        model=_model(body),
        prompts=tuple(prompts),
        other_characters=others,
        format=_format(form),
        images=tuple(images),
        stream=bool(body.get("stream", stream)),
        unload=body.get("keep_alive") in (0, "0", "0s"),
        **_options(options),
    )


def _content(message: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A message's text and the URLs of its images; OpenAI's content may be a list of parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return _text(message, "content"), []
    parts = [part for part in content if isinstance(part, dict)]
    urls = [part.get("image_url") for part in parts if part.get("type") == "image_url"]
    addresses = [url.get("url") if isinstance(url, dict) else url for url in urls]
    texts = [str(part.get("text", "")) for part in parts if part.get("type") == "text"]
    return "\n".join(texts), [address for address in addresses if isinstance(address, str)]


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model") or body.get("name")
    if not isinstance(model, str):
        raise BadRequest("model is required")
    return model


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name) or ""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be text")
    return value


def _images(body: Mapping[str, Any]) -> tuple[str, ...]:
    images = body.get("images") or []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise BadRequest("images must be a list of base 64 texts")
    return tuple(images)


def _format(value: Any) -> Mapping[str, Any] | str | None:
    if value is None or value == "" or value == "json" or isinstance(value, dict):
        return value or None
    raise BadRequest('invalid format: expected "json" or a JSON schema')


def _options(options: Any) -> dict[str, int]:
    options = options if isinstance(options, dict) else {}
    found = {
        "num_ctx": options.get("num_ctx") or DEFAULT_NUM_CTX,
        "num_predict": options.get("num_predict") or 0,
    }
    if not all(isinstance(value, int) for value in found.values()):
        raise BadRequest("num_ctx and num_predict must be integers")
    return {"num_ctx": max(1, found["num_ctx"]), "num_predict": max(0, found["num_predict"])}


def within_limit(call: Call, outcome: Outcome) -> Outcome:
    """The outcome cut to the call's `num_predict` tokens."""
    if not call.num_predict or tokens(len(outcome.text)) <= call.num_predict:
        return outcome
    return Outcome(outcome.text[: call.num_predict * CHARACTERS_PER_TOKEN], "length")


def body_of(call: Call, outcome: Outcome) -> bytes:
    """The body of an answer that is not streamed."""
    if call.api == "openai":
        message = {"role": "assistant", "content": outcome.text}
        return _json(_openai(call, "chat.completion", {"message": message}, outcome) | _usage(call, outcome))
    return _json(_last(call, outcome, outcome.text))


def stream_of(call: Call, outcome: Outcome) -> Iterator[bytes]:
    """The pieces of a streamed answer: lines of JSON, or OpenAI's server-sent events."""
    pieces = [
        outcome.text[at : at + STREAM_CHARACTERS] for at in range(0, len(outcome.text), STREAM_CHARACTERS)
    ]
    if call.api == "openai":
        for piece in pieces:
            delta = {"delta": {"role": "assistant", "content": piece}}
            yield b"data: " + _json(_openai(call, "chat.completion.chunk", delta, None)) + b"\n\n"
        yield b"data: " + _json(_openai(call, "chat.completion.chunk", {"delta": {}}, outcome)) + b"\n\n"
        yield b"data: [DONE]\n\n"
        return
    for piece in pieces:
        yield _json(_head(call) | _piece(call, piece) | {"done": False}) + b"\n"
    yield _json(_last(call, outcome, "")) + b"\n"


def error_body(api: str, text: str, kind: str = "api_error") -> bytes:
    """The body of an error."""
    if api == "openai":
        return _json({"error": {"message": text, "type": kind, "param": None, "code": None}})
    return _json({"error": text})


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _json(value: Any) -> bytes:
    return to_json(value).encode("utf-8", "replace")


def _head(call: Call) -> dict[str, Any]:
    return {"model": call.model, "created_at": now()}


def _piece(call: Call, text: str) -> dict[str, Any]:
    return (
        {"response": text} if call.api == "generate" else {"message": {"role": "assistant", "content": text}}
    )


def _last(call: Call, outcome: Outcome, text: str) -> dict[str, Any]:
    body = _head(call) | _piece(call, text) | {"done": True, "done_reason": outcome.reason}
    return body if call.is_empty else body | _timings(call, outcome)


def _timings(call: Call, outcome: Outcome) -> dict[str, int]:
    total = time.perf_counter_ns() - call.started_ns
    return {
        "total_duration": total,
        "load_duration": 1000,
        "prompt_eval_count": _asked(call, outcome),
        "prompt_eval_duration": total // 4,
        "eval_count": _said(call, outcome),
        "eval_duration": total * 3 // 4,
    }


def _asked(call: Call, outcome: Outcome) -> int:
    return call.num_ctx if outcome.shortened else min(call.prompt_tokens, call.num_ctx)


def _said(call: Call, outcome: Outcome) -> int:
    """No server counts more tokens than it was allowed, however long the text: a token may be a hundred [."""
    count = tokens(len(outcome.text))
    return min(count, call.num_predict) if call.num_predict else count


def _openai(call: Call, kind: str, choice: dict[str, Any], outcome: Outcome | None) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.started_ns}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "system_fingerprint": "fp_prism_embedded",
        "choices": [{"index": 0, **choice, "finish_reason": outcome.reason if outcome else None}],
    }


def _usage(call: Call, outcome: Outcome) -> dict[str, Any]:
    asked, said = _asked(call, outcome), _said(call, outcome)
    return {"usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}}
