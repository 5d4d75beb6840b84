"""The store: what is merged, and how far the results topic is read, in one SQLite file.

Argument. A batch's lines, the counts that it changes and the offset behind it are written in one
transaction (WAL, `synchronous=FULL`: the commit returns after an fsync). So after a death at any
instruction the store shows all three or none; the merger reads on from the offset that it finds, and meets
again exactly what is not in. What it meets twice all the same (fed again, produced again, the topic read
from its start) has a key that is taken, and changes nothing: the first result wins. Progress, and whatever
else leaves the process, is sent after the commit, so it never says more than the disk knows.
When a commit fails (a full disk), the transaction is rolled back and the caller loads the accounts again:
memory never runs ahead of the file.

Key of a batch: file number << 40 | sequence, so that a file's batches lie in order in one B-tree, and
publishing is a scan.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prism.service.errors import FatalError
from prism_merger.accounts import (
    FileAccount,
    RunAccount,
    Stage,
    file_from_json,
    file_to_json,
    run_from_json,
    run_to_json,
)
from prism_merger.rendering import FailedRow, RenderedBatch

FILE_NAME = "store.sqlite"
SCHEMA_VERSION = "1"
SEQUENCE_BITS = 40
_CHUNK = 100
_MIB = 1 << 20

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE offsets (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL)",
    "CREATE TABLE runs (run_id TEXT PRIMARY KEY, open INTEGER NOT NULL, account TEXT NOT NULL)",
    "CREATE TABLE plans (run_id TEXT PRIMARY KEY, plan TEXT NOT NULL)",
    "CREATE TABLE files (file_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, label TEXT NOT NULL,"
    " account TEXT NOT NULL, UNIQUE (run_id, label))",
    "CREATE TABLE results (key INTEGER PRIMARY KEY, first_row INTEGER NOT NULL, lengths BLOB NOT NULL,"
    " lines BLOB NOT NULL)",
    "CREATE TABLE failures (file_id INTEGER, ordinal INTEGER, row_id TEXT NOT NULL, reason TEXT NOT NULL,"
    " detail TEXT NOT NULL, PRIMARY KEY (file_id, ordinal)) WITHOUT ROWID",
    "CREATE TABLE losses (session TEXT PRIMARY KEY, counted_at REAL NOT NULL) WITHOUT ROWID",
    f"INSERT INTO meta VALUES ('schema_version', '{SCHEMA_VERSION}')",
)


class StoredBatch(NamedTuple):
    """One merged batch as it lies in the store; see RenderedBatch."""

    sequence: int
    first_row: int
    lengths: bytes
    lines: bytes


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """Which results topic the offsets belong to."""

    cluster_id: str
    topic_id: str


def _key(file_id: int, sequence: int) -> int:
    return file_id << SEQUENCE_BITS | sequence


class Store:
    """The one writer. Raises sqlite3.Error; FatalError for a store that cannot be used."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        try:
            self._open()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                raise FatalError(
                    f"the store is damaged: {error}", str(self.path),
                    "move its folder away: it is rebuilt from the results topic",
                ) from error  # fmt: skip
            raise

    def _open(self) -> None:
        self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(f"PRAGMA journal_size_limit={64 * _MIB}")
        self._db.execute("PRAGMA cache_size=-8000")
        with self.transaction():
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
                for statement in _SCHEMA:
                    self._db.execute(statement)
        found = self.meta("schema_version")
        if found != SCHEMA_VERSION:
            raise FatalError(
                f"the store has schema {found}, this merger knows {SCHEMA_VERSION}", str(self.path),
                "run the version that wrote it, or move its folder away: it is rebuilt from the topic",
            )  # fmt: skip

    def close(self) -> None:
        """Close; the file's write-ahead log is folded in."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside becomes durable together, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # What it is the store of.

    def meta(self, name: str) -> str | None:
        """Return a note of the store itself."""
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, name: str, value: str) -> None:
        """Note something of the store itself."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def identity(self) -> TopicIdentity | None:
        """Return the topic that the offsets belong to; None in a new store."""
        cluster, topic = self.meta("cluster_id"), self.meta("topic_id")
        return None if cluster is None or topic is None else TopicIdentity(cluster, topic)

    def set_identity(self, identity: TopicIdentity) -> None:
        """Note the topic that the offsets belong to from now on; forget those of another."""
        if identity != self.identity():
            self._db.execute("DELETE FROM offsets")
            self.set_meta("cluster_id", identity.cluster_id)
            self.set_meta("topic_id", identity.topic_id)

    def offsets(self) -> dict[int, int]:
        """Return the next offset to be read, by partition."""
        return dict(self._db.execute("SELECT partition, next FROM offsets").fetchall())

    def set_offsets(self, offsets: Mapping[int, int]) -> None:
        """Note the next offset to be read of some partitions."""
        self._db.executemany("INSERT OR REPLACE INTO offsets VALUES (?, ?)", offsets.items())

    # Runs.

    def add_run(self, run_id: str, labels: Sequence[str], plan: str, stage: Stage) -> RunAccount:
        """Make a run's accounts."""
        files: dict[str, FileAccount] = {}
        for label in labels:
            cursor = self._db.execute(
                "INSERT INTO files (run_id, label, account) VALUES (?, ?, '')", (run_id, label)
            )
            files[label] = FileAccount(file_id=cursor.lastrowid or 0, label=label)
        run = RunAccount(run_id=run_id, files=files, stage=stage)
        self._db.execute("INSERT INTO runs VALUES (?, 1, '')", (run_id,))
        self.set_plan(run_id, plan)
        self.save_run(run)
        return run

    def set_plan(self, run_id: str, plan: str) -> None:
        """Keep what publication must know of a run."""
        self._db.execute("INSERT OR REPLACE INTO plans VALUES (?, ?)", (run_id, plan))

    def plan(self, run_id: str) -> str | None:
        """Return what was kept of a run."""
        row = self._db.execute("SELECT plan FROM plans WHERE run_id=?", (run_id,)).fetchone()
        return None if row is None else str(row[0])

    def save_run(self, run: RunAccount, files: Sequence[FileAccount] | None = None) -> None:
        """Write a run's account and those of its files (or of some of them)."""
        self._db.execute(
            "UPDATE runs SET open=?, account=? WHERE run_id=?",
            (run.stage not in _SETTLED or run.manifest_stale, run_to_json(run), run.run_id),
        )
        self._db.executemany(
            "UPDATE files SET account=? WHERE file_id=?",
            [(file_to_json(one), one.file_id) for one in (run.files.values() if files is None else files)],
        )

    def load_run(self, run_id: str) -> RunAccount | None:
        """Return a run's accounts; None for one that is not here."""
        row = self._db.execute("SELECT account FROM runs WHERE run_id=?", (run_id,)).fetchone()
        if row is None:
            return None
        found = self._db.execute("SELECT file_id, label, account FROM files WHERE run_id=?", (run_id,))
        return run_from_json(row[0], {label: file_from_json(file_id, text) for file_id, label, text in found})

    def forget_run(self, run: RunAccount) -> None:
        """Delete all that is kept of a run."""
        for file in run.files.values():
            span = (_key(file.file_id, 0), _key(file.file_id + 1, 0))
            self._db.execute("DELETE FROM results WHERE key>=? AND key<?", span)
            self._db.execute("DELETE FROM failures WHERE file_id=?", (file.file_id,))
        for table in ("files", "plans", "runs"):
            self._db.execute(f"DELETE FROM {table} WHERE run_id=?", (run.run_id,))

    def open_runs(self) -> list[str]:
        """Return the runs for which something remains to be done."""
        return [row[0] for row in self._db.execute("SELECT run_id FROM runs WHERE open ORDER BY rowid")]

    # Results.

    def add_batch(self, file_id: int, sequence: int, batch: RenderedBatch) -> bool:
        """Keep a batch unless one of its name is there; return whether it was new."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?)",
            (_key(file_id, sequence), batch.first_row, batch.lengths, batch.lines),
        )
        if cursor.rowcount and batch.failed:
            self._db.executemany(
                "INSERT OR IGNORE INTO failures VALUES (?, ?, ?, ?, ?)",
                [(file_id, one.ordinal, one.row_id, one.reason, one.detail) for one in batch.failed],
            )
        return bool(cursor.rowcount)

    def has_rows(self, file_id: int) -> bool:
        """Return whether any row of a file is there."""
        span = (_key(file_id, 0), _key(file_id + 1, 0))
        return bool(self._db.execute("SELECT 1 FROM results WHERE key>=? AND key<? LIMIT 1", span).fetchone())

    def drop_rows(self, file_id: int, most: int) -> int:
        """Delete some of a file's batches and failures; return how many went, 0 when none are left."""
        span = (_key(file_id, 0), _key(file_id + 1, 0), most)
        gone = self._db.execute(
            "DELETE FROM results WHERE key IN (SELECT key FROM results WHERE key>=? AND key<? LIMIT ?)", span
        ).rowcount
        gone += self._db.execute(
            "DELETE FROM failures WHERE file_id=? AND ordinal IN"
            " (SELECT ordinal FROM failures WHERE file_id=? LIMIT ?)",
            (file_id, file_id, most),
        ).rowcount
        return gone

    def probe(self) -> None:
        """Write and delete something: raises like any commit would when the volume is full."""
        with self.transaction():
            self.set_meta("probe", "x" * 65536)
        with self.transaction():
            self._db.execute("DELETE FROM meta WHERE name='probe'")

    def vacuum_some(self, pages: int) -> None:
        """Give some free pages back to the file system."""
        # `execute` takes one step of this pragma, and a step frees one page.
        self._db.executescript(f"PRAGMA incremental_vacuum({pages})")

    def fold_in(self) -> None:
        """Move the write-ahead log into the file, which gets as small as its content."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # Workers that were killed.

    def note_loss(self, session: str, at: float) -> bool:
        """Note that a worker's session was counted as lost; return whether it was not before."""
        return bool(self._db.execute("INSERT OR IGNORE INTO losses VALUES (?, ?)", (session, at)).rowcount)

    def forget_losses(self, before: float) -> None:
        """Forget sessions whose heartbeats the broker no longer keeps."""
        self._db.execute("DELETE FROM losses WHERE counted_at<?", (before,))


