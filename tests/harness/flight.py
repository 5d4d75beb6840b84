"""What was in flight when something was killed: the bound of the extra model calls (promise 5).

In flight at a death is a batch that the dead worker had called for and whose offset was not committed.
The victim is frozen first, so that what is read here is what it died with. A row may then be asked about
once more. At an outage of the broker every worker may lose its partitions, so every batch that is not
committed counts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from confluent_kafka import TopicPartition

from prism.annotation import build_prompt
from prism.annotation.prompt import PromptRow
from prism.annotation.prompt_file import PromptFile
from prism.kafka.clients import ErrorWatch
from prism.kafka.commit_note import CommitNote
from prism.messages import Topics
from prism.runs.tracker import is_merged
from prism_embedded.mentions import find_mentions, row_hash
from tests.harness.fleet import Fleet
from tests.harness.process import ServiceProcess
from tests.harness.promises import Calls
from tests.harness.rows import INPUT_COLUMNS, JOB, Table

_GROUP = "prism-model-worker"
_TIMEOUT_S = 20.0


class Flight:
    """Counts what was in flight, row by row, for one run of one table."""

    def __init__(self, fleet: Fleet, table: Table, run_id: str) -> None:
        self.batches_in_flight = 0
        self._fleet = fleet
        self._run_id = run_id
        # By name only: it never subscribes.
        self._asker = fleet.kafka.group_consumer(_GROUP, ErrorWatch())
        self._rows_of = _names(fleet, table)
        self._allowed: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._asked_before: Counter[str] = Counter()

    def freeze(self, victim: ServiceProcess) -> int:
        """Freeze a process and note what it has in flight; return how many batches.

        Asked once before, so that the broker answers at once: frozen for 6 s a worker loses its partitions.
        """
        if not victim.name.startswith("worker-"):
            victim.freeze()
            return 0
        self._notes()
        victim.freeze()
        return self.note_death(victim.name)

    def note_death(self, victim: str) -> int:
        """Note what a frozen worker has in flight; return how many batches."""
        self._fleet.watch.catch_up()
        others = {beat.session for name, beat in self._fleet.watch.seen.workers.items() if name != victim}
        asked = self.asked()
        count = 0
        for rows in self._uncommitted(others):
            if any(asked[row] > self._seen[row] for row in rows):
                count += 1
                for row in rows:
                    self._seen[row] = max(self._seen[row], asked[row])
                    self._allowed[row] += 1
        self.batches_in_flight += count
        return count

    def note_outage(self, tries: int = 1) -> int:
        """Note everything that is not committed, just before somebody goes; return how many batches.

        `tries`: how often a row of them may be asked about in vain before it is answered.
        """
        self._fleet.watch.catch_up()
        batches = list(self._uncommitted(set()))
        for rows in batches:
            self._allowed.update(dict.fromkeys(rows, tries))
        self.batches_in_flight += len(batches)
        return len(batches)

    def note_unmerged(self) -> int:
        """Note every batch that was fed and is not merged, because its result is about to be lost."""
        self._fleet.watch.catch_up()
        seen = self._fleet.watch.seen
        progress = seen.progress[self._run_id].files.values()
        lost = {
            batch.sequence: batch.row_ids
            for batch in seen.batches.values()
            if batch.run_id == self._run_id and not any(is_merged(one, batch.sequence) for one in progress)
        }
        for rows in lost.values():
            self._allowed.update(rows)
        self.batches_in_flight += len(lost)
        return len(lost)

    def keep_counts(self) -> None:
        """Keep what the model server has counted, just before it is killed."""
        self._asked_before = self.asked()

    def asked(self) -> Counter[str]:
        """Return how often the model was asked about each row."""
        counts: Mapping[str, int] = self._fleet.model_server.stats()["calls_by_rows"]
        found = Counter(self._asked_before)
        for name, count in counts.items():
            row = self._rows_of.get(name)
            if row is not None:
                found[row] += count
        return found

    def calls(self) -> Calls:
        """Return the evidence for the checker."""
        return Calls(self.asked(), dict(self._allowed))

    def _uncommitted(self, others: set[str]) -> Iterator[tuple[str, ...]]:
        """Yield the rows of each batch that is not committed, in partitions that nobody of `others` owns."""
        notes = self._notes()
        for (partition, offset), batch in self._fleet.watch.seen.batches.items():
            committed, note = notes.get(partition, (0, CommitNote()))
            finished = any(first <= offset <= last for first, last in note.finished)
            if (
                batch.run_id == self._run_id
                and offset >= committed
                and not finished
                and note.owner not in others
            ):
                yield batch.row_ids

    def _notes(self) -> dict[int, tuple[int, CommitNote]]:
        topic = Topics().batches
        places = [TopicPartition(topic, one) for one in range(self._fleet.plan.partitions)]
        return {
            one.partition: (one.offset, CommitNote.decode(one.metadata, one.offset))
            for one in self._asker.committed(places, timeout=_TIMEOUT_S)
            if one.offset >= 0
        }


def _names(fleet: Fleet, table: Table) -> dict[str, str]:
    """Return the model server's name of each row → its RowID, by asking the product for its prompt."""
    prompt_file = PromptFile.parse((fleet.jobs_dir / f"{JOB}_prompt.json").read_bytes())
    row_at, title_at, message_at = (INPUT_COLUMNS.index(name) for name in ("RowID", "Title", "Message"))
    names = {}
    for row in table.rows:
        asked = PromptRow(row[row_at], row[title_at], row[message_at], None)
        for mention in find_mentions(build_prompt(prompt_file, [asked]).user):
            names[row_hash(mention.row_id or "", mention.content)] = row[row_at]
    return names
