"""Publication: a run's merged rows become files with names, once.

Argument. The steps, each durable before the next: the output under a temporary name (fsync); its name,
bytes and SHA-256 in the store, the `publishing` mark; the name itself (a link that fails where the name is
taken, fsync of the folder); the manifest (rename); `closed` in the store; the announcement, acknowledged;
`told` in the store. A death between two of them leaves either a mark without a named file, or a step to
be done again, and each can be: the bytes depend on the rows alone, and the rows stay in the store until
after `told`. With a mark, the file under the marked name is this run's own exactly if it has the marked
bytes and hash; a temporary file that has them only lacks its name; else it is written again. Without a
mark, whatever lies under the name is somebody else's (or has the very same bytes): it is never replaced,
the output takes the next free name and the manifest says why. Announcements are repeated when their
acknowledgement was not noted; they carry the same `ce_id`.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prism.messages import OutputPublished, RunState
from prism.service import fault
from prism.service.logs import get_logger
from prism_merger.accounts import FileAccount, Outcome, OutputMark, RunAccount, Stage
from prism_merger.desk import Steps
from prism_merger.ledger import Ledger
from prism_merger.manifest import write_failed_ranges, write_manifest
from prism_merger.metrics import Metrics
from prism_merger.outlet import Outlet
from prism_merger.parts import PartsOrder, PartsWritten, remove_parts, write_parts
from prism_merger.places import Places
from prism_merger.plans import RunPlan
from prism_merger.progress import published_files, seconds_of, timestamp
from prism_merger.rendering import split_lines
from prism_merger.sorting import sorted_lines
from prism_merger.store import RowReader, Store
from prism_merger.verdict import Verdict
from prism_merger.volume import NameTaken, claim, write_temporary

log = get_logger(__name__)

_HASH_CHUNK = 1 << 20
_MOST_NAMES = 1000


class Inconsistent(Exception):
    """What was written is not what was counted: the last defence of promise 1."""


@dataclass(frozen=True, slots=True)
class Written:
    """A complete file under its temporary name."""

    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class OutputOrder:
    """What an output is made of. `sort_column` is a column's number, None for the input's order."""

    file_id: int
    header: bytes
    delimiter: str
    sort_column: int | None
    temporary: Path
    scratch: Path


class Publisher:
    """Takes runs from `merging` to `told`; each method yields its slow jobs."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        places: Places,
        outlet: Outlet,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        tell: Callable[[RunAccount], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._places = places
        self._outlet = outlet
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._tell = tell

    def parts(self, run: RunAccount, file: FileAccount, last: bool = False) -> Steps:
        """Write the file's parts that are due."""
        order = parts_order(run, file, self._ledger.plan(run.run_id), last)
        while order.due:
            done: PartsWritten = yield partial(_write_parts, order, self._places_of(run))
            file.parts, file.part_sequence = done.parts, done.sequence
            self._save(run)
            order = parts_order(run, file, self._ledger.plan(run.run_id), last)

    def decide(self, run: RunAccount, verdict: Verdict) -> None:
        """Note that what is merged is all there will be, and what is to become of it."""
        plan = self._ledger.plan(run.run_id)
        for one in plan.record.files:
            if one.label in run.files:
                run.count_missing(run.files[one.label], one.rows, verdict.missing_reason)
        run.outcome, run.detail, run.missing_reason = verdict.outcome, verdict.detail, verdict.missing_reason
        run.partial = verdict.partial and any(one.missing for one in run.files.values())
        run.merged_at = run.merged_at or timestamp(self._wall_clock)
        run.stage = Stage.PUBLISHING
        self._save(run)
        self._tell(run)

    def publish(self, run: RunAccount) -> Steps:
        """Go on from where the store shows the run, up to `told`."""
        if run.stage is Stage.PUBLISHING:
            yield from self._make_files(run)
            self._close(run)
        if run.stage is Stage.CLOSED:
            self._announce(run)

    def refresh_manifest(self, run: RunAccount) -> None:
        """Write the manifest anew after calls were counted for a closed run."""
        write_manifest(run, self._ledger.plan(run.run_id), self._places_of(run), self._state(run))
        run.manifest_stale = False
        self._save(run)

    def _make_files(self, run: RunAccount) -> Steps:
        plan = self._ledger.plan(run.run_id)
        for file in run.files.values():
            yield from self.parts(run, file, last=not file.missing)
        try:
            for file in run.files.values() if run.outcome is Outcome.PUBLISHED else ():
                if file.label in plan.renderers and not file.has_name:
                    yield from self._output(run, file, plan)
        except Inconsistent as error:
            log.error("output_inconsistent", run=run.run_id, error=error)
            run.outcome, run.detail = Outcome.WITHHELD, str(error)
        yield lambda rows: write_failed_ranges(run, plan, rows, self._places_of(run))

    def _output(self, run: RunAccount, file: FileAccount, plan: RunPlan) -> Steps:
        places = self._places_of(run)
        temporary = places.temporary_output(run.run_id, file.label)
        refused: list[str] = []
        if file.output is not None:
            found: _Found = yield partial(_look_again, places, temporary, file.output)
            if found.named or (found.written and self._named(run, file, temporary, refused)):
                temporary.unlink(missing_ok=True)
                file.has_name = True
                return
        done: Written = yield partial(
            _write_output, _output_order(file, plan, temporary, self._store.path.parent)
        )
        if done.rows != file.ok + file.failed:
            raise Inconsistent(f"{file.label}: {done.rows} rows written, {file.ok + file.failed} counted")
        fault.point("merger.after_output_written", f"{run.run_id}/{file.label}")
        while not file.has_name:
            names = _Names(plan.output_stem(file.label), done, tuple(refused))
            file.output = yield partial(_free_name, places, names)
            self._save(run)
            fault.point("merger.after_publishing_mark", f"{run.run_id}/{file.label}")
            file.has_name = self._named(run, file, temporary, refused)
        fault.point("merger.after_rename", f"{run.run_id}/{file.label}")

    def _named(self, run: RunAccount, file: FileAccount, temporary: Path, refused: list[str]) -> bool:
        """Give the file its marked name; return whether it has it."""
        mark = file.output
        assert mark is not None
        final = self._places_of(run).output(mark.name)
        try:
            claim(temporary, final)
        except NameTaken:
            if not _same_file(final, mark):
                log.warning("output_name_taken", run=run.run_id, label=file.label, name=mark.name)
                refused.append(mark.name)
                return False
            temporary.unlink(missing_ok=True)
        self._metrics.files_published.inc()
        return True

    def _close(self, run: RunAccount) -> None:
        plan = self._ledger.plan(run.run_id)
        run.published_at = timestamp(self._wall_clock)
        write_manifest(run, plan, self._places_of(run), self._state(run))
        fault.point("merger.after_manifest", run.run_id)
        run.stage = Stage.CLOSED
        self._save(run)
        fault.point("merger.after_published_mark", run.run_id)
        log.info(
            "run_closed",
            run=run.run_id,
            outcome=run.outcome,
            rows_ok=run.ok,
            rows_failed=run.failed,
            detail=run.detail,
        )

    def _announce(self, run: RunAccount) -> None:
        for event in self._events(run):
            self._outlet.announce(event)
        self._outlet.settle()
        fault.point("merger.after_announce", run.run_id)
        run.announced = True
        self._tell(run)
        self._outlet.settle()
        plan = self._ledger.plan(run.run_id)
        if run.outcome is Outcome.PUBLISHED and plan.job.output.checkpoints.cleanup_after_merge:
            for file in run.files.values():
                remove_parts(run.run_id, file.label, file.parts, self._places_of(run))
        run.stage = Stage.TOLD
        self._save(run)
        merged, published = seconds_of(run.merged_at), seconds_of(run.published_at)
        if merged is not None and published is not None:
            self._metrics.publish_seconds.observe(max(0.0, published - merged))

    def _events(self, run: RunAccount) -> Iterator[OutputPublished]:
        places = self._places_of(run)
        for one in published_files(run, places):
            file = run.files[one.label]
            yield OutputPublished(
                run_id=run.run_id,
                label=one.label,
                uri=one.uri,
                path=one.path,
                manifest=places.relative(places.manifest(run.run_id)),
                rows=one.rows,
                rows_ok=file.ok,
                rows_failed=one.rows - file.ok,
                bytes=one.bytes,
                sha256=one.sha256,
                partial=run.partial,
                published_at=run.published_at,
            )

    def _places_of(self, run: RunAccount) -> Places:
        return self._places.of(self._ledger.plan(run.run_id).job)

    def _state(self, run: RunAccount) -> RunState | None:
        record = self._ledger.record(run.run_id)
        return record.state if record is not None else None

    def _save(self, run: RunAccount) -> None:
        with self._store.transaction():
            self._store.save_run(run)


def parts_order(run: RunAccount, file: FileAccount, plan: RunPlan, last: bool) -> PartsOrder:
    """Return which parts of a file can be written now."""
    return PartsOrder(
        run_id=run.run_id,
        label=file.label,
        file_id=file.file_id,
        header=plan.renderers[file.label].header if file.label in plan.renderers else b"",
        interval=plan.job.output.checkpoints.interval,
        rows=file.merged.rows,
        last=last,
        parts=file.parts,
        sequence=file.part_sequence,
    )


def _write_parts(order: PartsOrder, places: Places, rows: RowReader) -> PartsWritten:
    return write_parts(order, rows, places)


def _output_order(file: FileAccount, plan: RunPlan, temporary: Path, scratch: Path) -> OutputOrder:
    source, wanted = plan.file(file.label), plan.job.merge.sort_by
    return OutputOrder(
        file_id=file.file_id,
        header=plan.renderers[file.label].header,
        delimiter=source.delimiter,
        sort_column=source.columns.index(wanted) if wanted in source.columns else None,
        temporary=temporary,
        scratch=scratch / f"sort-{file.file_id}.sqlite",
    )


def _write_output(order: OutputOrder, rows: RowReader) -> Written:
    digest = hashlib.sha256()
    content = _Content(order, rows)
    size = write_temporary(order.temporary, content.chunks(), digest.update)
    return Written(digest.hexdigest(), size, content.rows)


class _Content:
    """An output's bytes, and how many rows went by."""

    def __init__(self, order: OutputOrder, rows: RowReader) -> None:
        self._order = order
        self._reader = rows
        self.rows = 0

    def chunks(self) -> Iterator[bytes]:
        yield self._order.header
        if self._order.sort_column is not None:
            for line in sorted_lines(
                self._lines, self._order.sort_column, self._order.delimiter, self._order.scratch
            ):
                self.rows += 1
                yield line
            return
        for batch in self._reader.batches(self._order.file_id):
            self.rows += len(batch.lengths) // 4
            yield batch.lines

    def _lines(self) -> Iterator[bytes]:
        for batch in self._reader.batches(self._order.file_id):
            yield from split_lines(batch.lines, batch.lengths)


@dataclass(frozen=True, slots=True)
class _Names:
    """What an output wants to be called; `refused` names were taken in the last moment."""

    stem: str
    done: Written
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a death after the mark left: the file under its name, or complete without it."""

    named: bool
    written: bool


def _look_again(places: Places, temporary: Path, mark: OutputMark, rows: RowReader) -> _Found:
    del rows
    named = _same_file(places.output(mark.name), mark)
    return _Found(named, not named and _same_file(temporary, mark))


def _free_name(places: Places, names: _Names, rows: RowReader) -> OutputMark:
    """Return the mark with the first name that nobody has, or that has these very bytes."""
    del rows
    because, done = "", names.done
    for number in range(1, _MOST_NAMES):
        name = f"{names.stem}.csv" if number == 1 else f"{names.stem}-{number}.csv"
        mark = OutputMark(name, done.sha256, done.bytes, done.rows, because)
        path = places.output(name)
        if name not in names.refused and (not path.exists() or _same_file(path, mark)):
            return mark
        because = f"{names.stem}.csv was there already and is not this run's"
    raise FileExistsError(f"{names.stem}.csv and {_MOST_NAMES} more names are taken: clear {places.outputs}")


def _same_file(path: Path, mark: OutputMark) -> bool:
    """Return whether a file has the marked bytes."""
    try:
        if path.stat().st_size != mark.bytes:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == mark.sha256
