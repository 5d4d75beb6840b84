"""Clients of model servers (Ollama, its cloud, OpenAI's API), behind one interface, `ModelServer`."""

from prism.modelserver.backends import Endpoint, connect, endpoints
from prism.modelserver.errors import (
    AccessRefused,
    AwayReason,
    CallFailed,
    CallTimeout,
    ModelMissing,
    ModelNotRunningError,
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
from prism.modelserver.openai_api import OpenAICompatible, SchemaSupport
from prism.modelserver.server import (
    ChatMessage,
    ChatReply,
    ChatRequest,
    ModelDescription,
    ModelInfo,
    ModelServer,
)

__all__ = [
    "AccessRefused",
    "AwayReason",
    "CallFailed",
    "CallTimeout",
    "ChatMessage",
    "ChatReply",
    "ChatRequest",
    "Endpoint",
    "ModelDescription",
    "ModelInfo",
    "ModelMissing",
    "ModelNotRunningError",
    "ModelServer",
    "ModelServerError",
    "Ollama",
    "OpenAICompatible",
    "PromptTruncated",
    "QuotaExhausted",
    "ReplyTruncated",
    "ReplyUnusable",
    "RequestRefused",
    "SchemaSupport",
    "ServerAway",
    "UnusableReason",
    "connect",
    "endpoints",
]
