"""`prism purge`: removes what ended runs left on this machine, after it has shown what that is."""

import sys
import time
from argparse import Namespace
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prism.messages import RunRecord
from prism_cli import connection as connections
from prism_cli import fleet_file
from prism_cli.board import Board
from prism_cli.connection import Connection
from prism_cli.console import count, files, printable, say, table, write_json
from prism_cli.console import output as console
from prism_cli.exits import BAD_INPUT, DONE, FAILED, USAGE, CommandFailed
from prism_cli.fetching import sha256
from prism_cli.leavings import Leaving, ended_at, of_run, remove, service_logs, spooled
from prism_cli.local_runs import LocalRun, find_run, find_runs, output_root
from prism_cli.store_files import StoreFile, is_held, stores
from prism_merger.run_files import Kind

_NEVER = float("inf")


@dataclass(slots=True)
class Findings:
    """What may go, and what a person should know before it does."""

    leavings: list[Leaving] = field(default_factory=list)
    stores: list[StoreFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.leavings) + sum(one.free for one in self.stores)


@dataclass(frozen=True, slots=True)
class Known:
    """What the broker says of the runs; None where no fleet is up: then a manifest is the end of a run."""

    records: Mapping[str, RunRecord] | None

    def why_kept(self, run_id: str, has_manifest: bool) -> str | None:
        """Return why what a run left must stay, None if it may go."""
        record = self.records.get(run_id) if self.records is not None else None
        if record is not None and not record.state.ended:
            return f"it has not ended ({record.state.value})"
        if not has_manifest and record is None:
            return "it has no manifest: for all that is known here it has not ended"
        child = self._open_child(run_id)
        return f"{child} does its failed rows again" if child else None

    def _open_child(self, run_id: str) -> str | None:
        for one in (self.records or {}).values():
            if one.parent == run_id and not one.state.ended:
                return one.run_id
        return None


def run(options: Namespace) -> int:
    """Show what would go, ask, remove."""
    environ = connections.environment()
    data_dir = connections.data_dir(options, environ).absolute()
    root = output_root(data_dir, environ)
    if not data_dir.is_dir() and not root.is_dir():
        raise CommandFailed(BAD_INPUT, "no such folder", str(data_dir), "name the fleet's: --data-dir DIR")
    running = fleet_file.alive(data_dir)
    known = _known(options, environ, data_dir, running)
    found = gather(options, data_dir, root, known, running)
    if not options.json:
        _show(found)
    if options.dry_run or not (found.leavings or found.stores):
        return _report(options, found, 0, 0)
    if not options.yes and not _agreed(found):
        say("nothing was removed")
        return FAILED
    return _remove(options, found)


def gather(options: Namespace, data_dir: Path, root: Path, known: Known, running: bool) -> Findings:
    """Return what may go. Raise CommandFailed for a named run of which nothing may."""
    found = Findings()
    before = _NEVER if options.older_than is None else time.time() - options.older_than
    wanted = frozenset(options.run_ids)
    runs = [find_run(root, one) for one in options.run_ids] if wanted else list(find_runs(root))
    for one in runs:
        why = known.why_kept(one.run_id, bool(one.manifest))
        if why is not None and wanted:
            raise CommandFailed(BAD_INPUT, f"{one.run_id} stays: {why}", str(root), "list runs: prism status")
        if why is None and ended_at(one) < before:
            _gather_run(found, one, options.what)
    if "sources" in options.what:
        found.leavings += _gather_spooled(data_dir, wanted, runs, known, before)
    if "logs" in options.what and not wanted:
        found.leavings += service_logs(data_dir, running, before)
    if "stores" in options.what and not wanted:
        _gather_stores(found, data_dir)
    return found


def _gather_stores(found: Findings, data_dir: Path) -> None:
    if is_held(data_dir):
        found.warnings.append("a merger works here: its store can be compacted once it has stopped")
    else:
        found.stores = [one for one in stores(data_dir) if one.free]


def _gather_run(found: Findings, run: LocalRun, what: Collection[str]) -> None:
    mine = list(of_run(run, what, sha256))
    if not _all_rows_go(run, mine):
        # Without it nobody knows which outputs are the run's, nor that it has ended.
        mine = [one for one in mine if not one.is_manifest]
    rows = run.manifest.get("rows")
    failed = rows.get("failed") if isinstance(rows, dict) else 0
    if failed and any(one.what in ("parts", "outputs") for one in mine):
        found.warnings.append(
            f"{run.run_id} has {count(int(failed))} failed rows: prism retry needs what goes"
        )
    found.leavings += mine


