"""The models that can be taken, and why others cannot."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prism.runs.catalogue import BatchSize, Catalogue
from prism.runs.config_files import find_catalogue
from prism_cli import models, own_fleet
from prism_cli.console import count, printable
from prism_cli.model_choice import EMBEDDED_MODEL, switch_hint
from prism_cli.models import ModelView
from prism_cli.runner.choices import ModelPick

_THERE = "there"
# As PRISM v6 ships them.
_BATCH_SIZES = (
    (1, "Maximum accuracy", "slowest; complex classification, debugging"),
    (5, "Balanced", "high accuracy; production runs"),
    (10, "Fast", "good accuracy; standard classification"),
    (15, "Very fast", "acceptable accuracy; simple labels, high volume"),
)
_EMBEDDED = "answers by rules at once; it is no language model"


@dataclass(frozen=True, slots=True)
class ModelOption:
    """A model as it is shown. problem: why it cannot be taken now; priced: its calls cost money."""

    pick: ModelPick
    name: str
    about: str
    state: str
    server: str
    problem: str = ""
    priced: bool = False
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class SizeOption:
    """A batch size as it is shown."""

    size: int
    name: str
    about: str


def sizes(catalogue: Catalogue) -> list[SizeOption]:
    """Return the batch sizes to choose from: those of `models.json`, else PRISM v6's four."""
    if not catalogue.batch_sizes:
        return [SizeOption(*one) for one in _BATCH_SIZES]
    return [_size(one) for one in catalogue.batch_sizes]


def _size(one: BatchSize) -> SizeOption:
    times = f"{one.speed_multiplier.normalize():f} × the speed of one row a call"
    known = {size: about for size, _, about in _BATCH_SIZES}
    about = known.get(one.size, times) if one.size > 1 else known[1]
    return SizeOption(one.size, printable(one.description, 60) or f"{one.size} rows", about)


def options(job: Path, options: Namespace, environ: Mapping[str, str]) -> list[ModelOption]:
    """Return the models that `models.json` names and the servers have, then the embedded one.

    Asks the servers. Raises CommandFailed for an address or a `models.json` that cannot be used.
    """
    fleet = own_fleet.is_there(options, environ)
    found = list(_seen(job, options, environ, fleet))
    if fleet:
        # A fleet answers with what it has: what is not seen from here may be seen from there.
        return [_fleet_option(), *found]
    embedded = ModelOption(
        ModelPick(EMBEDDED_MODEL, "embedded"), EMBEDDED_MODEL, _EMBEDDED, hint(), "", embedded=True
    )
    return [*(one for one in found if not one.problem), embedded, *(one for one in found if one.problem)]


def _fleet_option() -> ModelOption:
    return ModelOption(ModelPick(None), "the fleet's own", "the model that the fleet serves", _THERE, "")


def _seen(job: Path, options: Namespace, environ: Mapping[str, str], fleet: bool) -> Iterator[ModelOption]:
    catalogue = find_catalogue(job)
    server = options.model_server if options.model_server != "embedded" else "auto"
    place = Namespace(
        data_dir=options.data_dir,
        jobs_dir=catalogue.parent if catalogue else job.parent,
        model_server=server,
    )
    servers = models.Servers()
    try:
        for one in models.views(models.find(place, environ), servers):
            yield _option(one, server, fleet)
        for endpoint, error in servers.away.items():
            yield _away(printable(endpoint.address), printable(error.what, 200))
    finally:
        servers.close()


def _option(one: ModelView, server: str, fleet: bool) -> ModelOption:
    there = one.state == _THERE
    return ModelOption(
        pick=ModelPick(one.entry.name, server),
        name=printable(one.entry.name, 80),
        about=_about(one),
        state=one.state if there or not fleet else f"{one.state}, seen from here",
        server=printable(one.server),
        problem="" if there or fleet else one.detail or one.state,
        priced=one.entry.price is not None,
        embedded=one.entry.name.startswith(EMBEDDED_MODEL),
    )


def _away(server: str, why: str) -> ModelOption:
    problem = f"{why}; start it, then press r"
    return ModelOption(ModelPick(None), f"what {server} has", "", "server away", server, problem)


def _about(one: ModelView) -> str:
    entry, found = one.entry, one.description
    facts = [entry.description, f"for {entry.recommended_for}" if entry.recommended_for else ""]
    facts += [
        found.parameters if found.parameters not in (None, "0") else "",
        f"context {count(found.context_length)}" if found.context_length else "",
    ]
    if entry.name.startswith(EMBEDDED_MODEL):
        facts.insert(0, _EMBEDDED)
    if entry.price is not None:
        price = entry.price
        facts.append(f"{price.prompt:f} + {price.completion:f} {price.currency} per million tokens")
    return printable("; ".join(one for one in facts if one), 200)


def hint() -> str:
    """Return how to get a language model."""
    return f"comes with PRISM, for trying things out; a language model: {switch_hint().split(',')[0]}, then r"
