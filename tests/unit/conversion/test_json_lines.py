"""JSON Lines: any cells come through, and what is no such file is refused with its line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.conversion import plain_csv
from prism.conversion.plain_csv import Terms
from prism.messages import FileReason
from tests.unit.conversion.convert import TERMS, plain, refused, table

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.lists(TEXTS.filter(bool), min_size=1, max_size=4, unique=True)


@given(data=st.data(), names=NAMES, ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_any_texts_come_through(data: st.DataObject, names: list[str], ascii_only: bool, end: str) -> None:
    rows = data.draw(st.lists(st.lists(TEXTS, min_size=len(names), max_size=len(names)), min_size=1))
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=ascii_only) for row in rows]
    source = end.join(lines).encode()
    # A NUL in a name is refused where the header is read, one in a cell fails its row there.
    if "\0" in "".join(names):
        return
    assert table(source) == [names, *rows]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("1.10", "1.10"),
        ("-0", "-0"),
        ("1e400", "1e400"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("true", "true"),
        ("null", ""),
        ('""', ""),
        ('{"a": [1.50, true, null, "\\u00e9 \\"x\\""]}', '{"a":[1.50,true,null,"é \\"x\\""]}'),
        ("[]", "[]"),
        ('"null"', "null"),
    ],
)
def test_values_that_are_no_texts(value: str, cell: str) -> None:
    assert table(b'{"Message": %s}' % value.encode()) == [["Message"], [cell]]


def test_columns_are_the_keys_of_all_objects_in_the_order_of_their_first_appearance() -> None:
    source = b'{}\n{"b":"1","a":"2"}\n{"a":"3","c":"4"}\n\n{"b":"5"}\n'
    assert table(source) == [["b", "a", "c"], ["", "", ""], ["1", "2", ""], ["", "3", "4"], ["5", "", ""]]


def test_a_bom_and_crlf_are_no_content() -> None:
    assert table(b'\xef\xbb\xbf{"a":"1"}\r\n{"a":"2"}') == [["a"], ["1"], ["2"]]


HOSTILE: list[tuple[bytes, FileReason, int | None, str]] = [
    (b"", FileReason.EMPTY_FILE, None, "no objects"),
    (b"\n \r\n", FileReason.EMPTY_FILE, None, "no objects"),
    (b"{}\n{}", FileReason.NO_HEADER, None, "no column"),
    (b'{"a":1}\n[{"a":1}]', FileReason.MALFORMED_JSONL, 2, "an array"),
    (b'{"a":1}\n\n7', FileReason.MALFORMED_JSONL, 3, "a number"),
    (b'"a"', FileReason.MALFORMED_JSONL, 1, "a string"),
    (b"null", FileReason.MALFORMED_JSONL, 1, "null"),
    (b'{"a":1,"a":2}', FileReason.MALFORMED_JSONL, 1, "twice"),
    (b'{"a":NaN}', FileReason.MALFORMED_JSONL, 1, "NaN"),
    (b'{"a":"\\ud800"}', FileReason.MALFORMED_JSONL, 1, "surrogate"),
    (b'{"a":"\0"}', FileReason.MALFORMED_JSONL, 1, "control character"),
    (b'{"a":1}{"a":2}', FileReason.MALFORMED_JSONL, 1, "Extra data"),
    (b'{\n  "a": 1\n}', FileReason.MALFORMED_JSONL, 1, "one JSON object"),
    (b'{"a":' + b"[" * 100_000, FileReason.MALFORMED_JSONL, 1, "nested"),
    (b'{"a":' + b"9" * 500 + b"}", FileReason.MALFORMED_JSONL, 1, "a number longer"),
    (b'{"a":"\xe4"}', FileReason.NOT_UTF8, 1, "0xe4"),
    ('{"a":1}'.encode("utf-16"), FileReason.NOT_UTF8, None, "UTF-16"),
    (b"\x1f\x8b\x08\x00", FileReason.NOT_UTF8, None, "gzip"),
    (b"RowID,Message\n1,x\n", FileReason.MALFORMED_JSONL, 1, "one JSON object"),
]


@pytest.mark.parametrize(("source", "reason", "line", "what"), HOSTILE)
def test_what_is_refused(source: bytes, reason: FileReason, line: int | None, what: str) -> None:
    found = refused(source)
    assert (found.reason, found.line) == (reason, line)
    assert what in found.detail
    assert "line 1 column" not in found.detail


def test_where_in_the_line() -> None:
    assert refused(b'{"a":1}\n{"a":x}').column == 6


def test_a_line_without_an_end_takes_no_memory() -> None:
    class Endless:
        """A file of one line that never ends; counts what is asked of it."""

        asked = 0

        def seek(self, *_: int) -> int:
            return 0

        def read(self, size: int) -> bytes:
            return b'{"a":'[:size]

        def readline(self, size: int) -> bytes:
            self.asked += size
            return b"x" * size

    from prism.conversion.json_lines import convert_json_lines
    from prism.tables import TableRefused

    source: Any = Endless()
    with pytest.raises(TableRefused, match="line 1: the line has more than") as caught:
        convert_json_lines(source, source, TERMS)
    assert caught.value.reason is FileReason.TOO_LARGE
    assert source.asked <= TERMS.max_row_bytes


def test_bounds() -> None:
    many = b"\n".join(b'{"k%d":1}' % number for number in range(30))
    assert refused(many, Terms(max_columns=20)).reason is FileReason.TOO_LARGE
    two = b'{"a":"xxxxxxxxxx"}\n{"a":"yyyyyyyyyy"}\n'
    assert len(plain(two)) == 26
    assert refused(two, Terms(max_bytes=25)).reason is FileReason.TOO_LARGE
    assert refused(two, Terms(max_bytes=25, scarce=True)).reason is FileReason.NO_SPACE


def test_a_bomb_of_columns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_csv, "RATIO_FREE_BYTES", 1 << 20)
    monkeypatch.setattr(plain_csv, "MAX_RATIO", 100)
    wide = json.dumps({f"k{number}": 1 for number in range(4000)}).encode()
    assert refused(wide + b"\n{}" * 4_000).reason is FileReason.TOO_LARGE
