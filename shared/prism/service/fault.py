"""Named points where a test can kill or stop this process, to prove that no instruction is special.

    PRISM_CRASH_AT=merger.after_rename          SIGKILL at the first passage
    PRISM_CRASH_AT=worker.before_call:3         SIGKILL at the third
    PRISM_CRASH_AT=worker.before_call~poison    SIGKILL whenever the detail contains "poison"
    PRISM_STOP_AT=ingestor.after_batch_fed:2    SIGSTOP at the second; goes on after SIGCONT

Several are separated by commas. Every point is declared in `POINTS`, so that a test can visit them all.
Unset, a point costs one comparison.
"""

import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

# The name of each point, and where it stands.
POINTS: dict[str, str] = {
    "ingestor.after_intake_read": "an intake record was read, nothing is known of it yet",
    "ingestor.after_run_written": "the run's first record is acknowledged",
    "ingestor.after_check": "pass 1 has read the source to its end",
    "ingestor.after_batch_fed": "a batch is acknowledged, the cursor does not show it",
    "ingestor.after_cursor_written": "the cursor is acknowledged",
    "ingestor.before_intake_commit": "the intake offset may be committed, and is not yet",
    "ingestor.after_takeover": "the epoch is raised, nothing is fed yet",
    "worker.after_poll": "a batch was fetched",
    "worker.before_call": "the model is about to be called",
    "worker.after_call": "the model has answered, nothing is produced",
    "worker.after_result_produced": "the result is in the producer's queue, not acknowledged",
    "worker.after_result_acked": "the result is acknowledged, the frontier does not show it",
    "worker.before_commit": "offsets may be committed, and are not yet",
    "worker.after_commit": "offsets are committed",
    "worker.on_revoke": "partitions are being taken away",
    "merger.after_poll": "results were fetched",
    "merger.before_store_commit": "results and offsets are in an open transaction",
    "merger.after_store_commit": "results and offsets are durable, progress does not show them",
    "merger.after_progress": "progress is acknowledged",
    "merger.after_part_written": "a part file has its name",
    "merger.after_output_written": "the temporary output is durable",
    "merger.after_publishing_mark": "the store says `publishing`",
    "merger.after_rename": "the output has its name",
    "merger.after_manifest": "the manifest has its name",
    "merger.after_published_mark": "the store says `published`",
    "merger.after_announce": "the announcement is acknowledged",
    "merger.after_reports_written": "summary, analytics and report stand, the store does not show them",
}

_SPEC = re.compile(r"(?P<name>[a-z_.]+)(?::(?P<passage>[1-9][0-9]*)|~(?P<text>.+))?")


@dataclass(frozen=True, slots=True)
class _Fault:
    name: str
    signal: signal.Signals
    passage: int
    text: str | None


def point(name: str, detail: str = "") -> None:
    """Pass the point `name`; `detail` (a batch id, a row's key) lets a fault choose what it meets."""
    if _faults:
        _pass(name, detail)


def parse(environ: Mapping[str, str]) -> tuple[_Fault, ...]:
    """Read the two settings. Raises ValueError with the name of a setting that is wrong."""
    found: list[_Fault] = []
    for setting, number in (("PRISM_CRASH_AT", signal.SIGKILL), ("PRISM_STOP_AT", signal.SIGSTOP)):
        for spec in filter(None, environ.get(setting, "").split(",")):
            match = _SPEC.fullmatch(spec)
            if match is None or match["name"] not in POINTS:
                names = ", ".join(POINTS)
                raise ValueError(f"{setting}: {spec!r} is wrong; allowed: NAME, NAME:N, NAME~TEXT; {names}")
            found.append(_Fault(match["name"], number, int(match["passage"] or 1), match["text"]))
    return tuple(found)


def _pass(name: str, detail: str) -> None:
    if name not in POINTS:
        raise KeyError(f"crash point {name!r} is not declared in prism.service.fault.POINTS")
    with _lock:
        _passages[name] += 1
        passage = _passages[name]
    for fault in _faults:
        if fault.name == name and _meets(fault, passage, detail):
            os.kill(os.getpid(), fault.signal)


def _meets(fault: _Fault, passage: int, detail: str) -> bool:
    return fault.passage == passage if fault.text is None else fault.text in detail


def _armed() -> tuple[_Fault, ...]:
    try:
        return parse(os.environ)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(3) from None


_lock = threading.Lock()
_passages: Counter[str] = Counter()
_faults = _armed()
