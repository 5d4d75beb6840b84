"""One run's feeding: cuts in their order, under credit, and again where a batch was lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prism.messages import (
    Batch,
    BatchRow,
    CutPosition,
    FileCursor,
    FileProgress,
    FileReason,
    Progress,
    RowReason,
    RunFile,
)
from prism.runs.cutting import Cut, cut_rows, row_position
from prism.runs.job import Job
from prism.runs.ranges import taken
from prism.runs.tracker import (
    MAX_FEEDINGS,
    BrokerView,
    FeedTracker,
    Outstanding,
    Place,
    is_merged,
    resume_point,
)
from prism.service.errors import FatalError
from prism.tables import Header, TableFormat, TableRefused, read_header, read_rows
from prism_ingestor.budget import Meter
from prism_ingestor.sources import PlainFile, SourceChanged


@dataclass(slots=True)
class FileFeed:
    """One file of a run while it is fed."""

    run_id: str
    file: RunFile
    plain: PlainFile
    job: Job
    fmt: TableFormat
    tracker: FeedTracker = field(default_factory=FeedTracker)
    _header: Header | None = None
    _cuts: Iterator[Cut] | None = None

    def cuts_from(self, start: CutPosition) -> Iterator[Cut]:
        """Cut the file from a batch's position."""
        if self._header is None:
            self._header = read_header(self.plain.path, self.fmt)
        rows = read_rows(self.plain.path, self._header, self.fmt, row_position(start))
        return cut_rows(taken(rows, self.file.ranges), self.job.model.batch_size, start)

    @property
    def exhausted(self) -> bool:
        """Whether every batch was fed once."""
        return self.tracker.next.sequence >= self.file.batches

    def next_batch(self) -> tuple[Batch, Cut]:
        """Return the next batch to feed. Raises SourceChanged."""
        with self._unchanged():
            if self._cuts is None:
                self._cuts = self.cuts_from(self.tracker.next)
            cut = next(self._cuts)
        return self._batch(cut, feeding=1), cut

    def batch_again(self, sequence: int) -> tuple[Batch, Cut]:
        """Return a lost batch; at its last feeding its rows are rejected as lost. Raises SourceChanged."""
        one = self.tracker.outstanding[sequence]
        with self._unchanged():
            cut = next(self.cuts_from(one.start))
        return self._batch(cut, feeding=one.feedings + 1), cut

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """What is read in here was read from the accepted file, or SourceChanged is raised.

        A changed file may be cut short or be no CSV any more: that is no surprise of its own. A spooled
        copy that is broken is made again from the topic by the next start (FatalError).
        """
        try:
            yield
        except (TableRefused, StopIteration, OSError) as error:
            if self.plain.stamp is None:
                raise FatalError("a spooled source is gone", self.plain.path.name, "start again") from None
            self.plain.assert_unchanged()
            raise SourceChanged(
                FileReason.SOURCE_CHANGED, f"the source cannot be read as it was accepted: {error}"
            ) from None
        self.plain.assert_unchanged()

    def _batch(self, cut: Cut, feeding: int) -> Batch:
        rows = cut.batch_rows()
        if feeding > MAX_FEEDINGS:
            rows = [
                BatchRow(row_id=row.row_id, cells=row.cells, rejected=row.rejected or RowReason.LOST)
                for row in rows
            ]
        return Batch(
            run_id=self.run_id,
            label=self.file.label,
            sequence=cut.start.sequence,
            first_row=cut.start.ordinal,
            fed=feeding,
            rows=rows,
        )

    def recover(self, cursor: FileCursor, progress: FileProgress, found: dict[int, Place]) -> None:
        """Go on where an earlier ingestor stopped; `found` are the batches that still lie in the topic.

        Raises SourceChanged.
        """
        self.tracker.lost = dict(cursor.refed)
        self.tracker.next = cursor.oldest
        resume = min(resume_point(cursor, progress, found), self.file.batches)
        self._cuts = None
        if cursor.oldest.sequence >= resume:
            return
        with self._unchanged():
            for cut in self.cuts_from(cursor.oldest):
                if cut.start.sequence >= resume:
                    break
                if is_merged(progress, cut.start.sequence):
                    self.tracker.skipped(cut.end)
                else:
                    self.tracker.found(cut.start, cut.end, found.get(cut.start.sequence))


