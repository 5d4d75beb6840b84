"""A broker, workers and a merger in a few lists, around a real RunFeed on a real file; and a producer."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism.messages import Batch, FileCursor, FileProgress, Progress, RunFile, UriSource
from prism.runs.job import parse_job
from prism.runs.table import RunsTable
from prism.runs.tracker import MAX_FEEDINGS, BrokerView
from prism.tables import TableFormat
from prism_ingestor.feeding import FileFeed, RunFeed
from prism_ingestor.sources import PlainFile

PARTITIONS = 2
BATCH_SIZE = 2
LABEL = "l"


class FakeProducer:
    """Keeps what is produced; `flush` acknowledges it, `poll` does not."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def produce(self, topic: str, **record: Any) -> None:
        self.sent.append({"topic": topic, **record})

    def poll(self, timeout: float) -> int:
        del timeout
        return 0

    def flush(self, timeout: float = -1) -> int:
        del timeout
        for record in self.sent:
            if (told := record.pop("on_delivery", None)) is not None:
                told(None, Acknowledgement())
        return 0

    def table(self) -> RunsTable:
        """Return what `prism.runs` says by now."""
        table = RunsTable()
        for record in self.sent:
            if record["topic"].endswith("runs"):
                table.apply(record["key"], record["value"])
        return table


class Acknowledgement:
    """What a delivery callback asks of its message."""

    def offset(self) -> int:
        return 0


@dataclass
class Log:
    """One partition: a record is (sequence, feeding), or None where it was deleted."""

    base: int = 0
    records: list[tuple[int, int] | None] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.base + len(self.records)


