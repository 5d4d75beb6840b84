"""One run's feeding: cuts in their order, under credit, and again where a batch was lost.

Argument. Each model of a run has a lane: its files, in the run's order, of which one is fed at a time. A
lane takes no more than its share of the run's window, the window being parted among those with something
left to feed or to merge; lanes only ever leave these, so all of them together stay within the window. So
much is lost at most to a model that is away, and the others go on: at once where models work abreast; where
one waits for the other, once nothing came of it for AWAY_S. No order among lanes is remembered: each file
has a cursor of its own, and whoever takes over asks the same question of the same files again.
"""

from collections import Counter
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
from prism_ingestor.budget import Fed, Meter
from prism_ingestor.sources import PlainFile, SourceChanged

# A model with a full share of which nothing is merged for so long keeps no other from its turn. Seconds:
# more than a slow model's batch usually takes, for an Ollama would load the two in turns.
AWAY_S = 30.0


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

    @property
    def next_model(self) -> str:
        """The one of several models that the next batch is for; of a run with one it has no name."""
        names = self._models
        return names[self.tracker.next.sequence % len(names)]

    def fed_by_model(self) -> Iterator[tuple[str, Fed]]:
        """Yield how many batches each model has been fed of the file."""
        names = self._models
        unmerged = Counter(sequence % len(names) for sequence in self.tracker.outstanding)
        for number, name in enumerate(names):
            fed = len(range(number, self.tracker.next.sequence, len(names)))
            yield name, Fed(fed - unmerged[number], unmerged[number])

    @property
    def _models(self) -> tuple[str, ...]:
        """The models among which the batches go in turn, as `models.model_of` has it."""
        if self.file.model or not self.job.model.several:
            return (self.file.model,)
        return tuple(self.job.model.names)

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
class Lane:
    """What one of a run's models does, file after file; without one of several models, all that the run does.

    `files` come with the place that each has among the run's.
    """

    files: list[tuple[int, FileFeed]] = field(default_factory=list)
    held_since: float | None = None
    # Files below the first are merged, those below the second fed; from the third on none was begun.
    _merged: int = 0
    _fed: int = 0
    _begun: int = 0

    @property
    def head(self) -> FileFeed | None:
        """The file that is fed now; None once all are fed."""
        while self._fed < len(self.files) and self.files[self._fed][1].exhausted:
            self._fed += 1
        return self.files[self._fed][1] if self._fed < len(self.files) else None

    @property
    def place(self) -> int:
        """The place of `head`."""
        return self.files[self._fed][0]

    def open(self) -> list[FileFeed]:
        """Return the files that are begun and not merged."""
        while self._merged < len(self.files) and _is_over(self.files[self._merged][1]):
            self._merged += 1
        begun = max(self._begun, self._fed + 1 if self.head is not None else self._fed)
        return [file for _, file in self.files[self._merged : begun]]

    @property
    def unmerged(self) -> int:
        """Batches that count against the lane's share."""
        return sum(file.tracker.unmerged for file in self.open())

    @property
    def is_active(self) -> bool:
        """Whether something is left to feed or to merge."""
        return self.head is not None or self.unmerged > 0

    def recovered(self) -> None:
        """Find out again which files are begun."""
        fed = [number for number, (_, file) in enumerate(self.files, 1) if file.tracker.next.sequence]
        self._begun = max(fed, default=0)

    def is_away(self, now: float) -> bool:
        """Return whether nothing was merged for AWAY_S although the share is full."""
        if self.held_since is None:
            self.held_since = now
        return now - self.held_since >= AWAY_S


def _is_over(file: FileFeed) -> bool:
    return file.exhausted and not file.tracker.unmerged


