"""What every model server can do for us, whichever it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat; `images` are plain base64 text (PNG, JPEG or WebP: what every server reads).

    A model without eyes may ignore an image in silence (Ollama does, under HTTP 200): see `describe`.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call.

    schema: JSON schema that the server is asked to enforce (not all do: validate the reply).
    num_ctx: context length in tokens; keep it constant, a change reloads the model. Ollama alone takes it:
        elsewhere, and in Ollama's cloud, a model has the context that its server gives it.
    num_predict: most tokens of the reply.
    seed: same seed, same reply, as far as the server can.
    keep_alive: how long the model stays loaded: seconds, a duration ("10m"), -1 for ever, None: the server's.
    think: whether a reasoning model may reason first; None: the server's default (Ollama's is to reason).
    deadline_s: seconds that the whole call may take, from connecting to the last byte.
    logprobs: whether to ask for the log probability of each token of the reply.
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
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One answer.

    prompt_tokens, completion_tokens: 0 where the server does not count them.
    seconds: the model's own time, loading included; the call's, where the server does not tell it.
    load_seconds: that of loading; 0 where the server does not tell it.
    compute_seconds: that of reading the prompt and writing the reply, without any wait for a slot; None where
        the server does not tell it, and then `seconds` is the call's.
    logprobs: of the reply's tokens; empty unless asked for and given.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    load_seconds: float
    model: str
    logprobs: tuple[float, ...] = ()
    compute_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a server has; `digest` identifies its weights, empty where the server does not tell."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a server says of a model. None: it does not say.

    digest: identifies the weights; empty where the server does not tell.
    context_length: tokens. Ollama's is what the model was made for; a call has its own `num_ctx`.
    supports_images: False means that images are refused, or ignored in silence.
    supports_schema: whether the server holds replies to a schema.
    parameters, quantisation: as the server writes them ("8.0B", "Q4_K_M").
    """

    name: str
    digest: str = ""
    context_length: int | None = None
    supports_images: bool | None = None
    supports_schema: bool | None = None
    parameters: str | None = None
    quantisation: str | None = None


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

    def describe(self, name: str) -> ModelDescription:
        """Return what the server says of a model; raise ModelMissing unless it has it."""
        ...

    def close(self) -> None:
        """Close idle connections. Calls in flight go on."""
        ...
