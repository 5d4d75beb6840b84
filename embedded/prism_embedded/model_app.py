"""The HTTP side of the embedded model server: Ollama's paths, and `/prism/…` for tests and benchmarks."""

import asyncio
import hashlib
import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from aiohttp import web

from prism_embedded.answers import RULES_VERSION, Question, answer
from prism_embedded.errors import EmbeddedError
from prism_embedded.faults import CONTENT_FAULTS, HTTP_FAULTS, OPINIONS, spoil
from prism_embedded.mentions import Mention, row_hash
from prism_embedded.model_state import Behaviour, Busy, Slots, Stats
from prism_embedded.ollama_api import (
    CONTEXT_LENGTH,
    BadRequest,
    Call,
    Outcome,
    body_of,
    error_body,
    now,
    read_chat,
    read_generate,
    read_openai,
    stream_of,
    within_limit,
)
from prism_embedded.photos import NotAPhoto, PhotoFacts, photo_facts

MODEL = "prism-embedded"
API_VERSION = "0.13.0+prism-embedded"  # the Ollama whose API this follows
MAX_BODY_BYTES = 64 * 1024 * 1024
DRIP_S = 0.1
WHAT_IT_IS = "prism-embedded is running: it speaks Ollama's API and answers by rules; it is no language model"
_DIGEST = hashlib.sha256(f"{MODEL} {RULES_VERSION}".encode()).hexdigest()
_DETAILS = {
    "parent_model": "",
    "format": "rules",
    "family": MODEL,
    "families": [MODEL],
    "parameter_size": "0",
    "quantization_level": "none",
}


class ApiError(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, text: str, kind: str = "api_error") -> None:
        super().__init__(text)
        self.status, self.text, self.kind = status, text, kind


