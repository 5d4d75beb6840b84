"""The converter's process: a source on stdin, its plain CSV in a file, one JSON object on stdout.

A file that breaks a decoder finds a process without environment, with little memory and nothing to write
but that one file; it dies with its parent (Linux).
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from prism import confinement
from prism.conversion.json_lines import convert_json_lines
from prism.conversion.kinds import SourceKind
from prism.conversion.plain_csv import Converted, PlainCsv, Terms
from prism.tables import TableRefused

_BUFFER = 1 << 20


def main(arguments: Sequence[str]) -> None:
    """Convert. One argument: the order as JSON."""
    order = json.loads(arguments[0])
    confinement.die_with(order["parent"])
    # Where a container's memory is short, this process goes first, not the one that feeds every run.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    confinement.confine(order["memory_bytes"])
    terms = Terms(**order["terms"])
    with open(0, "rb", buffering=_BUFFER) as source, open(order["target"], "wb", buffering=_BUFFER) as target:
        said = _outcome(source, target, SourceKind(order["kind"]), terms)
    print(json.dumps(said))  # noqa: T201 - this is the reply


def _outcome(source: BinaryIO, target: BinaryIO, kind: SourceKind, terms: Terms) -> dict[str, Any]:
    try:
        return {"converted": asdict(_convert(source, target, kind, terms))}
    except TableRefused as refused:
        found = {"reason": refused.reason.value, "detail": refused.detail}
        return {"refused": found, "line": refused.line, "column": refused.column}
    except OSError as error:
        return {"errno": error.errno or 0}


def _convert(source: BinaryIO, target: BinaryIO, kind: SourceKind, terms: Terms) -> Converted:
    out = PlainCsv(target, os.fstat(source.fileno()).st_size, terms)
    if kind is SourceKind.JSONL:
        convert_json_lines(source, out, terms)
    else:
        # Nobody else should wait for pyarrow, nor hold its memory.
        from prism.conversion.parquet import convert_parquet

        convert_parquet(source, out)
    return out.end()


if __name__ == "__main__":
    main(sys.argv[1:])
