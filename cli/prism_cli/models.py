"""`prism models`: which models there are, and what their servers say of them now."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.text import Text

from prism.modelserver import (
    AccessRefused,
    CallTimeout,
    Endpoint,
    ModelDescription,
    ModelMissing,
    ModelServer,
    ModelServerError,
    QuotaExhausted,
    ServerAway,
    endpoints,
)
from prism.modelserver.cloud import CLOUD_HOST
from prism.runs.catalogue import Catalogue, CatalogueRefused, ModelEntry, read_catalogue
from prism_cli import connection as connections
from prism_cli import fleet_file, model_check
from prism_cli.console import count, output, printable, say, table, write_json
from prism_cli.exits import BAD_INPUT, DONE, MODEL_AWAY, CommandFailed
from prism_cli.model_choice import USUAL_URL, base_url
from prism_cli.up import jobs_dir

T = TypeVar("T")

_TIMEOUT_S = 3.0
_THERE = "there"
_STATES: tuple[tuple[type[ModelServerError], str], ...] = (
    (ModelMissing, "missing"),
    (AccessRefused, "no access"),
    (QuotaExhausted, "quota exhausted"),
    (ServerAway, "server away"),
    (CallTimeout, "server away"),
)
_STYLES = {_THERE: "green", "missing": "yellow"}


@dataclass(frozen=True, slots=True)
class Known:
    """What is configured: the models of `models.json`, and the server of all others."""

    catalogue: Catalogue
    default: Endpoint
    environ: Mapping[str, str]

    def endpoints(self, entry: ModelEntry) -> tuple[Endpoint, ...]:
        """Return where a model answers. Raises AccessRefused without its key."""
        return endpoints(entry, self.default, self.environ)


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model on a server. `description` holds nothing but the name unless the model is there."""

    entry: ModelEntry
    server: str
    state: str
    detail: str
    description: ModelDescription

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        entry, found = self.entry, self.description
        return {
            "name": entry.name,
            "id": entry.id,
            "description": entry.description,
            "recommended_for": entry.recommended_for,
            "backend": entry.backend,
            "server": self.server,
            "state": self.state,
            "detail": self.detail,
            "digest": found.digest or None,
            "context_length": found.context_length or entry.context_length,
            "images": self.images,
            "schema": self.schema,
            "parameters": found.parameters,
            "quantisation": found.quantisation,
        }

    @property
    def images(self) -> bool | None:
        """Whether the model sees images: by its server, else by `models.json`."""
        told = self.description.supports_images
        return self.entry.supports_images if told is None else told

    @property
    def schema(self) -> bool | None:
        """Whether replies are held to a schema: by the server, else by `models.json`."""
        told, written = self.description.supports_schema, self.entry.supports_schema
        return (None if written is None else written is True) if told is None else told


class Servers:
    """The servers that are asked, each by one client; one that is away is not asked again."""

    def __init__(self) -> None:
        self.away: dict[Endpoint, ModelServerError] = {}
        self.answered = False
        self._clients: dict[Endpoint, ModelServer] = {}

    def ask(self, endpoint: Endpoint, question: Callable[[ModelServer], T]) -> T:
        """Return the server's answer; raise ModelServerError."""
        if endpoint in self.away:
            raise self.away[endpoint]
        try:
            answer = question(self._client(endpoint))
        except (ServerAway, CallTimeout) as error:
            self.away[endpoint] = error
            raise
        except ModelServerError:
            self.answered = True
            raise
        self.answered = True
        return answer

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    def _client(self, endpoint: Endpoint) -> ModelServer:
        if endpoint not in self._clients:
            self._clients[endpoint] = model_check.client(endpoint, _TIMEOUT_S)
        return self._clients[endpoint]


def run(options: Namespace) -> int:
    """List the models, or check one of them."""
    known = find(options, connections.environment())
    if options.action == "check":
        return model_check.run(options.name, _places(known, options.name), options.json)
    servers = Servers()
    try:
        found = list(views(known, servers))
    finally:
        servers.close()
    if options.json:
        write_json({"default_server": known.default.address, "models": [one.as_json() for one in found]})
    elif found:
        output().print(screen(found))
    for endpoint, error in servers.away.items():
        say(f"prism: {printable(endpoint.address)}: {printable(str(error))}")
    return DONE if servers.answered else MODEL_AWAY


