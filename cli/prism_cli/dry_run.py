"""`prism submit --dry-run`: what a file would take, without sending it.

The file is checked as pass 1 checks it; then a few of its batches, drawn at random, are asked for real, and
what they took is told for the whole file. No broker is needed.
"""

import logging
import random
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.messages import RunFile, RunRecord, RunState, UriSource
from prism.modelserver import AccessRefused, Endpoint
from prism.runs.forecast import forecast
from prism.runs.job import Job, read_job
from prism.runs.models import recorded_entries
from prism.runs.ranges import RowRanges
from prism.service.settings import load
from prism_cli import connection as connections
from prism_cli import fleet_file, model_check, models
from prism_cli.console import count, interactive, messages, output, printable, say, write_json
from prism_cli.exits import DONE, CommandFailed
from prism_cli.model_choice import choose, lister
from prism_cli.models import Known
from prism_cli.prediction import Prediction, screen, warnings
from prism_cli.submission import Source, assert_job, examine
from prism_cli.survey import check, survey
from prism_cli.trial import Trial, open_servers
from prism_cli.up import jobs_dir
from prism_ingestor.checking import table_format
from prism_ingestor.settings import IngestorSettings
from prism_model_worker.settings import WorkerSettings
from prism_model_worker.sharing import SharedAnswers

# Batches of a sample: enough for an interval, few enough to wait for.
SAMPLE = 10
_RUN_ID = "dry-run"
# The services' settings want a broker; nobody connects to it.
_NO_BROKER = "127.0.0.1:1"
_WORKER = "model-worker"

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is configured. model: the job's, or the fleet's own if that is known; workers: of the fleet."""

    job_name: str
    job: Job
    fields: dict[str, Any]
    jobs_dir: Path
    known: Known
    model: str | None
    workers: int
    ingestor: IngestorSettings
    worker: WorkerSettings
    # None: the job's prompt file is read beside the job.
    prompt: dict[str, Any] | None = None

    def record(self, file: RunFile, prompt: Mapping[str, Any]) -> RunRecord:
        """Return the run that the file would be."""
        return RunRecord(
            run_id=_RUN_ID,
            epoch=1,
            state=RunState.RUNNING,
            job_name=self.job_name,
            job=self.fields,
            prompt=dict(prompt),
            files=[file],
            **recorded_entries(self.known.catalogue, self.job.model),
        )

    def places(self) -> tuple[Endpoint, ...]:
        """Return the servers that would be asked. Raises CommandFailed (5) without their key."""
        if self.job.model.only is None:
            return (self.known.default,)
        try:
            return self.known.endpoints(self.known.catalogue.entry(self.job.model.only))
        except AccessRefused as error:
            raise model_check.failed(error) from None


def run(options: Namespace) -> int:
    """Foretell what a run of the file takes. Sends nothing to a broker; makes the sample's calls."""
    # What the services' parts would log, this command says in its own words.
    logging.getLogger("prism").addHandler(logging.NullHandler())
    plan = make_plan(options, connections.environment())
    source = examine(options.file)
    with tempfile.TemporaryDirectory(prefix="prism-dry-run-") as folder, telling() as tell:
        found = predict(plan, source, options.sample or SAMPLE, options.concurrency, Path(folder), tell)
    if options.json:
        write_json(found.as_json())
    else:
        output().print(screen(found))
    for line in warnings(found):
        say(f"prism: {line}")
    return DONE


def make_plan(options: Namespace, environ: Mapping[str, str]) -> Plan:
    """Return what is configured: by the options, this folder's fleet, or the environment.

    Raises CommandFailed (3) and JobRefused for what cannot be used.
    """
    known = models.find(options, environ)
    folder = connections.data_dir(options, environ)
    written = fleet_file.read(folder)
    fleet = written if written is not None and fleet_file.alive(folder) else None
    jobs = fleet.jobs_dir if fleet and not options.jobs_dir else jobs_dir(options.jobs_dir, environ)
    assert_job(options.job, jobs)
    job, fields = read_job(jobs / f"{options.job}.yaml")
    data_dir = fleet.data_dir if fleet else folder
    ingestor, worker = service_settings(environ, data_dir)
    here = fleet if options.model_server == "auto" else None
    return Plan(
        job_name=options.job,
        job=job,
        fields=fields,
        jobs_dir=jobs,
        known=known,
        model=job.model.only or (here.model if here else None) or environ.get("OLLAMA_MODEL") or None,
        workers=max(1, sum(one.name == _WORKER for one in fleet.services) if fleet else 1),
        ingestor=ingestor,
        worker=worker,
    )


