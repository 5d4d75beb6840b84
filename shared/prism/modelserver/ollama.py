"""Ollama's native API: https://github.com/ollama/ollama/blob/main/docs/api.md

Facts behind the checks, from Ollama's source (v0.33: `server/routes.go`, `llm/llama_server.go`):
a prompt longer than `num_ctx` is shortened and answered with 200. Up to v0.30.10 what is left fills
`num_ctx`, and `prompt_eval_count` shows it; later versions leave about half, which nothing in the reply
shows. Since v0.12.4 a request may say `truncate: false` and is then answered 400. So that is always sent,
and the count compared as well. `shift: false` is not sent: it is a property of the loaded model, and
another client's default would reload the model at each turn.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from prism.modelserver import errors
from prism.modelserver.errors import AwayReason, UnusableReason
from prism.modelserver.server import ChatReply, ChatRequest, ModelInfo
from prism.modelserver.transport import Answer, Transport

DEFAULT_PORT = 11434
# A prompt that comes this near to num_ctx (tokens) was shortened, or leaves no room for a reply.
_PROMPT_MARGIN = 4
_MAX_ERROR_CHARS = 300
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_TOO_LONG = re.compile(
    r"(exceeds?|longer than|larger than|too long)\b.*\bcontext|context\b.*\bexceed", re.I | re.S
)
_QUOTA = re.compile(r"usage limit|quota", re.I)
_CONSOLE = "see the server's log"


def base_url(host: str) -> str:
    """Return `scheme://host:port[/path]` for what OLLAMA_HOST may be, as Ollama's own client reads it.

    `host`, `host:port`, `http://host:port/`, `:port`, `[::1]:port`, `::1`; the default port is 11434
    without a scheme and the scheme's own with one; the addresses to listen on (0.0.0.0, ::) become the
    loopback. Raises ValueError saying what is allowed.
    """
    text = host.strip()
    scheme, separator, rest = text.rpartition("://")
    scheme = scheme.lower() if separator else "http"
    default_port = {"http": 80, "https": 443}.get(scheme, 0) if separator else DEFAULT_PORT
    if text == "ollama.com":
        scheme, default_port = "https", 443
    authority, slash, path = rest.partition("/")
    name, port = _host_and_port(authority)
    if scheme not in ("http", "https") or name is None or port > 65535 or re.search(r"[\s?#]", path):
        shown = ascii(text if "@" not in text else "the value (hidden: it has a password)")
        raise ValueError(
            f"{shown} is no address of a model server; allowed: host, host:port, http(s)://host[:port]"
        )
    return f"{scheme}://{name}:{port or default_port}{slash}{path}".rstrip("/")


def _host_and_port(authority: str) -> tuple[str | None, int]:
    """Return the host to connect to, None for what is none, and the port, 0 for none."""
    if authority.count(":") > 1 and "[" not in authority:
        authority = f"[{authority}]"
    elif authority.startswith(":") or not authority:
        authority = f"127.0.0.1{authority}"
    match = _HOST.fullmatch(authority)
    if match is None:
        return None, 0
    loopback = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return loopback.get(match[1], match[1]), int(match[2] or 0)


class Ollama:
    """A `ModelServer` that speaks Ollama's API; see `Transport` for the parameters.

    Raises ValueError for a host or a key that cannot be one.
    health_timeout_s: seconds for everything but `chat`, which has its deadline in the request.
    """

    def __init__(
        self,
        host: str,
        *,
        pool_size: int = 16,
        connect_timeout_s: float = 5.0,
        health_timeout_s: float = 5.0,
        api_key: str | None = None,
    ) -> None:
        self.base_url = base_url(host)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("the API key has characters that an HTTP header cannot carry")
        self._health_timeout_s = health_timeout_s
        self._transport = Transport(
            self.base_url,
            # Beside the calls there is the health check.
            pool_size=pool_size + 1,
            connect_timeout_s=connect_timeout_s,
            authorization=f"Bearer {api_key}" if api_key else None,
        )

    def chat(self, request: ChatRequest) -> ChatReply:
        answer = self._transport.call("POST", "/api/chat", _chat_body(request), request.deadline_s)
        where = f"{self.base_url}/api/chat"
        reply = _checked(answer, where, request.model)
        return _chat_reply(reply, request, where)

    def version(self) -> str:
        return str(self._get("/api/version").get("version", "unknown"))

    def models(self) -> list[ModelInfo]:
        listed = self._get("/api/tags").get("models")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return [ModelInfo(str(entry.get("name", "")), str(entry.get("digest", ""))) for entry in entries]

    def assert_model(self, name: str) -> None:
        body = _encode({"model": name})
        answer = self._transport.call("POST", "/api/show", body, self._health_timeout_s)
        _checked(answer, f"{self.base_url}/api/show", name)

    def close(self) -> None:
        self._transport.close()

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._transport.call("GET", path, None, self._health_timeout_s)
        return _checked(answer, self.base_url + path, None)


def _chat_body(request: ChatRequest) -> bytes:
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
    optional = {"format": request.schema, "keep_alive": request.keep_alive, "think": request.think}
    return _encode(body | {name: value for name, value in optional.items() if value is not None})


def _encode(body: Mapping[str, Any]) -> bytes:
    """Return compact UTF-8; half a surrogate pair, which UTF-8 cannot say, becomes `?`."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, default=dict)
    return text.encode("utf-8", "replace")


