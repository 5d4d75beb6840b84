"""What every model server can do for us, whichever it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat; `images` are base64 text."""

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call.

    schema: JSON schema that the server is asked to enforce (not all do: validate the reply).
    num_ctx: context length in tokens; keep it constant, a change reloads the model.
    num_predict: most tokens of the reply.
    seed: same seed, same reply, as far as the server can.
    keep_alive: how long the model stays loaded: seconds, a duration ("10m"), -1 for ever, None: the server's.
    think: whether a reasoning model may reason first; None: the server's default (Ollama's is to reason).
    deadline_s: seconds that the whole call may take, from connecting to the last byte.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    num_ctx: int
    num_predict: int
    deadline_s: float
    schema: Mapping[str, Any] | None = None
    temperature: float = 0.0
    seed: int = 0
    keep_alive: str | int | None = None
    think: bool | None = False


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One answer. `seconds` is the model's own time, loading included; `load_seconds` that of loading."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    load_seconds: float
    model: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server has; `digest` identifies its weights."""

    name: str
    digest: str


class ModelServer(Protocol):
    """A model server. Every method may be called from any thread and raises ModelServerError only."""

    def chat(self, request: ChatRequest) -> ChatReply:
        """Make one call, without retries. A reply that is returned is whole, and answers the whole prompt."""
        ...

    def version(self) -> str:
        """Return the server's version: the cheapest proof that it is there."""
        ...

    def models(self) -> list[ModelInfo]:
        """Return the models that the server has."""
        ...

    def assert_model(self, name: str) -> None:
        """Raise ModelMissing unless the server has the model `name`."""
        ...

    def close(self) -> None:
        """Close idle connections. Calls in flight go on."""
        ...
