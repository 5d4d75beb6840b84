"""The spans of a worker's calls and batches, by OpenTelemetry's conventions for generative AI and messaging.

What a model was asked and what it said is in none of them.
"""

from collections.abc import Iterable

from prism.annotation import Answer
from prism.kafka.records import Record, sent_trace
from prism.messages import Batch
from prism.modelserver import ModelServerError
from prism.modelserver.errors import error_type
from prism.modelserver.server import ChatReply, ChatRequest
from prism.service import tracing
from prism_model_worker.endpoints import Lease
from prism_model_worker.tasks import BatchTask, Task


def begun(record: Record, batch: Batch, group: str) -> tracing.Span:
    """Begin the span of a batch that came, until its result is durable."""
    if not tracing.is_on():
        return tracing.OFF
    about: dict[str, str | int] = {
        "messaging.consumer.group.name": group,
        "messaging.kafka.message.key": batch.id,
        "prism.run.id": batch.run_id,
        "prism.batch.rows": len(batch.rows),
    }
    return tracing.process(record, sent_trace(record.headers), about)


def buried(record: Record, group: str, reason: str) -> None:
    """Show a batch that nobody can use."""
    if tracing.is_on():
        about = {"messaging.consumer.group.name": group}
        with tracing.process(record, sent_trace(record.headers), about) as span:
            span.fail(reason)


def asked(record: Record, group: str) -> tracing.Span:
    """Begin the span of a request, until its reply is durable. Its key and its id are its sender's."""
    if not tracing.is_on():
        return tracing.OFF
    return tracing.process(record, sent_trace(record.headers), {"messaging.consumer.group.name": group})


def ended(task: BatchTask) -> None:
    """End the span of a batch whose result is durable."""
    if task.span.recording:
        failed = sum(not isinstance(one, Answer) for one in task.outcomes.values())
        task.span.end(
            {"prism.rows.failed": failed, "prism.rows.reused": task.reused, "prism.calls": task.calls}
        )


def given_back(tasks: Iterable[Task]) -> None:
    """End the spans of what the partition's next owner works on."""
    for task in tasks:
        task.span.fail("given_back")
        task.span.end()


def chat(lease: Lease, request: ChatRequest, parent: tracing.Span, rows: int) -> ChatReply:
    """Make a call, in a span of its own where its cause has one. `rows`: that it asks about."""
    if not parent.recording:
        return lease.server.chat(request)
    about = {
        "gen_ai.request.max_tokens": request.num_predict,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.seed": request.seed,
        "gen_ai.output.type": "text" if request.schema is None else "json",
        "prism.batch.rows": rows,
    }
    span = tracing.chat(parent, lease.endpoint.provider, request.model, lease.endpoint.url, about)
    try:
        reply = lease.server.chat(request)
    except ModelServerError as error:
        span.fail(error_type(error))
        span.end()
        raise
    span.end(
        {
            "gen_ai.response.model": reply.model,
            "gen_ai.usage.input_tokens": reply.prompt_tokens,
            "gen_ai.usage.output_tokens": reply.completion_tokens,
            "prism.model.seconds": reply.seconds,
        }
    )
    return reply
