"""What a dry run finds out about a file without a model: pass 1, its batches, and a sample of them."""

import queue
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prism.annotation import Answer, Problem, build_prompt
from prism.messages import Batch, CutPosition, FileReason, RowReason, RunRecord
from prism.runs.cutting import Cut, cut_rows
from prism.runs.forecast import Population, Reservoir
from prism.runs.ranges import taken
from prism.tables import TableFormat, TableRefused, read_header, read_rows
from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, CommandFailed
from prism_ingestor.checking import Checked, Checker
from prism_ingestor.sources import PlainFile, SourceChanged, Sources
from prism_model_worker.contexts import RunContext
from prism_model_worker.sharing import SharedAnswers
from prism_model_worker.tasks import BatchTask

_LOOK_S = 0.2
_OF_THE_JOB = (FileReason.BAD_JOB, FileReason.BAD_PROMPT)
_ANSWERED = Answer({}, ())


@dataclass(frozen=True, slots=True)
class Sampled:
    """A batch of the sample, the rows of it that are asked, and the characters that the model is shown."""

    batch: Batch
    asked: tuple[int, ...]
    characters: int


@dataclass(slots=True)
class Survey:
    """What a file holds. reused: rows answered as others that say the same, without a call.

    units: batches with rows to ask; of photos each row is one. least_calls: of a unit.
    """

    rows: int = 0
    rejected: int = 0
    reused: int = 0
    asked: int = 0
    characters: int = 0
    units: int = 0
    least_calls: int = 1
    sample: tuple[Sampled, ...] = ()

    @property
    def population(self) -> Population:
        """What the forecast has to know."""
        return Population(self.units, self.asked, self.characters, self.least_calls)


def check(record: RunRecord, path: Path, jobs_dir: Path, max_bytes: int, folder: Path) -> Checked:
    """Return what pass 1 says of a run's one file; raise CommandFailed (3) if it refuses it.

    folder: for what is unpacked, and for scratch; the caller's to remove.
    """
    found = examined(record, path, jobs_dir, max_bytes, folder)
    if found.reason is not None:
        where = jobs_dir if found.reason in _OF_THE_JOB else path
        raise CommandFailed(BAD_INPUT, printable(f"{found.reason}: {found.detail}"), printable(str(where)))
    return found


def examined(record: RunRecord, path: Path, jobs_dir: Path, max_bytes: int, folder: Path) -> Checked:
    """Return what pass 1 says of a run's one file, its refusal included. folder: as for `check`."""
    spool = folder / "spool"
    spool.mkdir()
    # Whoever may read the file here may have it read: no folder is out of bounds.
    checker = Checker(Sources(spool, Path("/"), max_bytes, _no_topic), jobs_dir, folder / "scratch")
    with _broken_threads() as broken:
        checker.start()
        try:
            checker.submit(record)
            return _outcome(checker, record.run_id, path, broken)
        finally:
            checker.close()


def _no_topic(partition: int, offset: int) -> bytes | None:
    raise AssertionError(f"a dry run has no topic to read {partition}/{offset} from")


def _outcome(
    checker: Checker, run_id: str, path: Path, broken: "queue.SimpleQueue[BaseException]"
) -> Checked:
    while True:
        try:
            return checker.done.get(timeout=_LOOK_S)
        except queue.Empty:
            if not broken.empty():
                raise broken.get() from None
            if run_id in checker.postponed:
                raise CommandFailed(
                    BAD_INPUT, printable(checker.postponed[run_id]), printable(str(path)), "try again"
                ) from None


@contextmanager
def _broken_threads() -> Iterator["queue.SimpleQueue[BaseException]"]:
    """Catch what ends other threads: whoever waits for one would wait for ever."""
    broken: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    before = threading.excepthook
    threading.excepthook = lambda ended: broken.put(ended.exc_value or RuntimeError(ended.exc_type.__name__))
    try:
        yield broken
    finally:
        threading.excepthook = before


def survey(
    plain: PlainFile,
    fmt: TableFormat,
    context: RunContext,
    wanted: int,
    memories: tuple[SharedAnswers, ...],
    rng: random.Random,
) -> Survey:
    """Read a checked file through, draw `wanted` batches that have rows to ask, and count the rest.

    memories: of the workers, each of which remembers answers for itself; a batch goes to any of them.
    Raises CommandFailed (3) for a file that has changed since it was checked.
    """
    # A photo that nobody can read fails its row without a call.
    found = Survey(least_calls=0 if context.prompt_file.image_column else 1)
    drawn: Reservoir[Sampled] = Reservoir(wanted, rng)
    try:
        for cut in _cuts(plain, fmt, context):
            one = _admitted(cut, context, rng.choice(memories) if len(memories) > 1 else memories[0], found)
            if one.asked:
                found.units += 1
                found.asked += len(one.asked)
                found.characters += one.characters
                drawn.offer(one)
        plain.assert_unchanged()
    except (TableRefused, SourceChanged, OSError) as error:
        raise CommandFailed(
            BAD_INPUT, printable(str(error)), printable(str(plain.path)), "try again"
        ) from None
    found.sample = tuple(sorted(drawn.items, key=lambda one: one.batch.sequence))
    return found


def _cuts(plain: PlainFile, fmt: TableFormat, context: RunContext) -> Iterator[Cut]:
    # A photo has a call of its own: a batch of them is as many calls as it has rows.
    size = 1 if context.prompt_file.image_column else context.job.model.batch_size
    rows = read_rows(plain.path, read_header(plain.path, fmt), fmt)
    return cut_rows(taken(rows, context.record.files[0].ranges), size, CutPosition())


def _admitted(cut: Cut, context: RunContext, memory: SharedAnswers, found: Survey) -> Sampled:
    """Return a batch with the rows that a worker with this memory would ask, as if all are answered."""
    batch = Batch(
        run_id=context.record.run_id,
        label=context.record.files[0].label,
        sequence=cut.start.sequence,
        first_row=cut.start.ordinal,
        rows=cut.batch_rows(),
    )
    task = BatchTask.of(batch, context, 0, 0, context.record.epoch)
    _reject_without_photo(task)
    rows, rejected = len(batch.rows), len(task.outcomes)
    memory.admit(task)
    asked = tuple(index for group in task.pending for index in group.indices)
    task.outcomes.update(dict.fromkeys(asked, _ANSWERED))
    memory.settle(task)
    found.rows += rows
    found.rejected += rejected
    found.reused += rows - rejected - len(asked)
    return Sampled(batch, asked, _characters(batch, asked, context))


def _reject_without_photo(task: BatchTask) -> None:
    """Give rows whose photo is missing their outcome: each fails without a call, none for another."""
    for group in list(task.pending):
        cell = task.context.photo_cell(task.batch, group.indices[0])
        if cell is not None and not cell.strip():
            task.pending.remove(group)
            task.outcomes[group.indices[0]] = Problem(RowReason.NO_PHOTO, "the cell is empty")


def _characters(batch: Batch, asked: tuple[int, ...], context: RunContext) -> int:
    """Return how many characters the model is shown: a batch's prompt tokens grow with them."""
    if not asked:
        return 0
    prompt = build_prompt(context.prompt_file, context.prompt_rows(batch, asked))
    return len(prompt.system) + len(prompt.user)
