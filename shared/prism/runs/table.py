"""The runs as `prism.runs` tells them: of two records of a key, the one of the higher epoch counts."""

from dataclasses import dataclass, field

from prism.messages import Cursor, RunRecord, RunState
from prism.messages.run import CURSOR_SUFFIX

_ANSWERED = {RunState.COMPLETED, RunState.COMPLETED_WITH_FAILURES, RunState.REFUSED}


@dataclass(slots=True)
class RunsTable:
    """Every run and cursor; of ended runs only what a status shows, so that memory stays small.

    `stale`: keys whose last record does not count, though compaction will keep it.
    """

    runs: dict[str, RunRecord] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    highest_epoch: int = 0
    stale: set[str] = field(default_factory=set)

    def apply(self, key: str, value: bytes | None) -> RunRecord | Cursor | None:
        """Take in one record; return it if it counts, None if it is stale or a deletion.

        Raises BadMessage for a value that is neither.
        """
        applied = self._apply(key, value)
        if applied is None and value is not None:
            self.stale.add(key)
        else:
            self.stale.discard(key)
        return applied

    def _apply(self, key: str, value: bytes | None) -> RunRecord | Cursor | None:
        if key.endswith(CURSOR_SUFFIX):
            return self._apply_cursor(key.removesuffix(CURSOR_SUFFIX), value)
        if value is None:
            self.runs.pop(key, None)
            return None
        record = RunRecord.parse(value)
        known = self.runs.get(key)
        self.highest_epoch = max(self.highest_epoch, record.epoch)
        if known is not None and _older(record, known):
            return None
        self.runs[key] = _slim(record)
        return record

    def _apply_cursor(self, run_id: str, value: bytes | None) -> Cursor | None:
        if value is None:
            self.cursors.pop(run_id, None)
            return None
        cursor = Cursor.parse(value)
        known = self.cursors.get(run_id)
        self.highest_epoch = max(self.highest_epoch, cursor.epoch)
        if known is not None and _older(cursor, known):
            return None
        self.cursors[run_id] = cursor
        return cursor


def _older(record: RunRecord | Cursor, known: RunRecord | Cursor) -> bool:
    return (record.epoch, record.owner) < (known.epoch, known.owner)


def _slim(record: RunRecord) -> RunRecord:
    # Batches of a run that was broken off are still answered, and that takes its prompt.
    if record.state in _ANSWERED and record.prompt:
        return record.model_copy(update={"prompt": {}})
    return record