def _places(known: Known, name: str) -> tuple[Endpoint, ...]:
    try:
        return known.endpoints(known.catalogue.entry(name))
    except AccessRefused as error:
        raise model_check.failed(error) from None


def find(options: Namespace, environ: Mapping[str, str]) -> Known:
    """Return what is configured: by the options, this folder's fleet, or the environment.

    Raises CommandFailed (3) for an address or a `models.json` that cannot be used.
    """
    folder = connections.data_dir(options, environ)
    written = fleet_file.read(folder)
    fleet = written if written is not None and fleet_file.alive(folder) else None
    jobs = fleet.jobs_dir if fleet and not options.jobs_dir else jobs_dir(options.jobs_dir, environ)
    usual = fleet.model_server if fleet else environ.get("OLLAMA_HOST") or USUAL_URL
    address = base_url(usual if options.model_server == "auto" else options.model_server)
    try:
        catalogue = read_catalogue(jobs)
    except CatalogueRefused as error:
        raise CommandFailed(BAD_INPUT, str(error), str(jobs), "correct it") from None
    key = environ.get("OLLAMA_API_KEY") or None
    cloud = base_url(environ.get("OLLAMA_CLOUD_HOST") or CLOUD_HOST)
    return Known(catalogue, Endpoint("ollama", address, key, cloud_host=cloud), environ)


def views(known: Known, servers: Servers) -> Iterator[ModelView]:
    """Yield the models of `models.json`, then what else the Ollamas have.

    What else an OpenAI API offers is left out: a hosted one has hundreds.
    """
    shown: set[tuple[str, str, str]] = set()
    asked = {known.default: None}
    for entry in known.catalogue.available_models:
        try:
            places = known.endpoints(entry)
        except AccessRefused as error:
            yield _absent(entry, ", ".join(entry.base_url) or known.default.address, error)
            continue
        for endpoint in places:
            asked.setdefault(endpoint)
            shown.add(_identity(endpoint, entry.name))
            yield view(entry, endpoint, servers)
    for endpoint in asked:
        for name in _listed(endpoint, servers):
            if _identity(endpoint, name) not in shown:
                shown.add(_identity(endpoint, name))
                yield view(Catalogue().entry(name), endpoint, servers)


def view(entry: ModelEntry, endpoint: Endpoint, servers: Servers) -> ModelView:
    """Return a model as its server describes it."""
    try:
        description = servers.ask(endpoint, lambda server: server.describe(entry.name))
    except ModelServerError as error:
        return _absent(entry, endpoint.address, error)
    return ModelView(entry, endpoint.address, _THERE, "", description)


def screen(found: list[ModelView]) -> Any:
    """Return the models as a table."""
    columns = [("model", "fold"), ("id", "right"), ("backend", "left"), ("digest", "left")]
    columns += [("context", "right"), ("images", "left"), ("schema", "left"), ("state", "fold")]
    columns += [("server", "fold")]
    return table(columns, [_cells(one) for one in found])


def _cells(one: ModelView) -> list[str | Text]:
    length = one.description.context_length or one.entry.context_length
    return [
        printable(one.entry.name),
        one.entry.id or "",
        one.entry.backend,
        printable(one.description.digest)[:12],
        count(length) if length else "?",
        _yes_or_no(one.images),
        _yes_or_no(one.schema),
        Text(one.state, style=_STYLES.get(one.state, "red")),
        printable(one.server),
    ]


def _yes_or_no(fact: bool | None) -> str:
    return "?" if fact is None else "yes" if fact else "no"


def _absent(entry: ModelEntry, server: str, error: ModelServerError) -> ModelView:
    state = next((state for kind, state in _STATES if isinstance(error, kind)), "failed")
    return ModelView(entry, server, state, printable(str(error)), ModelDescription(entry.name))


def _listed(endpoint: Endpoint, servers: Servers) -> list[str]:
    if endpoint.backend != "ollama":
        return []
    try:
        return [one.name for one in servers.ask(endpoint, lambda server: server.models()) if one.name]
    except ModelServerError:
        return []  # the models of `models.json` say why, or `away` does


def _identity(endpoint: Endpoint, name: str) -> tuple[str, str, str]:
    return endpoint.backend, endpoint.address, name if ":" in name else f"{name}:latest"
