from collections.abc import Callable, Iterator

import pytest

from prism.modelserver.ollama import Ollama
from prism.modelserver.server import ChatMessage, ChatRequest
from tests.unit.modelserver.server import Handler, ScriptedServer

Serve = Callable[[Handler], tuple[ScriptedServer, Ollama]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a scripted server and a client for it."""
    started: list[tuple[ScriptedServer, Ollama]] = []

    def start(handler: Handler) -> tuple[ScriptedServer, Ollama]:
        server = ScriptedServer(handler)
        client = Ollama(f"127.0.0.1:{server.port}", pool_size=4, health_timeout_s=2.0, connect_timeout_s=2.0)
        started.append((server, client))
        return server, client

    yield start
    for server, client in started:
        client.close()
        server.close()


@pytest.fixture
def request_() -> ChatRequest:
    messages = (ChatMessage("system", "Annotate."), ChatMessage("user", "Schön ✓"))
    return ChatRequest("llama3", messages, num_ctx=4096, num_predict=256, deadline_s=5.0)
