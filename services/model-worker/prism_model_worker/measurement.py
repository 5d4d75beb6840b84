"""Every call to a model is measured here, whoever makes it: batches, requests, canaries."""

import time

from prism.modelserver.errors import ModelServerError, error_type
from prism.modelserver.server import ChatReply, ChatRequest, ModelDescription, ModelInfo, ModelServer
from prism.service.metrics import OTHER
from prism_model_worker import metrics

# The convention's word for what all these calls are.
OPERATION = "chat"


class MeasuredServer:
    """A `ModelServer` whose calls are counted; it adds nothing else.

    provider: OpenTelemetry's `gen_ai.provider.name`; "openai" is whoever speaks OpenAI's API.
    """

    def __init__(self, server: ModelServer, provider: str) -> None:
        self._server = server
        self._provider = provider

    def chat(self, request: ChatRequest) -> ChatReply:
        began = time.perf_counter()
        failed = OTHER
        try:
            reply = self._server.chat(request)
            failed = ""
        except ModelServerError as error:
            failed = error_type(error)
            raise
        finally:
            seconds = time.perf_counter() - began
            labels = (OPERATION, self._provider, metrics.MODEL(request.model))
            metrics.OPERATION_SECONDS.labels(*labels, failed).observe(seconds)
        _measure_reply(reply, labels, seconds)
        return reply

    def version(self) -> str:
        return self._server.version()

    def models(self) -> list[ModelInfo]:
        return self._server.models()

    def assert_model(self, name: str) -> None:
        self._server.assert_model(name)
        # Before its first call, so that this one is seen.
        metrics.OPERATION_SECONDS.labels(OPERATION, self._provider, metrics.MODEL(name), "")

    def describe(self, name: str) -> ModelDescription:
        return self._server.describe(name)

    def close(self) -> None:
        self._server.close()


def _measure_reply(reply: ChatReply, labels: tuple[str, str, str], seconds: float) -> None:
    for kind, tokens in (("input", reply.prompt_tokens), ("output", reply.completion_tokens)):
        if tokens:  # 0 is a server that does not count
            metrics.TOKEN_USAGE.labels(*labels, kind).observe(tokens)
    for part, spent in parts_of(reply, seconds).items():
        metrics.MODEL_TIME.labels(labels[2], part).inc(spent)


def parts_of(reply: ChatReply, seconds: float) -> dict[str, float]:
    """Return what the seconds of a call went to, as far as the server tells; they add up to `seconds`.

    A server's clock is not ours: what it tells beyond the call's own time is cut.
    """
    if reply.compute_seconds is None:
        return {"untold": seconds}
    left = seconds
    found = {}
    queued = max(0.0, reply.seconds - reply.load_seconds - reply.compute_seconds)
    for part, told in (("compute", reply.compute_seconds), ("load", reply.load_seconds), ("queue", queued)):
        found[part] = min(told, left)
        left -= found[part]
    return {**found, "transfer": left}