def _checked(answer: Answer, where: str, model: str | None) -> dict[str, Any]:
    """Return the answer's object if it is one, or raise what the status or the error inside stands for."""
    value = _parse(answer.body)
    said = _said(value)
    if answer.status != 200:
        raise _refusal(answer, said, where, model)
    if not isinstance(value, dict):
        raise errors.ReplyUnusable(
            "the answer is no JSON object", where, _CONSOLE, reason=UnusableReason.NOT_JSON
        )
    if said:
        raise _error_inside(said, where)
    return value


def _parse(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _said(value: object) -> str:
    """Return the error text of an answer, "" if it has none, in one line and cut."""
    error = value.get("error") if isinstance(value, dict) else None
    if not error:
        return ""
    text = error if isinstance(error, str) else json.dumps(error)
    line = "".join(c if c.isprintable() else " " for c in text[: _MAX_ERROR_CHARS + 1])
    return line if len(line) <= _MAX_ERROR_CHARS else line[:_MAX_ERROR_CHARS] + "…"


def _error_inside(said: str, where: str) -> errors.ModelServerError:
    if _QUOTA.search(said):
        return errors.QuotaExhausted(said, where, "wait, or raise the account's limit")
    return errors.ReplyUnusable(
        f"an error under HTTP 200: {said}", where, _CONSOLE, reason=UnusableReason.ERROR_INSIDE
    )


def _refusal(answer: Answer, said: str, where: str, model: str | None) -> errors.ModelServerError:
    """Return the error that a status other than 200 stands for."""
    status = answer.status
    what = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status in (402, 429, 502, 503):
        return _away(answer, what, said, where)
    if status in (401, 403):
        return errors.AccessRefused(what, where, "set OLLAMA_API_KEY, or sign in at the server")
    if status == 404 and "model" in said.lower() and model is not None:
        return errors.ModelMissing(f"the model {model} is missing: {said}", where, f"ollama pull {model}")
    if status in (408, 504):
        return errors.CallTimeout(what, where, _CONSOLE)
    if status in (400, 413, 500) and _TOO_LONG.search(said):
        return errors.PromptTruncated(what, where, "raise num_ctx, or send less")
    if status >= 500:
        return errors.CallFailed(what, where, _CONSOLE)
    if status < 400 or status in (404, 405):
        reason = AwayReason.NOT_ONE
        return errors.ServerAway(f"{what}: no Ollama answers", where, "check OLLAMA_HOST", reason=reason)
    return errors.RequestRefused(what, where, "check the model, the schema and the options")


def _away(answer: Answer, what: str, said: str, where: str) -> errors.ServerAway:
    now = datetime.now(UTC)
    seconds = _retry_after(answer.retry_after, now)
    if answer.status == 402 or (answer.status == 429 and _QUOTA.search(said)):
        until = now + timedelta(seconds=seconds) if seconds is not None else None
        advice = "wait, or raise the account's limit"
        return errors.QuotaExhausted(what, where, advice, retry_after_s=seconds, until=until)
    reason = AwayReason.GATEWAY if answer.status == 502 else AwayReason.BUSY
    return errors.ServerAway(what, where, "wait", reason=reason, retry_after_s=seconds)


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110: seconds or a date), at most a week."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdecimal() else _seconds_until(value, now)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), 7 * 24 * 3600.0)


def _seconds_until(date: str, now: datetime) -> float:
    moment = parsedate_to_datetime(date)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _chat_reply(reply: Mapping[str, Any], request: ChatRequest, where: str) -> ChatReply:
    """Return the reply if it is whole and answers the whole prompt."""
    message = reply.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise errors.ReplyUnusable("the answer has no message", where, reason=UnusableReason.NO_MESSAGE)
    if reply.get("done") is not True or reply.get("done_reason") in ("load", "unload"):
        raise errors.ReplyUnusable("the reply is not done", where, reason=UnusableReason.NOT_DONE)
    prompt_tokens, completion_tokens = _count(reply, "prompt_eval_count"), _count(reply, "eval_count")
    _assert_whole(reply, prompt_tokens, completion_tokens, request, where)
    return ChatReply(
        text=text,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=_count(reply, "total_duration") / 1e9,
        load_seconds=_count(reply, "load_duration") / 1e9,
        model=str(reply.get("model") or request.model),
    )


def _assert_whole(
    reply: Mapping[str, Any], prompt_tokens: int, completion_tokens: int, request: ChatRequest, where: str
) -> None:
    done_reason = reply.get("done_reason")
    # A cloud model has the context that its host gives it, whatever num_ctx says.
    local = not reply.get("remote_host") and not request.model.endswith(("-cloud", ":cloud"))
    context = f"num_ctx {request.num_ctx}"
    if local and prompt_tokens >= request.num_ctx - _PROMPT_MARGIN:
        what = f"the prompt filled the context: {prompt_tokens} tokens, {context}"
        raise errors.PromptTruncated(what, where, "raise num_ctx, or send less")
    if local and prompt_tokens + completion_tokens > request.num_ctx:
        # The context was shifted while the reply grew: its end answers a prompt without its beginning.
        what = (
            f"prompt and reply overran the context: {prompt_tokens} + {completion_tokens} tokens, {context}"
        )
        raise errors.ReplyTruncated(what, where, "raise num_ctx, or send less")
    cut = done_reason is None and 0 < request.num_predict <= completion_tokens
    if done_reason == "length" or cut:
        limits = f"num_predict {request.num_predict}, {context}"
        what = f"the reply was cut after {completion_tokens} tokens: {limits}"
        raise errors.ReplyTruncated(what, where, "raise num_predict, or send less")


def _count(reply: Mapping[str, Any], name: str) -> int:
    """Return a count or a time in ns; 0 where the server leaves it out or it is none."""
    value = reply.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
