"""`prism run --dry-run`: the plan of a run, and what it would take, without sending it.

Each file is checked as pass 1 checks it and a few of its batches are asked for real; no broker is needed.
"""

import logging
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from rich.text import Text

from prism.modelserver import Endpoint
from prism.modelserver.cloud import CLOUD_HOST
from prism.runs.naming import output_name
from prism_cli import connection as connections
from prism_cli import fleet_file, own_fleet
from prism_cli.console import count, output, printable, say, write_json
from prism_cli.dry_run import SAMPLE, Plan, Tell, predict, service_settings, telling
from prism_cli.exits import DONE
from prism_cli.job_spec import JobSpec, new_run_id, read_spec
from prism_cli.model_choice import base_url
from prism_cli.models import Known
from prism_cli.prediction import Prediction, screen, warnings

_LEAST_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where the run would be: the default model server, its model, and how many workers."""

    address: str
    model: str | None
    workers: int


def run(options: Namespace) -> int:
    """Foretell a run. Sends nothing to a broker; makes the sample's calls."""
    # What the services' parts would log, this command says in its own words.
    logging.getLogger("prism").addHandler(logging.NullHandler())
    spec = read_spec(options.config, options)
    with telling() as tell:
        spec, place, found = foretell(spec, options, tell)
    _tell(spec, place, found, options)
    return DONE


def foretell(
    spec: JobSpec, options: Namespace, tell: Tell, notice: Tell = say
) -> tuple[JobSpec, Place, list[Prediction]]:
    """Return the job with the model that would answer, where it would run, and what each file takes.

    Makes the sample's calls. Raises CommandFailed for a file that is refused and a model that is away.
    """
    environ = connections.environment()
    with (
        tempfile.TemporaryDirectory(prefix="prism-dry-run-") as folder,
        _place(spec, options, environ, notice) as (place, spec),
    ):
        plans = [_plan(one, place, options, environ) for one in _by_model(spec)]
        wanted = max(_LEAST_SAMPLE, (options.sample or SAMPLE) // (len(spec.files) * len(plans)))
        found = []
        for one, plan in product(spec.files, plans):
            scratch = Path(tempfile.mkdtemp(dir=folder))
            found.append(predict(plan, one.source, wanted, options.concurrency, scratch, tell, one.ranges))
        return spec, place, found


def _by_model(spec: JobSpec) -> list[JobSpec]:
    """Return the job for each model that does every row; one that does a share is asked about all."""
    models = spec.job.model
    return [spec.with_model(name) for name in models.names] if models.fans_out else [spec]


@contextmanager
def _place(
    spec: JobSpec, options: Namespace, environ: Mapping[str, str], notice: Tell
) -> Iterator[tuple[Place, JobSpec]]:
    """Yield where the run would be, with a model server of its own if that is what it would have."""
    folder = connections.data_dir(options, environ)
    fleet = fleet_file.read(folder) if fleet_file.alive(folder) else None
    if fleet is not None and options.model_server == "auto":
        workers = sum(one.name == "model-worker" for one in fleet.services)
        yield Place(fleet.model_server, spec.job.model.only or fleet.model, workers), spec
        return
    plan, spec = own_fleet.plan_for(spec, options, environ)
    name = spec.job.model.only or plan.choice.model
    if plan.notice is None:
        yield Place(str(plan.choice.url), name, plan.workers), spec
        return
    notice(plan.notice)
    # Here, for where there is no model server to start (the extra `fleet`) the rest works all the same.
    from prism_embedded.model_server import EmbeddedModelServer

    with EmbeddedModelServer() as server:
        yield Place(server.url, name, plan.workers), spec


def _plan(spec: JobSpec, place: Place, options: Namespace, environ: Mapping[str, str]) -> Plan:
    key = environ.get("OLLAMA_API_KEY") or None
    cloud = base_url(environ.get("OLLAMA_CLOUD_HOST") or CLOUD_HOST)
    ingestor, worker = service_settings(environ, connections.data_dir(options, environ))
    return Plan(
        job_name=spec.name,
        job=spec.job,
        fields=spec.fields,
        jobs_dir=spec.path.parent,
        known=Known(spec.catalogue, Endpoint("ollama", place.address, key, cloud_host=cloud), environ),
        model=spec.job.model.only or place.model,
        workers=max(1, place.workers),
        ingestor=ingestor,
        worker=worker,
        prompt=spec.prompt,
    )


def _tell(spec: JobSpec, place: Place, found: list[Prediction], options: Namespace) -> None:
    run_id = options.run_id or new_run_id(spec, datetime.now())
    if options.json:
        write_json(_as_json(spec, place, run_id, found))
    else:
        _show(spec, place, run_id, found)
    for line in dict.fromkeys(line for one in found for line in warnings(one)):
        say(f"prism: {line}")
    models = spec.job.model
    if models.several and not models.fans_out:
        say(f"prism: the batches go to {len(models.names)} models in turn; this is what {models.only} takes")


def _as_json(spec: JobSpec, place: Place, run_id: str, found: list[Prediction]) -> dict[str, Any]:
    return {
        "dry_run": True,
        "run_id": run_id,
        "model": place.model,
        "models": spec.job.model.names,
        "workers": place.workers,
        "rows": _rows(spec, found),
        "outputs": _outputs(spec, run_id),
        "files": [one.as_json() for one in found],
    }


def _rows(spec: JobSpec, found: list[Prediction]) -> int:
    """Return the rows of the files; several models that do every row are foretold one by one."""
    models = spec.job.model
    return sum(one.survey.rows for one in found) // (len(models.names) if models.fans_out else 1)


def _outputs(spec: JobSpec, run_id: str) -> list[str]:
    project = spec.job.project
    fields = {"project": project.name, "version": project.version, "run_id": run_id}
    fields["date"] = f"{datetime.now():%Y%m%d}"
    return [
        f"{spec.job.output.directory.rstrip('/')}/"
        + output_name(spec.job.output.naming_pattern, {**fields, "label": one.label})
        + f".{form}"
        for one in spec.files
        for form in spec.job.output.formats
    ]


def _by_models(spec: JobSpec) -> str:
    models = spec.job.model
    return f", by {len(models.names)} models" if models.fans_out else ""


def _show(spec: JobSpec, place: Place, run_id: str, found: list[Prediction]) -> None:
    out = output()
    rows = _rows(spec, found)
    lines = Text(overflow="fold")
    facts = [("run", run_id), ("workers", str(place.workers))]
    if len(spec.files) > 1:
        facts.append(("files", count(len(spec.files))))
    if len(found) > 1:
        facts.append(("rows", f"{count(rows)}{_by_models(spec)}"))
    facts += [("output", one) for one in _outputs(spec, run_id)]
    for name, fact in facts:
        lines.append(f"{name:<9}", style="bold")
        lines.append(f"{printable(fact)}\n")
    out.print(lines, end="")
    for one in found:
        out.print(screen(one))