_SETTLED = {Stage.DONE, Stage.LEFT_ALONE}


class RowReader:
    """Reads merged rows beside the writer, for parts and outputs; of one thread.

    Each chunk is a query of its own: a long read transaction would keep the log from being folded in.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)

    def close(self) -> None:
        """Close."""
        self._db.close()

    def batches(self, file_id: int, start: int = 0) -> Iterator[StoredBatch]:
        """Yield a file's batches in order from a sequence on, gaps left out."""
        low, end = _key(file_id, start), _key(file_id + 1, 0)
        while True:
            rows = self._db.execute(
                "SELECT key, first_row, lengths, lines FROM results WHERE key>=? AND key<?"
                " ORDER BY key LIMIT ?",
                (low, end, _CHUNK),
            ).fetchall()
            for key, *fields in rows:
                yield StoredBatch(key & ((1 << SEQUENCE_BITS) - 1), *fields)
            if len(rows) < _CHUNK:
                return
            low = rows[-1][0] + 1

    def failures(self, file_id: int) -> Iterator[FailedRow]:
        """Yield a file's rows without values in order."""
        low = -1
        while True:
            rows = self._db.execute(
                "SELECT ordinal, row_id, reason, detail FROM failures WHERE file_id=? AND ordinal>?"
                " ORDER BY ordinal LIMIT ?",
                (file_id, low, 10 * _CHUNK),
            ).fetchall()
            yield from (FailedRow(*row) for row in rows)
            if len(rows) < 10 * _CHUNK:
                return
            low = rows[-1][0]

    def spans(self, file_id: int) -> Iterator[tuple[int, int, int]]:
        """Yield sequence, first row and rows of a file's batches in order, without reading their lines."""
        low, end = _key(file_id, 0), _key(file_id + 1, 0)
        while True:
            rows = self._db.execute(
                "SELECT key, first_row, length(lengths) / 4 FROM results WHERE key>=? AND key<?"
                " ORDER BY key LIMIT ?",
                (low, end, 10 * _CHUNK),
            ).fetchall()
            for key, first_row, count in rows:
                yield key & ((1 << SEQUENCE_BITS) - 1), first_row, count
            if len(rows) < 10 * _CHUNK:
                return
            low = rows[-1][0] + 1

    def batch(self, file_id: int, sequence: int) -> StoredBatch:
        """Return one batch that is there."""
        row = self._db.execute(
            "SELECT first_row, lengths, lines FROM results WHERE key=?", (_key(file_id, sequence),)
        ).fetchone()
        return StoredBatch(sequence, *row)