def service_settings(environ: Mapping[str, str], data_dir: Path) -> tuple[IngestorSettings, WorkerSettings]:
    """Return the settings that the services would have here."""
    told = {**environ, "BOOTSTRAP_SERVER": _NO_BROKER, "PRISM_DATA_DIR": str(data_dir)}
    return load(IngestorSettings, told), load(WorkerSettings, told)


def predict(
    plan: Plan,
    source: Source,
    wanted: int,
    concurrency: int | None,
    folder: Path,
    tell: Tell,
    ranges: RowRanges | None = None,
) -> Prediction:
    """Check the file, ask `wanted` batches of it, and return what follows. folder: for scratch."""
    tell(f"checking {printable(source.path.name)}")
    # A name that is not UTF-8 cannot travel; what it says of the format can.
    name = source.path.name.encode(errors="replace").decode()
    file = RunFile(
        label=_RUN_ID,
        filename=name,
        source=linked_uri(source, folder),
        sha256=source.sha256,
        ranges=ranges or [],
    )
    checked = check(
        plan.record(file, plan.prompt or {}),
        source.path,
        plan.jobs_dir,
        plan.ingestor.max_source_bytes,
        folder,
    )
    model = plan.model or _first_model(plan)
    servers, digest = open_servers(model, plan.places(), plan.worker.health_timeout_s)
    record = plan.record(checked.files[0], checked.prompt)
    with closing(Trial(record, model, servers, plan.worker)) as trial:
        tell(f"reading {count(checked.files[0].rows)} rows")
        memories = tuple(SharedAnswers(plan.worker.shared_rows) for _ in range(plan.workers))
        fmt = table_format(plan.job, checked.prompt, checked.files[0])
        # The same file, the same sample.
        rng = random.Random(source.sha256)
        found = survey(checked.plains[0], fmt, trial.context, wanted, memories, rng)
        for number, one in enumerate(found.sample, 1):
            tell(f"asking the model: batch {number} of {len(found.sample)}")
            trial.ask(one)
    return Prediction(
        filename=source.path.name,
        job_name=plan.job_name,
        job=plan.job,
        model=model,
        server=", ".join(address for address, _ in servers),
        digest=digest,
        price=plan.known.catalogue.entry(model).price,
        workers=plan.workers,
        concurrency=concurrency,
        batches=checked.files[0].batches,
        survey=found,
        outcome=trial.outcome,
        forecast=forecast(trial.outcome.taken, found.population),
    )


def linked_uri(source: Source, folder: Path) -> UriSource:
    """Return the address of a file by a link in `folder`: a URI cannot carry a name that is not UTF-8."""
    link = folder / "source"
    link.symlink_to(source.path.resolve())
    return UriSource(uri=link.absolute().as_uri(), encoding="gzip" if source.encoding == "gzip" else None)


def _first_model(plan: Plan) -> str:
    """Return the model that `prism up` would take where none is named. Raises CommandFailed (5)."""
    address = plan.known.default.address
    try:
        return choose(address, None, {}, lister(plan.known.environ)).model
    except CommandFailed as error:
        advice = "start it, or name a model: in the job, or by OLLAMA_MODEL"
        raise CommandFailed(error.code, error.what, printable(error.where or address), advice) from None


@contextmanager
def telling() -> Iterator[Tell]:
    """Say what is going on while somebody watches."""
    console = messages()
    if not interactive(console):
        yield lambda _: None
        return
    with console.status("") as status:
        yield status.update
