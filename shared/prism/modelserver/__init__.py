"""Clients of model servers, behind one interface, `ModelServer`; Ollama's is the first."""

from prism.modelserver.errors import (
    AccessRefused,
    AwayReason,
    CallFailed,
    CallTimeout,
    ModelMissing,
    ModelServerError,
    PromptTruncated,
    QuotaExhausted,
    ReplyTruncated,
    ReplyUnusable,
    RequestRefused,
    ServerAway,
    UnusableReason,
)
from prism.modelserver.ollama import Ollama
from prism.modelserver.server import ChatMessage, ChatReply, ChatRequest, ModelInfo, ModelServer

__all__ = [
    "AccessRefused",
    "AwayReason",
    "CallFailed",
    "CallTimeout",
    "ChatMessage",
    "ChatReply",
    "ChatRequest",
    "ModelInfo",
    "ModelMissing",
    "ModelServer",
    "ModelServerError",
    "Ollama",
    "PromptTruncated",
    "QuotaExhausted",
    "ReplyTruncated",
    "ReplyUnusable",
    "RequestRefused",
    "ServerAway",
    "UnusableReason",
]
