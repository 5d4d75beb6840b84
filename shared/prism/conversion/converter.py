"""The parent's side of a conversion.

Argument. A Parquet file is decoded by a hundred thousand lines of C++, and a JSON text can ask for any
memory; so both are read in a child process with limits, and whatever they do to their reader happens to that
one file. The child writes beside the target's name; the name itself comes by a rename once the child has said
that all is well. What it writes depends on the source's bytes and the terms alone, so another process that
converts the same source goes on from the same byte offsets.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from prism.conversion.kinds import SourceKind
from prism.conversion.plain_csv import Converted, Terms
from prism.messages.reasons import FileReason
from prism.tables import TableRefused

MEMORY_BYTES = 1 << 30
# A reader that writes nothing for so long is stuck.
STALL_S = 300.0
_LOOK_S = 0.05
_PASSED_ON = ("LD_LIBRARY_PATH", "PYTHONPATH")
# One small pool: glibc's own, no thread but the one that reads.
_FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_MALFORMED = {
    SourceKind.JSONL: FileReason.MALFORMED_JSONL,
    SourceKind.PARQUET: FileReason.MALFORMED_PARQUET,
}


def convert(
    source: BinaryIO,
    kind: SourceKind,
    target: Path,
    terms: Terms,
    between: Callable[[], None] = lambda: None,
    stall_s: float = STALL_S,
) -> Converted:
    """Write the plain CSV of a JSON Lines or Parquet file to `target`, which is replaced.

    `between` is called while it goes on, and may raise. Raises TableRefused for a file that cannot be used,
    OSError for what may work later. The target is not fsynced: whoever has the source can make it again.
    """
    beside = target.with_name(f"{target.name}.converting")
    try:
        done = _run(source, kind, beside, terms, between, stall_s)
        beside.replace(target)
        return done
    finally:
        beside.unlink(missing_ok=True)


def _run(
    source: BinaryIO,
    kind: SourceKind,
    beside: Path,
    terms: Terms,
    between: Callable[[], None],
    stall_s: float,
) -> Converted:
    process = _start(source, kind, beside, terms)
    try:
        reply = _await(process, beside, between, stall_s)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if reply is None:
        raise _broken(kind, process.returncode)
    return _read(reply)


def _start(source: BinaryIO, kind: SourceKind, beside: Path, terms: Terms) -> "subprocess.Popen[bytes]":
    order = {
        "parent": os.getpid(),
        "memory_bytes": MEMORY_BYTES,
        "kind": kind.value,
        "target": str(beside.absolute()),
        "terms": asdict(terms),
    }
    # No secret of the service's goes along.
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-s", "-P", "-m", "prism.conversion.child", json.dumps(order)],
        stdin=source.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=environment | _FRUGAL,
        start_new_session=True,  # Ctrl-C goes to the parent
    )


def _await(
    process: "subprocess.Popen[bytes]", beside: Path, between: Callable[[], None], stall_s: float
) -> dict[str, Any] | None:
    """Return the child's reply; None if it died or was stuck."""
    seen, moved = -1, time.monotonic()
    while True:
        try:
            said, _ = process.communicate(timeout=_LOOK_S)
            break
        except subprocess.TimeoutExpired:
            between()
        size = beside.stat().st_size if beside.exists() else 0
        if size != seen:
            seen, moved = size, time.monotonic()
        elif time.monotonic() - moved > stall_s:
            return None
    try:
        reply = json.loads(said)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def _read(reply: dict[str, Any]) -> Converted:
    if "converted" in reply:
        return Converted(**reply["converted"])
    if "refused" in reply:
        found = reply["refused"]
        raise TableRefused(
            FileReason(found["reason"]), found["detail"], line=reply["line"], column=reply["column"]
        )
    number = int(reply["errno"])
    raise OSError(number, f"the file could not be converted: {os.strerror(number)}")


def _broken(kind: SourceKind, status: int) -> TableRefused:
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
    return TableRefused(
        _MALFORMED[kind],
        f"its reader broke down on it ({how}); write it again with another tool, or send it as CSV",
    )
