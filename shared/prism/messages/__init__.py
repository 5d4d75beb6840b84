"""What travels in topics: one model per message, the reasons, the topics' names.

Comes in: nothing. Goes out: models that every process parses and writes, and the JSON Schemas in
`docs/schemas/` that `make schemas` makes of them.
"""

from prism.messages.base import SCHEMA_VERSION, BadMessage, Message
from prism.messages.batch import Batch, BatchRow, Result, ResultRow, Usage, batch_id
from prism.messages.fleet import Command, CommandName, Heartbeat, OutputPublished, RunShare, WorkerState
from prism.messages.intake import Reference, RequestedFile, RunRequest
from prism.messages.progress import FileProgress, MergeState, ModelProgress, OutputFile, Progress
from prism.messages.reasons import FileReason, MessageReason, RowReason
from prism.messages.run import (
    Cursor,
    CutPosition,
    FileCursor,
    MessageSource,
    RunFile,
    RunRecord,
    RunState,
    UriSource,
    cursor_key,
)
from prism.messages.topics import Topics, TopicSpec
from prism.messages.trace import TraceContext

ALL_MESSAGES: tuple[type[Message], ...] = (
    Reference,
    RunRequest,
    RunRecord,
    Cursor,
    Batch,
    Result,
    Progress,
    Heartbeat,
    Command,
    OutputPublished,
)

__all__ = [
    "ALL_MESSAGES",
    "SCHEMA_VERSION",
    "BadMessage",
    "Batch",
    "BatchRow",
    "Command",
    "CommandName",
    "Cursor",
    "CutPosition",
    "FileCursor",
    "FileProgress",
    "FileReason",
    "Heartbeat",
    "MergeState",
    "Message",
    "MessageReason",
    "MessageSource",
    "ModelProgress",
    "OutputFile",
    "OutputPublished",
    "Progress",
    "Reference",
    "RequestedFile",
    "Result",
    "ResultRow",
    "RowReason",
    "RunFile",
    "RunRecord",
    "RunRequest",
    "RunShare",
    "RunState",
    "TopicSpec",
    "Topics",
    "TraceContext",
    "UriSource",
    "Usage",
    "WorkerState",
    "batch_id",
    "cursor_key",
]