@dataclass(slots=True)
class RunFeed:
    """A run's files while they are fed, each model's one after the other; the models perhaps abreast."""

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
    _lanes: list[Lane] = field(init=False)

    def __post_init__(self) -> None:
        lanes: dict[str, Lane] = {}
        places: dict[str, int] = {}
        for number, one in enumerate(self.files):
            place = places.setdefault(one.file.input_label, number) if self.abreast else number
            lanes.setdefault(one.file.model, Lane()).files.append((place, one))
        self._lanes = list(lanes.values())

    @property
    def recovering(self) -> bool:
        """Whether it is still unknown what an earlier ingestor has fed."""
        return self.recover_at is not None

    @property
    def unmerged(self) -> int:
        """Batches that count against the window."""
        return sum(one.unmerged for one in self._lanes)

    @property
    def unmerged_rows(self) -> int:
        """Rows that were fed and are not merged; 0 while it is unknown what was fed."""
        if self.recovering:
            return 0
        return max(0, sum(one.tracker.next.ordinal for one in self.files) - self.merged)

    @property
    def within_budget(self) -> bool:
        """Whether one more batch of some model may be fed."""
        heads = [head for lane in self._lanes if (head := lane.head) is not None]
        return any(map(self._is_allowed, heads))

    def _is_allowed(self, file: FileFeed) -> bool:
        if self.meter is None or not self.meter.bounded:
            return True
        counts: dict[str, Fed] = {}
        for one in self.files:
            for model, fed in one.fed_by_model():
                known = counts.get(model, Fed())
                counts[model] = Fed(known.merged + fed.merged, known.unmerged + fed.unmerged)
        return self.meter.allows(self.progress, counts, file.next_model)

    @property
    def out_of_budget(self) -> str | None:
        """Why nothing more is fed, once nothing is under way any more and rows are left."""
        if self.within_budget or self.unmerged or self.all_fed or self.meter is None or self.progress is None:
            return None
        return self.meter.reached(self.progress)

    def current(self, window: int, now: float) -> FileFeed | None:
        """Return the file whose next batch is to be fed; None while nobody has room.

        window: batches that the run may have unmerged. now: seconds of the clock that `apply` is given.
        """
        if self.recovering:
            return None
        share = self._share(window)
        for lane in self._in_order():
            head = lane.head
            if head is not None and lane.unmerged < share and self._is_allowed(head):
                lane.held_since = None
                return head
            if not self.abreast and not lane.is_away(now):
                return None
        return None

    def room(self, window: int) -> int:
        """Return how many batches there is room for in the models' shares."""
        share = self._share(window)
        return sum(max(0, share - one.unmerged) for one in self._lanes if one.head is not None)

    def _share(self, window: int) -> int:
        return max(1, window // max(1, sum(one.is_active for one in self._lanes)))

    def _in_order(self) -> list[Lane]:
        """Return the lanes with something left, the one first whose turn it is."""
        left = [(one.place, head.tracker.next.sequence, one) for one in self._lanes if (head := one.head)]
        return [one for _, _, one in sorted(left, key=lambda entry: entry[:2])]

    @property
    def all_fed(self) -> bool:
        """Whether every batch of every file was fed."""
        return not self.recovering and all(one.head is None for one in self._lanes)

    @property
    def has_more(self) -> bool:
        """Whether another batch is to be fed, once there is room for it."""
        return not self.recovering and not self.all_fed and self.within_budget

    def apply(self, progress: Progress, now: float) -> list[Outstanding]:
        """Take in what is merged; return the batches that this frees."""
        self.read_to = progress.read_to
        self.progress = progress
        if self.recovering:
            if progress.read_to < (self.recover_at or 0):
                return []
            self._recover(progress)
        freed: list[Outstanding] = []
        for lane in self._lanes:
            freed += self._merged_of(lane, progress)
        merged = progress.rows_ok + progress.rows_failed
        if merged != self.merged:
            self.merged, self.moved_at = merged, now
        return freed

    @staticmethod
    def _merged_of(lane: Lane, progress: Progress) -> list[Outstanding]:
        freed: list[Outstanding] = []
        for one in lane.open():
            freed += one.tracker.merged(progress.files.get(one.file.label, FileProgress()))
        if freed:
            lane.held_since = None
        return freed

    def _recover(self, progress: Progress) -> None:
        for one in self.files:
            label = one.file.label
            file_progress = progress.files.get(label, FileProgress())
            cursor = self.cursors.get(label, FileCursor())
            one.recover(cursor, file_progress, self.found.get(label, {}))
        for lane in self._lanes:
            lane.recovered()
        self.recover_at = None
        self.found = {}

    def lost(self, view: BrokerView) -> list[tuple[FileFeed, int]]:
        """Return the batches that must be fed again."""
        if self.recovering:
            return []
        lost = []
        for one in (file for lane in self._lanes for file in lane.open()):
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
