"""Tables that are no CSV, brought to a plain CSV: JSON Lines and Parquet.

kind_of("march.jsonl.gz")                                  # what a name promises
convert(source, kind, target, terms, between)              # in a child process, with limits
"""

from prism.conversion.converter import convert
from prism.conversion.kinds import SourceKind, is_packed, kind_of, stem_of
from prism.conversion.plain_csv import Terms

__all__ = ["SourceKind", "Terms", "convert", "is_packed", "kind_of", "stem_of"]
