"""What a file's name promises."""

import pytest

from prism.conversion import SourceKind, is_packed, kind_of, stem_of


@pytest.mark.parametrize(
    ("name", "kind", "stem"),
    [
        ("march.csv", SourceKind.CSV, "march"),
        ("March.CSV.GZ", SourceKind.CSV, "March"),
        ("a.b.tsv", SourceKind.TSV, "a.b"),
        ("a.tab", SourceKind.TSV, "a"),
        ("a.jsonl.gz", SourceKind.JSONL, "a"),
        ("a.ndjson", SourceKind.JSONL, "a"),
        ("a.parquet", SourceKind.PARQUET, "a"),
        ("a.pq", SourceKind.PARQUET, "a"),
        ("a.txt", None, "a.txt"),
        ("a.gz", None, "a"),
        ("csv", None, "csv"),
        (".csv", None, ".csv"),
        ("", None, ""),
    ],
)
def test_endings(name: str, kind: SourceKind | None, stem: str) -> None:
    assert kind_of(name) is kind
    assert stem_of(name) == stem


def test_packed() -> None:
    assert is_packed("a.csv.GZ")
    assert not is_packed("a.csv")
