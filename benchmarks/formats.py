"""Sources that are no CSV: how long their conversion takes, and that its memory does not grow with them."""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.figure import Figure
from prism.conversion import SourceKind, Terms, convert

_MIB = 1 << 20
_GROUP_ROWS = 50_000
_WORDS = 30


@dataclass(slots=True)
class Peaks:
    """Highest MiB of memory seen, of this process and of the converter's."""

    parent: float = 0.0
    child: float = 0.0

    def look(self) -> None:
        """Take a look."""
        here = psutil.Process()
        self.parent = max(self.parent, here.memory_info().rss / _MIB)
        for one in here.children():
            try:
                self.child = max(self.child, one.memory_info().rss / _MIB)
            except psutil.Error:
                continue


def formats(small: int = 50, large: int = 500) -> list[Figure]:
    """Parquet and JSON Lines of two sizes in MB, as pass 1 has them made into a plain CSV."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="prism-bench-") as folder:
        for kind in (SourceKind.PARQUET, SourceKind.JSONL):
            peaks = [_measured(kind, size, Path(folder), figures) for size in (small, large)]
            growth = peaks[1].child / peaks[0].child
            figures.append(
                Figure("formats", f"{kind}: memory, larger ÷ smaller", growth, "", "≤ 1.3", growth <= 1.3)
            )
    return figures


def _measured(kind: SourceKind, megabytes: int, folder: Path, figures: list[Figure]) -> Peaks:
    path = folder / f"source.{kind}"
    rows = _write(path, kind, megabytes * 1_000_000)
    peaks = Peaks()
    began = time.perf_counter()
    with path.open("rb") as source:
        done = convert(source, kind, folder / "plain.csv", Terms(), peaks.look)
    seconds = time.perf_counter() - began
    assert done.rows == rows, f"{done.rows} of {rows} rows came out"
    path.unlink()
    what = f"{kind} of {megabytes} MB"
    figures += [
        Figure("formats", f"{what}: rows", rows, ""),
        Figure("formats", f"{what}: time", seconds, "s"),
        Figure("formats", f"{what}: converter", peaks.child, "MiB", "≤ 300", peaks.child <= 300),
    ]
    return peaks


def _write(path: Path, kind: SourceKind, size: int) -> int:
    """Write a source of at least so many bytes; return its rows."""
    rows = 0
    if kind is SourceKind.JSONL:
        with path.open("w") as target:
            for group in _groups():
                for row_id, text in group:
                    target.write(json.dumps({"RowID": row_id, "Message": text}) + "\n")
                rows += len(group)
                if target.tell() >= size:
                    return rows
    schema = pa.schema([("RowID", pa.int64()), ("Message", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for group in _groups():
            ids, texts = zip(*group, strict=True)
            writer.write_table(pa.table([ids, texts], schema=schema))
            rows += len(group)
            if path.stat().st_size >= size:
                break
    return rows


def _groups() -> Iterator[list[tuple[int, str]]]:
    chance = random.Random(1)
    words = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(20_000)
    ]
    number = 0
    while True:
        texts = [" ".join(chance.choices(words, k=_WORDS)) for _ in range(_GROUP_ROWS)]
        yield list(enumerate(texts, number))
        number += _GROUP_ROWS
