"""How a table is written, by its name."""

from enum import StrEnum


class SourceKind(StrEnum):
    """What can be read."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"

    @property
    def is_text_table(self) -> bool:
        """Whether it is read as it lies, without a conversion."""
        return self in (SourceKind.CSV, SourceKind.TSV)


ENDINGS = {
    ".csv": SourceKind.CSV,
    ".tsv": SourceKind.TSV,
    ".tab": SourceKind.TSV,
    ".jsonl": SourceKind.JSONL,
    ".ndjson": SourceKind.JSONL,
    ".parquet": SourceKind.PARQUET,
    ".pq": SourceKind.PARQUET,
}
PACKED = ".gz"


def kind_of(name: str) -> SourceKind | None:
    """Return what a file's name promises, `.gz` left aside; None without a known ending."""
    return ENDINGS.get(_ending(_unpacked(name)).lower())


def stem_of(name: str) -> str:
    """Return a file's name without the endings that are known here."""
    name = _unpacked(name)
    ending = _ending(name)
    return name[: -len(ending)] if ending.lower() in ENDINGS else name


def is_packed(name: str) -> bool:
    """Return whether a file's name promises gzip."""
    return name.lower().endswith(PACKED)


def _unpacked(name: str) -> str:
    return name[: -len(PACKED)] if is_packed(name) else name


def _ending(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""
