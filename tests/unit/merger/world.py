"""A merger without a broker: runs, results and an outlet that keeps what it is given."""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from prism.kafka.records import Record
from prism.messages import (
    Cursor,
    MessageReason,
    MessageSource,
    OutputPublished,
    Progress,
    Result,
    ResultRow,
    RunFile,
    RunRecord,
    RunState,
    Usage,
)
from prism.runs.table import RunsTable
from prism.service import tracing
from prism_merger.accounts import RunAccount, Stage
from prism_merger.desk import run_through
from prism_merger.ledger import Ledger
from prism_merger.merging import Merger
from prism_merger.metrics import Metrics
from prism_merger.places import Places
from prism_merger.progress import ProgressMaker
from prism_merger.publication import Publisher, parts_order
from prism_merger.store import RowReader, Store
from prism_merger.teller import Listener, Teller
from prism_merger.verdict import verdict

COLUMNS = ["RowID", "Message", "Score"]
PROMPT = {"system_prompt": "Say what it is.", "columns_to_code": ["Topic", "Urgency"]}
NOW = 1_800_000_000.0


def run_record(
    run_id: str = "r1",
    rows: int = 25,
    batch: int = 10,
    labels: Sequence[str] = ("march",),
    state: RunState = RunState.RUNNING,
    job: dict[str, Any] | None = None,
    created_at: str = "2026-11-21T10:00:00Z",
    partition: int = 0,
    parent: str = "",
) -> RunRecord:
    files = [
        RunFile(
            label=label,
            filename=f"{label}.csv",
            source=MessageSource(partition=0, offsets=[0]),
            sha256="ab" * 32,
            columns=COLUMNS,
            rows=rows,
            batches=-(-rows // batch),
        )
        for label in labels
    ]
    return RunRecord(
        run_id=run_id, epoch=1, state=state, job=job or {}, prompt=PROMPT, files=files,
        results_partition=partition, created_at=created_at,
        parent=parent,
    )  # fmt: skip


def result(
    record: RunRecord, sequence: int, batch: int = 10, label: str = "march", worker: str = "w1"
) -> Result:
    """The result that any worker gives for a sequence; every seventh row fails."""
    file = record.file(label)
    assert file is not None
    numbers = range(sequence * batch, min(file.rows, (sequence + 1) * batch))
    return Result(
        run_id=record.run_id, label=label, sequence=sequence, first_row=numbers.start,
        rows=[_row(label, number) for number in numbers], model="prism-embedded", batch_size=batch,
        usage=Usage(calls=1, prompt_tokens=100, completion_tokens=20, model_seconds=0.5), worker_id=worker,
    )  # fmt: skip


def _row(label: str, number: int) -> ResultRow:
    score = int(hashlib.sha256(f"{label}{number}".encode()).hexdigest()[:4], 16) % 50
    cells = [f"{number + 1:03}", f'text "{number}", with\nnewline ü', str(score)]
    if number % 7 == 6:
        return ResultRow(row_id=cells[0], cells=cells, reason="schema_violation", detail="two keys")
    return ResultRow(row_id=cells[0], cells=cells, values=["=Billing" if number % 5 else "Other", "low"])


def record_of(one: Result | bytes, offset: int, partition: int = 0) -> Record:
    value = one if isinstance(one, bytes) else one.to_bytes()
    return Record("prism.results", partition, offset, "", value, 0, cast(Any, None))


@dataclass
class KeptOutlet:
    """Keeps what would be sent."""

    told: list[Progress] = field(default_factory=list)
    announced: list[OutputPublished] = field(default_factory=list)
    announced_in: list[tracing.Parent] = field(default_factory=list)
    dead: list[tuple[MessageReason, str]] = field(default_factory=list)
    dead_offsets: list[int] = field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def announce(self, event: OutputPublished, parent: tracing.Parent = None) -> None:
        self.announced.append(event)
        self.announced_in.append(parent)

    def dead_letter(self, record: Record, reason: MessageReason, detail: str) -> None:
        self.dead.append((reason, detail))
        self.dead_offsets.append(record.offset)

    def settle(self) -> None:
        pass


class World:
    """One life of a merger on a folder; make another on the same folder for the next life."""

    def __init__(
        self,
        folder: Path,
        records: Iterable[RunRecord] = (),
        outlet: KeptOutlet | None = None,
        schemes: frozenset[str] = frozenset(),
    ) -> None:
        self.table = RunsTable()
        self.places = Places(folder)
        self.store = Store(folder / "merger-0")
        self.outlet = outlet or KeptOutlet()
        self.ledger = Ledger(self.store, self.table, cluster_id="c1")
        metrics = Metrics()
        progress = ProgressMaker("m", self.places, lambda: NOW, lambda: NOW)
        self._listeners: list[Listener] = []
        self.teller = teller = Teller(self.ledger, progress, self.outlet, self._listeners)
        self.publisher = Publisher(
            self.store, self.ledger, self.places, self.outlet, metrics, lambda: NOW, teller.tell, schemes
        )
        self.refreshed = 0
        self.merger = Merger(self.store, self.ledger, self.outlet, metrics, lambda: NOW, self._refresh)
        self.cursor: Cursor | None = None
        for record in records:
            self.take_in(record)

    def _refresh(self) -> None:
        self.refreshed += 1

    def take_in(self, record: RunRecord) -> None:
        self.table.apply(record.run_id, record.to_bytes())
        self.ledger.take_in(record)

    def merge(self, results: Iterable[Result | bytes], first_offset: int = 0) -> None:
        """Merge some results as one commit."""
        records = [record_of(one, first_offset + number) for number, one in enumerate(results)]
        self.merger.merge(records, {0: first_offset + len(records)})

    def listen(self, *listeners: Listener) -> None:
        """Let others hear what is told from now on."""
        self._listeners.extend(listeners)

    def tell(self, run_id: str = "r1") -> None:
        """Tell a run's progress, as the loop does after a commit and once a second."""
        self.teller.tell(self.run(run_id))

    def run(self, run_id: str = "r1") -> RunAccount:
        found = self.ledger.find(run_id)
        assert found is not None
        return found

    def write_parts(self, run_id: str = "r1") -> None:
        run = self.run(run_id)
        for file in run.files.values():
            if parts_order(run, file, self.ledger.plan(run_id), last=False).due:
                self._through(run, parts=True)

    def finish(self, run_id: str = "r1", silent_s: float = 0.0) -> RunAccount:
        """Decide and publish, if it is due."""
        run = self.run(run_id)
        if run.stage is Stage.MERGING:
            record = self.ledger.record(run_id)
            plan = self.ledger.plan(run_id)
            parent = self.table.runs.get(plan.record.parent)
            found = verdict(run, plan, record, self.cursor, silent_s, 10.0, parent)
            if found is None:
                return run
            self.publisher.decide(run, found)
        self._through(run)
        return run

    def _through(self, run: RunAccount, parts: bool = False) -> None:
        reader = RowReader(self.store.path)
        try:
            if parts:
                for file in run.files.values():
                    run_through(self.publisher.parts(run, file), reader)
            else:
                run_through(self.publisher.publish(run), reader)
        finally:
            reader.close()

    def files(self) -> dict[str, bytes]:
        """Everything that people see, manifests apart."""
        found = sorted(self.places.root.glob("output/*")) + sorted(self.places.root.glob("checkpoints/*/*"))
        return {one.name: one.read_bytes() for one in found}

    def close(self) -> None:
        self.store.close()


def shuffled(items: Iterable[Result], seed: int) -> list[Result]:
    found = list(items)
    random.Random(seed).shuffle(found)
    return found
