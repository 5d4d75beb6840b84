"""From what is configured to a client: the one place that knows every backend."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast, get_args

from prism.modelserver import ollama
from prism.modelserver.bodies import one_line
from prism.modelserver.cloud import CLOUD_HOST
from prism.modelserver.errors import AccessRefused, AwayReason, ServerAway
from prism.modelserver.ollama import Ollama
from prism.modelserver.ollama_cloud import OllamaWithCloud
from prism.modelserver.openai_api import OpenAICompatible, SchemaSupport
from prism.modelserver.server import ModelServer
from prism.modelserver.transport import bearer
from prism.runs.catalogue import BackendKind, ModelEntry


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls go, and how.

    address: as people write it. api_key: bearer key; for Ollama it also opens the cloud, at `cloud_host`.
    schema_support, context_length: of OpenAI's API only, see `OpenAICompatible`. keep_alive: of Ollama's.
    """

    backend: BackendKind
    address: str
    api_key: str | None = field(default=None, repr=False)
    schema_support: SchemaSupport = "json_schema"
    context_length: int | None = None
    cloud_host: str = CLOUD_HOST
    keep_alive: str | int | None = None


def endpoints(entry: ModelEntry, default: Endpoint, environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """Return where a model of the catalogue answers: at its own servers, or else at the default one.

    A key goes only where it was named for: the default's does not go to an entry's own servers.
    Raises AccessRefused when the environment lacks the key that the entry names, or has none that can be
    one, and ServerAway for a backend that only a newer version knows.
    """
    backend, key = _backend(entry), _key(entry, environ)
    if not entry.base_url:
        return (replace(default, api_key=key or default.api_key),)
    return tuple(
        Endpoint(
            backend=backend,
            address=address,
            api_key=key,
            schema_support=_schema_support(entry),
            context_length=entry.context_length,
            cloud_host=default.cloud_host,
            keep_alive=default.keep_alive,
        )
        for address in entry.base_url
    )


def connect(
    endpoint: Endpoint,
    *,
    pool_size: int = 16,
    connect_timeout_s: float = 5.0,
    health_timeout_s: float = 5.0,
) -> ModelServer:
    """Return the client of an endpoint; nothing is sent yet. For the parameters see `Ollama`.

    Raises ValueError for an address or a key that cannot be one.
    """
    if endpoint.backend == "openai":
        return OpenAICompatible(
            endpoint.address,
            pool_size=pool_size,
            connect_timeout_s=connect_timeout_s,
            health_timeout_s=health_timeout_s,
            api_key=endpoint.api_key,
            schema_support=endpoint.schema_support,
            context_length=endpoint.context_length,
        )

    def client(host: str, in_cloud: bool) -> Ollama:
        return Ollama(
            host,
            pool_size=pool_size,
            connect_timeout_s=connect_timeout_s,
            health_timeout_s=health_timeout_s,
            api_key=endpoint.api_key,
            in_cloud=in_cloud,
            keep_alive=endpoint.keep_alive,
        )

    if bearer(endpoint.api_key) is None:
        return client(endpoint.address, in_cloud=False)
    cloud = client(endpoint.cloud_host, in_cloud=True)
    is_the_cloud = ollama.base_url(endpoint.address) == cloud.base_url
    return OllamaWithCloud(cloud if is_the_cloud else client(endpoint.address, in_cloud=False), cloud)


def _key(entry: ModelEntry, environ: Mapping[str, str]) -> str | None:
    if entry.api_key_env is None:
        return None
    key = environ.get(entry.api_key_env, "").strip()
    if not key:
        what = f"no key for the model {entry.name}: {entry.api_key_env} is not set"
        raise AccessRefused(what, "models.json", f"set {entry.api_key_env} or {entry.api_key_env}_FILE")
    try:
        bearer(key)
    except ValueError as error:
        what = f"no key for the model {entry.name}: {error}"
        raise AccessRefused(what, entry.api_key_env, "set it to the key alone") from None
    return key


def _backend(entry: ModelEntry) -> BackendKind:
    if entry.backend not in get_args(BackendKind):
        what = f"this version knows no backend {one_line(entry.backend)} (model {entry.name})"
        raise ServerAway(what, "models.json", "update the worker", reason=AwayReason.NOT_ONE)
    return cast(BackendKind, entry.backend)


def _schema_support(entry: ModelEntry) -> SchemaSupport:
    if entry.supports_schema == "json_object":
        return "json_object"
    return "none" if entry.supports_schema is False else "json_schema"