@dataclass(slots=True)
class RunFeed:
    """A run's files while they are fed, one after the other, those of several models perhaps abreast."""

    run_id: str
    priority: int
    results_partition: int
    files: list[FileFeed]
    # Whether several models, each at servers of its own, do a file at the same time.
    abreast: bool = False
    meter: Meter | None = None
    recover_at: int | None = None
    found: dict[str, dict[int, Place]] = field(default_factory=dict)
    cursors: dict[str, FileCursor] = field(default_factory=dict)
    merged: int = 0
    moved_at: float = 0.0
    stops_at_failure: bool = False
    read_to: int = -1
    progress: Progress | None = None

    @property
    def recovering(self) -> bool:
        """Whether it is still unknown what an earlier ingestor has fed."""
        return self.recover_at is not None

    @property
    def unmerged(self) -> int:
        """Batches that count against the window."""
        return sum(one.tracker.unmerged for one in self.files)

    @property
    def batches_merged(self) -> int:
        """Batches that are merged, over all files."""
        return sum(one.tracker.next.sequence - one.tracker.unmerged for one in self.files)

    @property
    def within_budget(self) -> bool:
        """Whether one more batch may be fed."""
        return self.meter is None or self.meter.allows(self.progress, self.batches_merged, self.unmerged)

    @property
    def out_of_budget(self) -> str | None:
        """Why nothing more is fed, once nothing is under way any more and rows are left."""
        if self.within_budget or self.unmerged or self.all_fed or self.meter is None or self.progress is None:
            return None
        return self.meter.reached(self.progress)

    def current(self) -> FileFeed | None:
        """Return the file that is fed now."""
        if self.recovering:
            return None
        left = [one for one in self.files if not one.exhausted]
        if not left or not self.abreast:
            return left[0] if left else None
        variants = [one for one in left if one.file.input_label == left[0].file.input_label]
        return min(variants, key=lambda one: one.tracker.next.sequence)

    @property
    def all_fed(self) -> bool:
        """Whether every batch of every file was fed."""
        return not self.recovering and all(one.exhausted for one in self.files)

    def apply(self, progress: Progress, now: float) -> list[Outstanding]:
        """Take in what is merged; return the batches that this frees."""
        self.read_to = progress.read_to
        self.progress = progress
        if self.recovering:
            if progress.read_to < (self.recover_at or 0):
                return []
            self._recover(progress)
        freed: list[Outstanding] = []
        for one in self.files:
            freed += one.tracker.merged(progress.files.get(one.file.label, FileProgress()))
        merged = progress.rows_ok + progress.rows_failed
        if merged != self.merged:
            self.merged, self.moved_at = merged, now
        return freed

    def _recover(self, progress: Progress) -> None:
        for one in self.files:
            label = one.file.label
            file_progress = progress.files.get(label, FileProgress())
            cursor = self.cursors.get(label, FileCursor())
            one.recover(cursor, file_progress, self.found.get(label, {}))
        self.recover_at = None
        self.found = {}

    def lost(self, view: BrokerView) -> list[tuple[FileFeed, int]]:
        """Return the batches that must be fed again."""
        if self.recovering:
            return []
        lost = []
        for one in self.files:
            one.tracker.note_view(view, self.results_partition)
            lost += [(one, sequence) for sequence in one.tracker.lost_sequences(self.read_to)]
        return lost

    def cursor(self) -> dict[str, FileCursor]:
        """Return the positions to write while it is fed."""
        return {one.file.label: one.tracker.cursor() for one in self.files}

    def last_cursor(self) -> dict[str, FileCursor]:
        """Return the positions to write at the end: every batch handed to the producer counts as fed."""
        return {
            one.file.label: FileCursor(next=one.tracker.next, oldest=one.tracker.oldest())
            for one in self.files
        }
