"""An Ollama and Ollama's cloud as one server: a model's name says which of them answers."""

from dataclasses import replace

from prism.modelserver.cloud import bare_name, cloud_name, is_cloud
from prism.modelserver.ollama import Ollama
from prism.modelserver.server import ChatReply, ChatRequest, ModelDescription, ModelInfo


class OllamaWithCloud:
    """A `ModelServer`: names of cloud models go to `cloud`, under their bare name, all others to `local`.

    Both may be the same. Whoever signs in at the local Ollama instead needs no such thing: it passes
    cloud models on itself.
    """

    def __init__(self, local: Ollama, cloud: Ollama) -> None:
        self._local = local
        self._cloud = cloud

    def chat(self, request: ChatRequest) -> ChatReply:
        server, name = self._route(request.model)
        return replace(server.chat(replace(request, model=name)), model=request.model)

    def version(self) -> str:
        return self._local.version()

    def models(self) -> list[ModelInfo]:
        """Return what `local` has. The cloud may be out of reach: of its models only `describe` tells."""
        if self._local is not self._cloud:
            return self._local.models()
        return [ModelInfo(cloud_name(one.name), one.digest) for one in self._cloud.models()]

    def assert_model(self, name: str) -> None:
        server, known_as = self._route(name)
        server.assert_model(known_as)

    def describe(self, name: str) -> ModelDescription:
        server, known_as = self._route(name)
        return replace(server.describe(known_as), name=name)

    def close(self) -> None:
        self._local.close()
        self._cloud.close()

    def _route(self, name: str) -> tuple[Ollama, str]:
        return (self._cloud, bare_name(name)) if is_cloud(name) else (self._local, name)