class World:
    """One run of one file; every method is one thing that may happen at any time."""

    def __init__(self, folder: Path, rows: int, seed: int = 0) -> None:
        self.path = folder / "t.csv"
        self.path.write_text("Message\n" + "".join(f"text {number}\n" for number in range(rows)))
        self.batches_total = -(-rows // BATCH_SIZE)
        self.chance = random.Random(seed)
        self.now = 0.0
        self.logs = [Log() for _ in range(PARTITIONS)]
        self.committed = [0] * PARTITIONS
        self.results: list[int | None] = []
        self.read_to = 0
        self.merged: dict[int, int] = {}
        self.cursor = FileCursor()
        self.fed_times: dict[int, int] = {}
        self.on_its_way: list[tuple[Batch, int]] = []
        self.any_loss = False
        self.feed = self.new_feed(recovering=False)

    def new_feed(self, recovering: bool) -> RunFeed:
        file = RunFile(
            label=LABEL,
            source=UriSource(uri=f"file://{self.path}"),
            columns=["Message"],
            rows=self.batches_total * BATCH_SIZE,
            batches=self.batches_total,
        )
        job = parse_job({"model": {"batch_size": str(BATCH_SIZE)}})
        one = FileFeed("r", file, PlainFile(self.path, "", 0), job, TableFormat())
        feed = RunFeed("r", 5, 0, [one])
        if recovering:
            feed.recover_at = len(self.results)
            feed.found = {LABEL: self.found()}
            feed.cursors = {LABEL: self.cursor}
        return feed

    def found(self) -> dict[int, tuple[int, int]]:
        return {
            record[0]: (number, log.base + place)
            for number, log in enumerate(self.logs)
            for place, record in enumerate(log.records)
            if record is not None and log.base + place >= self.committed[number]
        }

    # The ingestor

    def feed_next(self) -> None:
        file = self.feed.current(10**6, 0.0)
        if file is not None:
            batch, cut = file.next_batch()
            partition = self.chance.randrange(PARTITIONS)
            file.tracker.fed(cut.start, cut.end, partition)
            self._send(batch, partition)

    def _send(self, batch: Batch, partition: int) -> None:
        expected = range(batch.sequence * BATCH_SIZE, batch.sequence * BATCH_SIZE + len(batch.rows))
        assert [row.cells[0] for row in batch.rows] == [f"text {number}" for number in expected]
        lost = batch.fed > MAX_FEEDINGS
        assert all((row.rejected == "lost") is lost for row in batch.rows)
        self.fed_times[batch.sequence] = self.fed_times.get(batch.sequence, 0) + 1
        self.on_its_way.append((batch, partition))

    def acknowledge(self) -> None:
        """The oldest record on its way arrives."""
        if self.on_its_way:
            self._arrive(*self.on_its_way.pop(0), told=True)

    def _arrive(self, batch: Batch, partition: int, told: bool) -> None:
        log = self.logs[partition]
        log.records.append((batch.sequence, batch.fed))
        self.now += 1
        if told:
            place = (partition, log.end - 1)
            self.feed.files[0].tracker.acknowledged(batch.sequence, place, self.now)

    def write_cursor(self) -> None:
        if not self.feed.recovering:
            self.cursor = self.feed.cursor()[LABEL]

    def view(self) -> BrokerView:
        self.now += 1
        return BrokerView(
            dict(enumerate(self.committed)),
            {number: log.base for number, log in enumerate(self.logs)},
            {number: log.end for number, log in enumerate(self.logs)},
            {0: len(self.results)},
            self.now,
        )

    def feed_lost(self, view: BrokerView) -> None:
        if self.feed.recover_at is not None:
            self.feed.recover_at = min(self.feed.recover_at, view.results_end[0])
        for file, sequence in self.feed.lost(view):
            batch, _ = file.batch_again(sequence)
            partition = self.chance.randrange(PARTITIONS)
            file.tracker.fed_again(sequence, partition)
            self._send(batch, partition)

    def progress(self) -> None:
        self.now += 1
        self.feed.apply(self.progress_now(), self.now)

    def progress_now(self) -> Progress:
        through = 0
        while through in self.merged:
            through += 1
        above = [(sequence, sequence) for sequence in sorted(self.merged) if sequence > through]
        return Progress(
            run_id="r",
            read_to=self.read_to,
            files={LABEL: FileProgress(merged_through=through, merged_above=above)},
            rows_ok=len(self.merged),
        )

    def take_over(self) -> None:
        """The ingestor dies; of what was on its way some arrives, and nobody is told."""
        for batch, partition in self.on_its_way:
            if self.chance.random() < 0.5:
                self._arrive(batch, partition, told=False)
            else:
                self.fed_times[batch.sequence] -= 1  # it never was anywhere
        self.on_its_way = []
        self.feed = self.new_feed(recovering=True)

    # The others

    def work(self, partition: int) -> None:
        log = self.logs[partition]
        offset = self.committed[partition]
        if log.base <= offset < log.end:
            record = log.records[offset - log.base]
            if record is not None:
                self.results.append(record[0])
        self.committed[partition] = min(max(offset, log.base - 1) + 1, log.end)

    def merge(self) -> None:
        for sequence in self.results[self.read_to :]:
            if sequence is not None:
                self.merged[sequence] = self.merged.get(sequence, 0) + 1
        self.read_to = len(self.results)

    # What should not happen

    def lose_a_result(self) -> None:
        unread = [
            place for place in range(self.read_to, len(self.results)) if self.results[place] is not None
        ]
        if unread:
            self.any_loss = True
            self.results[self.chance.choice(unread)] = None

    def lose_batches(self, partition: int) -> None:
        """Everything of a partition is deleted, worked on or not."""
        log = self.logs[partition]
        if self.committed[partition] < log.end:
            self.any_loss = True
        log.base, log.records = log.end, []
        self.committed[partition] = max(self.committed[partition], log.base)

    def make_batches_again(self) -> None:
        self.any_loss = True
        self.logs = [Log() for _ in range(PARTITIONS)]
        self.committed = [0] * PARTITIONS

    def make_results_again(self) -> None:
        self.any_loss = True
        self.results, self.read_to = [], 0

    # Everything goes on undisturbed

    def settle(self, rounds: int = 60) -> None:
        for _ in range(rounds):
            self.progress()
            self.feed_lost(self.view())
            for _ in range(8):
                self.feed_next()
            while self.on_its_way:
                self.acknowledge()
            for partition, log in enumerate(self.logs):
                while self.committed[partition] < log.end:
                    self.work(partition)
            self.merge()
            if len(self.merged) == self.batches_total:
                self.progress()
                return
        raise AssertionError(f"stuck: {len(self.merged)} of {self.batches_total} merged")
