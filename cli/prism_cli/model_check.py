"""`prism models check`: a few tiny calls to a model, and what they show to work."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from rich.text import Text

from prism.modelserver import (
    AccessRefused,
    CallFailed,
    CallTimeout,
    ChatMessage,
    ChatReply,
    ChatRequest,
    Endpoint,
    ModelDescription,
    ModelMissing,
    ModelServer,
    ModelServerError,
    PromptTruncated,
    QuotaExhausted,
    ReplyTruncated,
    ReplyUnusable,
    RequestRefused,
    ServerAway,
    connect,
)
from prism_cli.console import count, output, printable, say, write_json
from prism_cli.exits import BAD_INPUT, DONE, FAILED, MODEL_AWAY, QUOTA, CommandFailed

# Loading a large model is part of the first call.
_CALL_TIMEOUT_S = 300.0
_HEALTH_TIMEOUT_S = 5.0
# The schema and the words contradict each other: a reply that obeys the schema was held to it.
_QUESTION = "Is water wet? Answer in one plain sentence, not in JSON."
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
# 8 × 8 pixels of blue.
_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGOUs9nHgA0wYRUdtBIA3vgBKDzR4DQAAAAASUVORK5CYII="
)
# What speaks of one request, not of the server or the account.
_OF_THE_REQUEST = (RequestRefused, CallFailed, ReplyUnusable, ReplyTruncated, PromptTruncated)
_AWAY = (ServerAway, ModelMissing, AccessRefused, CallTimeout)


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something works, None if the calls do not tell, and how that shows."""

    works: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What the calls to one server showed. Times in seconds; counts are of the first call."""

    server: str
    backend: str
    digest: str | None
    context_length: int | None
    latency_s: float
    load_s: float
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: float | None
    schema: Finding
    images: Finding
    logprobs: Finding


def run(name: str, places: tuple[Endpoint, ...], as_json: bool) -> int:
    """Check a model on each of its servers and print what works; raise the first failure, CommandFailed."""
    failures: list[CommandFailed] = []
    reports: list[Report] = []
    for endpoint in places:
        try:
            reports.append(_report(name, endpoint))
        except CommandFailed as error:
            failures.append(error)
    if as_json and reports:
        write_json({"model": name, "servers": [asdict(report) for report in reports]})
    for report in () if as_json else reports:
        _show(name, report)
    for failure in failures[1:]:
        say(f"prism: {printable(str(failure))}")
    if failures:
        raise failures[0]
    return DONE


def client(endpoint: Endpoint, timeout_s: float) -> ModelServer:
    """Return a client that waits for a connection, and for everything but calls, this long.

    Raises CommandFailed (3) for what is no address.
    """
    try:
        return connect(endpoint, pool_size=1, connect_timeout_s=timeout_s, health_timeout_s=timeout_s)
    except ValueError as error:
        raise CommandFailed(BAD_INPUT, str(error), next="correct the address or the key") from None


def failed(error: ModelServerError) -> CommandFailed:
    """Return the end of a command that a model server's error means."""
    code = QUOTA if isinstance(error, QuotaExhausted) else MODEL_AWAY if isinstance(error, _AWAY) else FAILED
    return CommandFailed(code, error.what, error.where, error.next)


def _report(name: str, endpoint: Endpoint) -> Report:
    try:
        with closing(client(endpoint, _HEALTH_TIMEOUT_S)) as server:
            return check(server, server.describe(name), endpoint)
    except ModelServerError as error:
        raise failed(error) from None


def check(
    server: ModelServer,
    described: ModelDescription,
    endpoint: Endpoint,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Return what a few calls show; raise ModelServerError when the model answers none."""
    request = ChatRequest(
        model=described.name,
        messages=(ChatMessage("user", _QUESTION),),
        # Ollama's own default: a model that is loaded with another context is loaded again.
        num_ctx=4096,
        num_predict=1024,
        deadline_s=_CALL_TIMEOUT_S,
        schema=_SCHEMA,
    )
    started = clock()
    first = _attempt(server, request)
    schema = _schema(first)
    if not schema.works:
        request = replace(request, schema=None)
    if isinstance(first, ModelServerError):
        started = clock()
        first = server.chat(request)
    latency_s = clock() - started
    working_s = first.seconds - first.load_seconds
    return Report(
        server=endpoint.address,
        backend=endpoint.backend,
        digest=described.digest or None,
        context_length=described.context_length,
        latency_s=round(latency_s, 3),
        load_s=round(first.load_seconds, 3),
        prompt_tokens=first.prompt_tokens,
        completion_tokens=first.completion_tokens,
        tokens_per_s=round(first.completion_tokens / working_s, 1) if working_s > 0 else None,
        schema=schema,
        images=_images(server, request, described, first),
        logprobs=_logprobs(_attempt(server, replace(request, logprobs=True))),
    )


def _attempt(server: ModelServer, request: ChatRequest) -> ChatReply | ModelServerError:
    """Return the reply, or the error if it speaks of this request alone; raise any other."""
    try:
        return server.chat(request)
    except _OF_THE_REQUEST as error:
        return error


def _schema(found: ChatReply | ModelServerError) -> Finding:
    if isinstance(found, ModelServerError):
        return Finding(False, printable(found.what))
    try:
        answer = json.loads(found.text)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and answer.keys() == {"answer"} and answer["answer"] in ("yes", "no"):
        return Finding(True, "the reply obeys the schema, against the words of the question")
    return Finding(False, f"the reply does not obey the schema: {printable(found.text, 60)}")


def _images(
    server: ModelServer, request: ChatRequest, described: ModelDescription, without: ChatReply
) -> Finding:
    if described.supports_images is False:
        return Finding(False, "the server says that the model has no eyes: an image would be ignored")
    found = _attempt(server, replace(request, messages=(ChatMessage("user", _QUESTION, (_PICTURE,)),)))
    if isinstance(found, ModelServerError):
        return Finding(False, printable(found.what))
    more = found.prompt_tokens - without.prompt_tokens
    if described.supports_images:
        return Finding(True, "accepted, and the server says that the model has eyes")
    if more > 0:
        return Finding(True, f"accepted: {count(more)} prompt tokens more")
    return Finding(None, "accepted, but the prompt counts no token more: it may have been ignored")


def _logprobs(found: ChatReply | ModelServerError) -> Finding:
    if isinstance(found, ModelServerError):
        return Finding(False, printable(found.what))
    if found.logprobs:
        return Finding(True, f"given for {count(len(found.logprobs))} tokens")
    return Finding(False, "asked for and not given")


def _show(name: str, report: Report) -> None:
    out = output()
    facts = [f"{name} at {report.server}"]
    facts += [f"digest {report.digest[:12]}"] if report.digest else []
    facts += [f"context {count(report.context_length)}"] if report.context_length else []
    out.print(Text(printable(", ".join(facts)), style="bold"), soft_wrap=True)
    for title, finding in (
        ("schema", report.schema),
        ("images", report.images),
        ("logprobs", report.logprobs),
    ):
        sign, style = {True: ("✓ ", "green"), False: ("✗ ", "red"), None: ("? ", "yellow")}[finding.works]
        line = Text(sign, style=style)
        line.append(f"{title:<10}", style="bold")
        line.append(finding.detail)
        out.print(line, soft_wrap=True)
    rate = f", {report.tokens_per_s} tokens/s" if report.tokens_per_s is not None else ""
    tokens = f"{count(report.prompt_tokens)} + {count(report.completion_tokens)} tokens"
    out.print(f"  latency   {report.latency_s} s (loading {report.load_s} s), {tokens}{rate}", soft_wrap=True)