class ModelApp:
    """The server's state and handlers.

    :param behaviour: the settings at the start.
    :param names: the names of the models that it answers for.
    """

    def __init__(self, behaviour: Behaviour, names: Sequence[str] = (MODEL,)) -> None:
        self._names = [name.removesuffix(":latest") for name in names]
        self._stats = Stats()
        self._slots = Slots()
        self._asked: Counter[str] = Counter()
        self._serving: dict[int, web.Request] = {}
        self._set(behaviour)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_get("/", _what_it_is)
        app.router.add_get("/api/version", _version)
        app.router.add_get("/api/tags", self._tags)
        app.router.add_get("/api/ps", self._ps)
        app.router.add_post("/api/show", self._show)
        app.router.add_post("/api/chat", self._chat)
        app.router.add_post("/api/generate", self._generate)
        app.router.add_get("/v1/models", self._v1_models)
        app.router.add_post("/v1/chat/completions", self._v1_chat)
        app.router.add_get("/prism/stats", self._get_stats)
        app.router.add_post("/prism/control", self._control)
        return app

    def _set(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._plan = behaviour.plan
        self._slots.set(behaviour.slots, behaviour.queue)
        if behaviour.down:
            for request in self._serving.values():
                _abort(request)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Closes the connection when the server is "down"; turns errors into bodies as the API has them."""
        if self._behaviour.down and not request.path.startswith("/prism/"):
            _abort(request)
            return web.Response()
        api = "openai" if request.path.startswith("/v1/") else "ollama"
        try:
            return await handler(request)
        except ApiError as error:
            headers = {"Retry-After": "1"} if error.status == 429 else None
            return _json(error_body(api, error.text, error.kind), error.status, headers)
        except (BadRequest, NotAPhoto, EmbeddedError) as error:
            return _json(error_body(api, str(error), "invalid_request_error"), 400)
        except web.HTTPException:
            raise
        except Exception as error:  # one call's failure is one line, and never another's
            text = f"internal error: {type(error).__name__}: {error}"
            sys.stderr.write(f"{MODEL}: {request.path}: {text}\n")
            return _json(error_body(api, text), 500)

    # What there is

    async def _tags(self, _: web.Request) -> web.Response:
        return _json({"models": [self._model(name) for name in self._names]})

    async def _ps(self, _: web.Request) -> web.Response:
        loaded = {"expires_at": "2318-01-01T00:00:00Z", "size_vram": 0, "context_length": CONTEXT_LENGTH}
        return _json({"models": [self._model(name) | loaded for name in self._names]})

    async def _show(self, request: web.Request) -> web.Response:
        body = await _body(request)
        self._check_model(str(body.get("model") or body.get("name") or ""))
        return _json(
            {
                "modelfile": f"# {WHAT_IT_IS}",
                "parameters": "",
                "template": "{{ .Prompt }}",
                "details": _DETAILS,
                "model_info": {
                    "general.architecture": MODEL,
                    "general.parameter_count": 0,
                    f"{MODEL}.context_length": CONTEXT_LENGTH,
                },
                "capabilities": ["completion", "vision"],
                "modified_at": now(),
            }
        )

    async def _v1_models(self, _: web.Request) -> web.Response:
        models = [{"id": n, "object": "model", "created": 0, "owned_by": "prism"} for n in self._names]
        return _json({"object": "list", "data": models})

    def _model(self, name: str) -> dict[str, Any]:
        full = name if ":" in name else f"{name}:latest"
        about = {"modified_at": now(), "size": 0, "digest": _DIGEST, "details": _DETAILS}
        return {"name": full, "model": full, **about}

    def _check_model(self, name: str) -> None:
        if name.removesuffix(":latest") not in self._names:
            raise ApiError(404, f"model '{name}' not found", "not_found_error")

    # Answers

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_chat(await _body(request)))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_generate(await _body(request)))

    async def _v1_chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_openai(await _body(request)))

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        self._check_model(call.model)
        if call.is_empty:
            return _json(body_of(call, Outcome("", "unload" if call.unload else "load")))
        self._stats.calls += 1
        photo = await asyncio.to_thread(_photo, call.images) if call.images else None
        question = Question(call.cut_to_context().prompts, call.format, photo)
        mentions = question.mentions()
        content, before = self._count(call, mentions)
        fault = self._plan.pick([mention.text for mention in mentions], content, before)
        if fault:
            self._stats.by_fault[fault] += 1
        if fault in HTTP_FAULTS:
            raise ApiError(*HTTP_FAULTS[fault])
        return await self._serve(request, call, question, mentions, fault, (content, before))

    def _count(self, call: Call, mentions: Sequence[Mention]) -> tuple[str, int]:
        """The hash of what is asked about, and how many calls have asked about the same."""
        rows = [row_hash(mention.row_id or "", mention.content) for mention in mentions]
        if self._behaviour.count_rows:
            self._stats.calls_by_rows.update(rows)
        content = hashlib.sha1("".join([*rows, *call.images]).encode()).hexdigest()
        if not self._plan.rates and not self._behaviour.jitter_ms:
            return content, 0
        self._asked[content] += 1
        return content, self._asked[content] - 1

    async def _serve(
        self,
        request: web.Request,
        call: Call,
        question: Question,
        mentions: Sequence[Mention],
        fault: str | None,
        asked: tuple[str, int],
    ) -> web.StreamResponse:
        """Answer in a slot; a client that goes away cancels the handler and frees it."""
        self._serving[id(request)] = request
        try:
            due = await self._take_slot()
            try:
                with self._stats.serving():
                    due += self._behaviour.delay_s(len(mentions), *asked)
                    outcome = _outcome(call, question, mentions, fault)
                    wait_s = due - asyncio.get_running_loop().time()
                    if wait_s > 0:
                        await asyncio.sleep(wait_s)
                    response = await _deliver(request, call, outcome, fault)
            finally:
                self._slots.give_back(due)
        finally:
            del self._serving[id(request)]
        self._stats.completed += 1
        self._stats.rows += len(mentions)
        return response

    async def _take_slot(self) -> float:
        try:
            return await self._slots.take()
        except Busy:
            raise ApiError(*HTTP_FAULTS["http_503"]) from None

    # For tests and benchmarks

    async def _get_stats(self, _: web.Request) -> web.Response:
        return _json(self._stats.as_dict() | {"waiting": self._slots.waiting})

    async def _control(self, request: web.Request) -> web.Response:
        changes = await _body(request)
        reset = changes.pop("reset", False)
        self._set(self._behaviour.changed(changes))
        if reset:
            self._stats.reset()
            self._asked.clear()
        return _json(asdict(self._behaviour))


async def _what_it_is(_: web.Request) -> web.Response:
    return web.Response(text=WHAT_IT_IS)


async def _version(_: web.Request) -> web.Response:
    return _json({"version": API_VERSION})


def _photo(images: Sequence[str]) -> PhotoFacts:
    return photo_facts(images[0])


def _outcome(call: Call, question: Question, mentions: Sequence[Mention], fault: str | None) -> Outcome:
    if fault == "shortened":
        # A schema makes a model answer for rows too that it has not seen.
        unseen = [replace(mention, title="", content="") for mention in mentions]
        return Outcome(answer(question, unseen).text, shortened=True)
    reply = answer(question, mentions)
    if fault in (*CONTENT_FAULTS, *OPINIONS):
        return Outcome(spoil(reply, str(fault)), "length" if fault == "length" else "stop")
    return within_limit(call, Outcome(reply.text))


async def _deliver(
    request: web.Request, call: Call, outcome: Outcome, fault: str | None
) -> web.StreamResponse:
    match fault:
        case "hang":
            await asyncio.Event().wait()  # until the client goes
        case "html":
            return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
        case "error_200":
            return _json(error_body(call.api, "the runner has ended, an error under 200 on purpose"))
        case "drip":
            return await _send(request, _bytes_of(body_of(call, outcome)), DRIP_S)
        case "disconnect" | "reset":
            whole = body_of(call, outcome)
            await _send(request, [whole[: len(whole) // 2]], 0, len(whole))
            _abort(request, reset=fault == "reset")
            return web.Response()
    if call.stream:
        kind = "text/event-stream" if call.api == "openai" else "application/x-ndjson"
        return await _send(request, stream_of(call, outcome), 0, kind=kind)
    return _json(body_of(call, outcome))


def _bytes_of(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


async def _send(
    request: web.Request,
    pieces: Any,
    pause_s: float,
    length: int | None = None,
    kind: str = "application/json",
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": kind})
    if length is not None:
        response.content_length = length
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        if pause_s:
            await asyncio.sleep(pause_s)
    if length is None:
        await response.write_eof()
    return response


def _abort(request: web.Request, reset: bool = False) -> None:
    """Close the connection at once: with TCP's FIN, or its RST."""
    transport = request.transport
    if not isinstance(transport, asyncio.Transport):
        return
    connection = transport.get_extra_info("socket")
    if reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"invalid JSON: {error}", "invalid_request_error") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", "invalid_request_error")
    return body


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
