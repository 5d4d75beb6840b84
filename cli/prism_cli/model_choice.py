"""Which model server a local fleet uses, and which of its models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prism.modelserver.errors import ModelServerError
from prism.modelserver.ollama import Ollama
from prism.modelserver.ollama import base_url as read_url
from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, MODEL_AWAY, CommandFailed

EMBEDDED_MODEL = "prism-embedded"
USUAL_URL = "http://127.0.0.1:11434"
_TIMEOUT_S = 3.0
# Models that make vectors answer no question.
_VECTOR_MODELS = ("embed", "minilm", "bge-")
_EXAMPLE = "llama3.2"

# URL → names of the models there; raises ModelServerError.
Lister = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model server and a model. `url` None: the fleet starts the embedded one. `why` is for people."""

    url: str | None
    model: str
    why: str

    @property
    def embedded(self) -> bool:
        return self.url is None


def lister(environ: Mapping[str, str]) -> Lister:
    """Return what asks an Ollama for its models, with OLLAMA_API_KEY if there is one."""
    key = environ.get("OLLAMA_API_KEY") or None

    def list_models(url: str) -> list[str]:
        server = Ollama(url, connect_timeout_s=_TIMEOUT_S, health_timeout_s=_TIMEOUT_S, api_key=key)
        try:
            return [one.name for one in server.models() if one.name]
        finally:
            server.close()

    return list_models


def choose(server: str, model: str | None, environ: Mapping[str, str], ask: Lister) -> ModelChoice:
    """Return the choice for `--model-server` and `--model`; raise CommandFailed (5) when there is none."""
    wanted = model or environ.get("OLLAMA_MODEL") or None
    if server == "embedded":
        return ModelChoice(None, EMBEDDED_MODEL, "asked for by --model-server embedded")
    if server != "auto":
        return _named(base_url(server), wanted, ask)
    url = base_url(environ.get("OLLAMA_HOST") or USUAL_URL)
    try:
        return ModelChoice(url, _pick(url, wanted, ask(url)), "it answers and has the model")
    except ModelServerError:
        why = f"no model server answers at {url}"
    except _NotThere as error:
        why = str(error)
    if model and model != EMBEDDED_MODEL:
        # Who names a model on the command line does not want rules instead.
        raise CommandFailed(MODEL_AWAY, why, "--model", _remedy(model))
    return ModelChoice(None, EMBEDDED_MODEL, why)


def _named(url: str, wanted: str | None, ask: Lister) -> ModelChoice:
    try:
        return ModelChoice(url, _pick(url, wanted, ask(url)), "asked for by --model-server")
    except ModelServerError as error:
        raise CommandFailed(
            MODEL_AWAY, printable(error.what), url, "start it, or use --model-server embedded"
        ) from None
    except _NotThere as error:
        raise CommandFailed(MODEL_AWAY, str(error), "", _remedy(wanted or _EXAMPLE)) from None


class _NotThere(Exception):
    """The server has no such model."""


def _pick(url: str, wanted: str | None, names: list[str]) -> str:
    if wanted:
        if has_model(names, wanted):
            return wanted
        there = ", ".join(printable(one, 60) for one in names[:5]) or "none"
        raise _NotThere(f"{url} has no model {printable(wanted, 60)} (it has {there})")
    usable = [one for one in names if one.startswith(EMBEDDED_MODEL) or not _makes_vectors(one)]
    if not usable:
        raise _NotThere(f"{url} has no model that answers")
    return usable[0]


def has_model(names: list[str], wanted: str) -> bool:
    """Return whether a model is there; a name without a tag means `latest`."""
    full = wanted if ":" in wanted else f"{wanted}:latest"
    return any(one == wanted or (one if ":" in one else f"{one}:latest") == full for one in names)


def _makes_vectors(name: str) -> bool:
    return any(mark in name.lower() for mark in _VECTOR_MODELS)


def _remedy(model: str) -> str:
    return f"ollama pull {printable(model, 60)}, or use --model-server embedded"


def base_url(text: str) -> str:
    """Return a model server's URL; raise CommandFailed (3) for what is none."""
    try:
        return read_url(text)
    except ValueError as error:
        raise CommandFailed(
            BAD_INPUT, str(error), next=f"give auto, embedded or a URL like {USUAL_URL}"
        ) from None


def switch_hint() -> str:
    """Return how to go from the embedded server to a language model."""
    return f"ollama pull {_EXAMPLE}, then prism up --model {_EXAMPLE}"