def _all_rows_go(run: LocalRun, mine: Iterable[Leaving]) -> bool:
    gone = {one.path for one in mine}
    rows = (Kind.OUTPUT, Kind.PART)
    return all(one.path in gone for one in run.files.listing() if one.kind in rows)


def _gather_spooled(
    data_dir: Path, wanted: Collection[str], runs: Iterable[LocalRun], known: Known, before: float
) -> Iterable[Leaving]:
    ended = {one.run_id: ended_at(one) for one in runs if one.manifest}
    for one in spooled(data_dir):
        if wanted and one.run_id not in wanted:
            continue
        if known.why_kept(one.run_id, one.run_id in ended) is None and ended.get(one.run_id, 0.0) < before:
            yield one


def _known(options: Namespace, environ: Mapping[str, str], data_dir: Path, running: bool) -> Known:
    fleet = fleet_file.read(data_dir) if running else None
    if fleet is not None and not options.bootstrap:
        options.bootstrap = fleet.bootstrap
    if options.bootstrap or environ.get("BOOTSTRAP_SERVER"):
        return Known(_records(connections.connect(options)))
    if running or is_held(data_dir):
        raise CommandFailed(
            BAD_INPUT,
            "services work in this folder, and nobody knows their broker",
            str(data_dir),
            "name it (--bootstrap HOST:PORT), or stop them first",
        )
    return Known(None)


def _records(connection: Connection) -> dict[str, RunRecord]:
    board = Board(connection)
    try:
        board.catch_up()
        return {one.run_id: one.record for one in board.runs()}
    finally:
        board.close()


def _show(found: Findings) -> None:
    sums: dict[tuple[str, str], list[int]] = {}
    for one in found.leavings:
        pair = sums.setdefault((one.run_id or "(services)", one.what), [0, 0])
        pair[0] += 1
        pair[1] += one.bytes
    rows = [
        [printable(run_id), what, count(number), count(size)]
        for (run_id, what), (number, size) in sorted(sums.items())
    ]
    rows += [[one.folder.name, "stores", f"{count(one.runs)} runs", count(one.free)] for one in found.stores]
    if rows:
        columns = [("run", "fold"), ("what", "left"), ("files", "right"), ("bytes", "right")]
        console().print(table(columns, rows))
    for warning in found.warnings:
        say(f"warning: {warning}")


def _agreed(found: Findings) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandFailed(
            USAGE, "not a terminal, so nobody can be asked", next="--yes, or --dry-run to look"
        )
    sys.stderr.write(f"remove {_amount(found)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _amount(found: Findings) -> str:
    compacted = f" and compact {count(len(found.stores))} stores" if found.stores else ""
    return f"{files(len(found.leavings))}{compacted}, {count(found.bytes)} bytes"


def _remove(options: Namespace, found: Findings) -> int:
    try:
        gone, size = remove(found.leavings)
        size += sum(one.compact() for one in found.stores)
    except OSError as error:
        what = f"cannot remove: {error.strerror or error}"
        raise CommandFailed(
            FAILED, what, printable(str(error.filename or "")), "repair it and purge again"
        ) from None
    return _report(options, found, gone, size)


def _report(options: Namespace, found: Findings, gone: int, size: int) -> int:
    if options.json:
        write_json(_as_json(found, options.dry_run, gone, size))
    elif options.dry_run:
        say(f"would remove {_amount(found)}; nothing was removed")
    elif not (found.leavings or found.stores):
        say("nothing to remove")
    else:
        say(f"removed {files(gone)}; {count(size)} bytes are free")
    return DONE


def _as_json(found: Findings, dry_run: bool, gone: int, size: int) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "files": [
            {"path": str(one.root / one.path), "what": one.what, "run_id": one.run_id, "bytes": one.bytes}
            for one in found.leavings
        ],
        "stores": [
            {"folder": str(one.folder), "bytes": one.bytes, "free": one.free, "runs": one.runs}
            for one in found.stores
        ],
        "warnings": found.warnings,
        "removed": {"files": gone, "bytes": size},
    }
