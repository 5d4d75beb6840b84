"""JSON Lines as rows: one object per line, read strictly.

The columns are the keys of all objects, in the order in which they first appear; an object that lacks one
has an empty cell there. Most files have the same keys in every line, so the first line's are taken, and
only where another key turns up is the file read once more for all of them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from prism.annotation.strict_json import NotStrictJson, NumberText, load_strictly
from prism.conversion.plain_csv import PlainCsv, Terms
from prism.messages.reasons import FileReason
from prism.tables import TableRefused
from prism.tables.reader import BOM, SIGNATURES

# JSON's white space; a line of nothing else is blank.
_BLANKS = b" \t\r\n"
# Where in its text Python's parser stumbled; here the text is one line of many.
_PLACE = re.compile(r":? line 1 column (\d+) \(char \d+\)")


def convert_json_lines(source: BinaryIO, out: PlainCsv, terms: Terms) -> None:
    """Write a JSON Lines file's rows to `out`, which is begun here.

    Raises TableRefused: `EMPTY_FILE`, `NOT_UTF8`, `MALFORMED_JSONL` and `TOO_LARGE`, with their line.
    """
    try:
        names = list(next(_objects(source, terms))) or _all_names(source, terms)
    except StopIteration:
        raise TableRefused(
            FileReason.EMPTY_FILE, "the file has no objects; write one per line, with its columns as keys"
        ) from None
    try:
        _write(source, names, out, terms)
    except _AnotherKey:
        _write(source, _all_names(source, terms), out, terms)


class _AnotherKey(Exception):
    """An object has a key that is no column yet."""


def _write(source: BinaryIO, names: list[str], out: PlainCsv, terms: Terms) -> None:
    out.begin(names)
    out.add(_rows(source, names, terms))


def _rows(source: BinaryIO, names: list[str], terms: Terms) -> Iterator[list[str]]:
    known = frozenset(names)
    for found in _objects(source, terms):
        if not known.issuperset(found):
            raise _AnotherKey
        yield [cell_text(found.get(name)) for name in names]


def _all_names(source: BinaryIO, terms: Terms) -> list[str]:
    names: dict[str, None] = {}
    for found in _objects(source, terms):
        names.update(dict.fromkeys(found))
        if len(names) > terms.max_columns:
            detail = f"more than {terms.max_columns} different keys are columns too many; remove some"
            raise TableRefused(FileReason.TOO_LARGE, detail)
    return list(names)


def _objects(source: BinaryIO, terms: Terms) -> Iterator[dict[str, Any]]:
    source.seek(0)
    _refuse_other_formats(source)
    # Quotes double in a CSV.
    most = terms.max_row_bytes // 2
    number = 0
    while line := source.readline(most + 1):
        number += 1
        if len(line) > most:
            detail = f"the line has more than {most} bytes; is each object on a line of its own?"
            raise TableRefused(FileReason.TOO_LARGE, detail, line=number)
        if line.strip(_BLANKS):
            yield _object(line, number)


def _refuse_other_formats(source: BinaryIO) -> None:
    head = source.read(4)
    for signature, detail in (*SIGNATURES, (b"PAR1", "the file is Parquet; name it .parquet")):
        if head.startswith(signature):
            raise TableRefused(FileReason.NOT_UTF8, detail)
    source.seek(len(BOM) if head.startswith(BOM) else 0)


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        found = load_strictly(line.decode().strip())
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode()) + 1
        detail = f"byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise TableRefused(FileReason.NOT_UTF8, detail, line=number, column=column) from None
    except (NotStrictJson, RecursionError) as error:
        raise _malformed(str(error), number) from None
    if not isinstance(found, dict):
        raise _malformed(f"this is {_what(found)}, not an object", number)
    return found


def _malformed(what: str, number: int) -> TableRefused:
    place = _PLACE.search(what)
    detail = f"{_PLACE.sub('', what)}; each line must be one JSON object"
    column = int(place[1]) if place else None
    return TableRefused(FileReason.MALFORMED_JSONL, detail, line=number, column=column)


def _what(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    if isinstance(value, NumberText):
        return "a number"
    return "a string" if isinstance(value, str) else "true, false or null"


def cell_text(value: Any) -> str:
    """Return a value as a cell: a string as it is, a number as it is written, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else _json_text(value)


def _json_text(value: Any) -> str:
    """Return compact JSON, with numbers as they are written."""
    if isinstance(value, NumberText):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json_text(key)}:{_json_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
