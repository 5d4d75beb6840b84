"""Every way in which the content of a reply can lie or break, with its exact outcome.

An outcome is written as one word per row: the Key_Point of an accepted answer, the reason of a refused row;
or as the one reason for which the whole reply is refused.
"""

import json
import time
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prism.annotation import Answer, BadReply, Problem, PromptFile, build_prompt, read_reply
from prism.annotation.column import MAX_VALUE_CHARACTERS
from prism.messages.reasons import RowReason
from tests.unit.annotation.samples import item, prompt_file, reply, rows

pytestmark = pytest.mark.promise(7)

EMPTY, NOT_JSON = RowReason.EMPTY_REPLY, RowReason.NOT_JSON
MISSING, AMBIGUOUS = RowReason.MISSING_ROW, RowReason.AMBIGUOUS_ROW
VIOLATION, NOT_ALLOWED = RowReason.SCHEMA_VIOLATION, RowReason.LABEL_NOT_ALLOWED

PERMISSIVE, STRICT = prompt_file(), prompt_file(strict=True)
CONDITIONAL = prompt_file(
    conditions=[
        {"when": {"Topic": ["Other", "1"]}, "set": {"Urgency": "Low", "Key_Point": "ruled"}},
        {"when": {"Urgency": "High"}, "default": {"Sentiment": "Mixed"}},
    ],
    close_on="Support",
)
Outcome = list[str] | RowReason


def about(row_id: Any, **changes: Any) -> dict[str, Any]:
    return item(row_id, **({"Key_Point": f"of {row_id}"} | changes))


def without(key: str, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}


def read(text: str, row_ids: Sequence[str], file: PromptFile) -> list[Answer | Problem] | BadReply:
    try:
        return read_reply(text, build_prompt(file, rows(*row_ids)), file)
    except BadReply as bad:
        return bad


def outcome(text: str, row_ids: Sequence[str], file: PromptFile = PERMISSIVE) -> Outcome:
    found = read(text, row_ids, file)
    if isinstance(found, BadReply):
        assert found.detail.isprintable()
        return found.reason
    return [x.values["Key_Point"] if isinstance(x, Answer) else x.reason for x in found]


ONE, TWO = about("1"), about("2")
BOTH = reply(ONE, TWO)
SOUND = ["of 1", "of 2"]

WHOLE_REPLIES: dict[str, tuple[str, Outcome]] = {
    "sound": (BOTH, SOUND),
    # Cut off.
    "cut inside a string": (BOTH[:-12], NOT_JSON),
    "cut before the last bracket": (BOTH[:-1], NOT_JSON),
    "cut behind the first item": (BOTH[: BOTH.index("}, {") + 1], NOT_JSON),
    "cut list in prose": (f'Here: ["note", {json.dumps(ONE)}', NOT_JSON),
    "cut behind a complete object": (f"{json.dumps(ONE)}\n{{", NOT_JSON),
    "cut behind a smiley": (f":-}} {json.dumps(ONE)}\n{{", NOT_JSON),
    "cut draft before a sound reply": (f"{BOTH[:50]}\n{BOTH}", NOT_JSON),
    # Packaging.
    "prose around it": (f"Sure! Here it is:\n{BOTH}\nAnything else?", SOUND),
    "prose with brackets": (f"As asked [1], in {{order}}: {BOTH} :-)", SOUND),
    "fence": (f"```json\n{BOTH}\n```", SOUND),
    "fence of tildes": (f"~~~\n{BOTH}\n~~~", SOUND),
    "nested fences": (f"````markdown\n```json\n{BOTH}\n```\n````", SOUND),
    "fence that is not closed": (f"```json\n{BOTH}", SOUND),
    "fence inside a value": (reply(about("1", Key_Point='```json {"x"'), TWO), ['```json {"x"', "of 2"]),
    "byte order mark": (f"\ufeff{BOTH}", SOUND),
    "html with status 200": (f"<!DOCTYPE html><html><body>{BOTH}</body></html>", NOT_JSON),
    "html of a proxy": ("<html><head><title>504</title></head></html>", NOT_JSON),
    "an error instead": ('{"error": "model is overloaded"}', VIOLATION),
    # Nothing, and thoughts.
    "empty": ("", EMPTY),
    "whitespace": (" \r\n\t\u3000\ufeff ", EMPTY),
    "thoughts only": ("<think>1 is Product, 2 is Support</think>\n", EMPTY),
    "thoughts with an answer in them": (f"<think>{BOTH}</think>", EMPTY),
    "thoughts that never end": (f"<think>so {BOTH}", EMPTY),
    "thoughts without their beginning": (f"so {BOTH}</think>{BOTH}", SOUND),
    "thoughts before the answer": (f"<thinking>perhaps {BOTH[:40]}</thinking>{BOTH}", SOUND),
    "thoughts in prose only": ("I think that both are about Product.", NOT_JSON),
    # More than one.
    "the same reply twice": (BOTH + BOTH, [AMBIGUOUS, AMBIGUOUS]),
    "draft and correction": (f"{BOTH} Wait: {json.dumps(about('2'))}", ["of 1", AMBIGUOUS]),
    "one object a line": (f"{json.dumps(ONE)}\n{json.dumps(TWO)}", SOUND),
    # Other items than asked for.
    "too few": (reply(ONE), ["of 1", MISSING]),
    "none": (reply(), [MISSING, MISSING]),
    "too many": (reply(ONE, TWO, about("3")), SOUND),
    "swapped": (reply(TWO, ONE), SOUND),
    "another row's identity": (reply(ONE, about("9")), ["of 1", MISSING]),
    "one identity for both": (reply(ONE, about("1")), [AMBIGUOUS, MISSING]),
    "no identity": (reply(without("RowID", ONE), TWO), [MISSING, "of 2"]),
    "identity null": (reply(about(None), TWO), [MISSING, "of 2"]),
    "identity as a number": (reply(about(1), about(2.0)), ["of 1", "of 2.0"]),
    "identity as a boolean": (reply(about(True), TWO), [MISSING, "of 2"]),
    "identity in a list": (reply(about(["1"]), TWO), [MISSING, "of 2"]),
    "identity with zeros": (reply(about("01"), TWO), [MISSING, "of 2"]),
    "identity with spaces": (reply(about(" 1\n", Key_Point="of 1"), TWO), SOUND),
    # Another container.
    "a list at the root": (json.dumps([ONE, TWO]), SOUND),
    "another key": (json.dumps({"results": [ONE, TWO]}), SOUND),
    "beside other keys": (json.dumps({"count": 2, "mentions": [ONE, TWO]}), SOUND),
    "a key around it": (json.dumps({"answer": {"mentions": [ONE, TWO]}}), VIOLATION),
    "an object by identity": (json.dumps({"mentions": {"1": ONE, "2": TWO}}), VIOLATION),
    "as a text": (json.dumps({"mentions": json.dumps([ONE, TWO])}), VIOLATION),
    "a list in a list": (json.dumps([[ONE, TWO]]), [MISSING, MISSING]),
    "no objects in it": ('{"mentions": [1, null, "x", []]}', [MISSING, MISSING]),
    "a lone text": ('"Product"', VIOLATION),
    "a lone number": ("42", VIOLATION),
    "null": ("null", VIOLATION),
    # JSON that is none.
    "NaN": (BOTH.replace('"High"', "NaN", 1), NOT_JSON),
    "Infinity": (BOTH.replace('"High"', "Infinity", 1), NOT_JSON),
    "a key twice": (BOTH.replace('"Urgency"', '"Topic"', 1), NOT_JSON),
    "single quotes": (BOTH.replace('"', "'"), NOT_JSON),
    "a trailing comma": (BOTH.replace("}]}", "},]}"), NOT_JSON),
    "a comment": (BOTH.replace("[{", "[// two\n{"), NOT_JSON),
    "100,000 brackets": ("[" * 100_000, NOT_JSON),
    "100,000 brackets in a value": (BOTH.replace('"High"', "[" * 100_000, 1), NOT_JSON),
    "a number of 5,000 digits": (BOTH.replace('"High"', "7" * 5_000, 1), NOT_JSON),
    "a lone surrogate": (BOTH.replace('"High"', '"\ud83d"', 1), NOT_JSON),
    "a lone surrogate, escaped": (BOTH.replace('"High"', r'"\ud83d"', 1), NOT_JSON),
    "a raw newline in a text": (BOTH.replace("of 1", "of\n1"), NOT_JSON),
    "a raw NUL in a text": (BOTH.replace("of 1", "of\x001"), NOT_JSON),
}


@pytest.mark.parametrize(("text", "expected"), WHOLE_REPLIES.values(), ids=WHOLE_REPLIES.keys())
@pytest.mark.parametrize("file", [PERMISSIVE, STRICT], ids=["permissive", "strict"])
def test_a_reply_for_two_rows(text: str, expected: Outcome, file: PromptFile) -> None:
    assert outcome(text, ("1", "2"), file) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(ONE), ["of 1"]),
        (reply(ONE), ["of 1"]),
        (json.dumps([ONE]), ["of 1"]),
        (json.dumps(without("RowID", ONE)), ["of 1"]),
        (json.dumps(TWO), [MISSING]),
        (json.dumps(about(None)), [MISSING]),
        (reply(ONE, TWO), ["of 1"]),
        (reply(without("RowID", ONE), without("RowID", ONE)), [MISSING]),
        (json.dumps({"mentions": ONE}), VIOLATION),
    ],
)
def test_a_reply_for_one_row(text: str, expected: Outcome) -> None:
    assert outcome(text, ("1",)) == expected


# What one value of one row becomes: (permissive, strict); a problem leaves the other row alone.
LABELS: dict[str, tuple[Any, str, str]] = {
    "of the list": ("High", "High", "High"),
    "other case": ("hIGH", "High", "High"),
    "other spacing": ("\t Hi gh\u00a0\n", "High", "High"),
    "outside the list": ("Soon", "Soon", NOT_ALLOWED),
    "with a full stop": ("High.", "High.", NOT_ALLOWED),
    "two labels": ("High, Low", "High, Low", NOT_ALLOWED),
    "number": (3, "3", NOT_ALLOWED),
    "decimal": (1.5, "1.5", NOT_ALLOWED),
    "boolean": (True, "true", NOT_ALLOWED),
    "null": (None, VIOLATION, VIOLATION),
    "list": (["High"], VIOLATION, VIOLATION),
    "object": ({"label": "High"}, VIOLATION, VIOLATION),
    "empty": ("", VIOLATION, VIOLATION),
    "blank": (" \u2003", VIOLATION, VIOLATION),
    "control characters only": ("\x00\x1b\x9f", VIOLATION, VIOLATION),
    "control characters": ("\x00Hi\x1bgh\x85", "High", "High"),
    "1 MB": ("x" * 1_000_000, VIOLATION, VIOLATION),
    "formula": ("=1+1", "=1+1", NOT_ALLOWED),
}


@pytest.mark.promise(9)
@pytest.mark.parametrize(("said", "permissive", "strict"), LABELS.values(), ids=LABELS.keys())
def test_a_label(said: Any, permissive: str, strict: str) -> None:
    for file, expected in ((PERMISSIVE, permissive), (STRICT, strict)):
        prompt = build_prompt(file, rows("1", "2"))
        lying, sound = read_reply(reply(about("1", Urgency=said), TWO), prompt, file)
        kept = lying.values["Urgency"] if isinstance(lying, Answer) else lying.reason
        assert kept == expected
        assert isinstance(sound, Answer)


# Free text is kept, whatever it is; a formula is neutralised where the CSV is written.
TEXTS: dict[str, tuple[Any, str]] = {
    "empty": ("", ""),
    "number": (1.10, "1.1"),
    "boolean": (False, "false"),
    "line and paragraph separators": ("a\u2028b\u2029c", "a\u2028b\u2029c"),
    "direction marks": ("a\u202eb", "a\u202eb"),
    "control characters": ("\x1b[31ma\x00\tb\r\nc\x85\x7f", "[31ma\tb\nc"),
    "pair of surrogates": ("😀", "😀"),
    "noncharacter": ("\uffff", "\uffff"),
    "formula": ('=HYPERLINK("http://x")', '=HYPERLINK("http://x")'),
    "an answer": (json.dumps(TWO), json.dumps(TWO)),
    "thoughts": ("<think>a</think>b", "<think>a</think>b"),
    "not applicable": ("N/A", "N/A"),
    "as long as may be": ("x" * 10_000, "x" * 10_000),
    "too long": ("x" * 10_001, VIOLATION),
    "1 MB": ("x" * 1_000_000, VIOLATION),
    "null": (None, VIOLATION),
    "list": ([], VIOLATION),
    "object": ({}, VIOLATION),
}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(("said", "kept"), TEXTS.values(), ids=TEXTS.keys())
def test_a_text(said: Any, kept: str, ascii_only: bool) -> None:
    text = json.dumps({"mentions": [about("1", Key_Point=said), TWO]}, ensure_ascii=ascii_only)
    assert outcome(text, ("1", "2"), STRICT) == [kept, "of 2"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (without("Urgency", ONE), VIOLATION),
        (ONE | {"Extra": {"deep": [1]}}, "of 1"),
        (without("Urgency", ONE) | {"urgency": "Low"}, "of 1"),
        (without("Urgency", ONE) | {"urgency": "Low", "URGENCY": "High"}, VIOLATION),
        (ONE | {"urgency": None}, "of 1"),
        ({"RowID": "1"}, VIOLATION),
        ({"RowID": "1", "Topic": "NOT_APPLICABLE"}, "-"),
    ],
)
def test_keys(said: dict[str, Any], expected: str) -> None:
    assert outcome(reply(said, TWO), ("1", "2"), STRICT) == [expected, "of 2"]


ADVERSARIES = {
    "objects that open": '{"' * 100_000,
    "lists that open": "[{" * 100_000,
    "lists that open behind prose": "x" + "[{" * 100_000,
    "brackets": "[" * 200_000,
    "a bracket a line": "\n[ " * 70_000,
    "thoughts that open": "<think>" * 20_000,
    "thoughts that close": "</think>" * 20_000,
    "thoughts around brackets": '<think>\n{"' * 20_000,
    "empty thoughts": "<think></think>" * 14_000,
    "quotes": '"' * 200_000,
    "backslashes in a text": '{"' + "\\" * 200_000,
    "spaces in brackets": ("[" + " " * 1_000) * 200,
    "objects side by side": '{"a":1}' * 28_000,
    "lists side by side": "x" + "[[1]]" * 40_000,
    "a list of objects": "[" + '{"a":1},' * 25_000 + "{}]",
    "identities": "[" + '{"row_id":"1"},' * 14_000 + "{}]",
    "keys": '{"RowID":"1",' + ",".join(f'"{n}":1' for n in range(20_000)) + "}",
    "digits": '{"RowID":' + "1" * 200_000 + "}",
    "fences": "```json\n" * 25_000,
}
QUADRATIC_S = 5.0
WIDE = PromptFile.parse({"system_prompt": "x", "columns_to_code": [f"Column_{n}" for n in range(200)]})


@pytest.mark.parametrize("text", ADVERSARIES.values(), ids=ADVERSARIES.keys())
def test_200_kb_of_malice_cost_no_time(text: str) -> None:
    row_ids = [str(number) for number in range(15)]
    started = time.thread_time()
    found = read(text, row_ids, WIDE)
    assert isinstance(found, BadReply) or not [x for x in found if isinstance(x, Answer)]
    # Measured at 0.3 s and less, and once at 1.1 s beside other work; what is quadratic takes far longer.
    assert time.thread_time() - started < QUADRATIC_S


fragments = st.sampled_from(
    [
        *'{}[]",:\\',
        *("<think>", "</think>", "```", "\ud800", "\\u0000", "\x00", "\u2028", "1e9", "null", "true"),
        *('"RowID":"1"', '"RowID":2,', '"Topic":"other"', '"Urgency":"High"', '"mentions":[', "N/A"),
        *(json.dumps(ONE), json.dumps(TWO), BOTH),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
texts = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["Other", "1", "Support", "n/a", "Mixed", "-", "NONE", "High", "a\x00\x85b", "\x1f", "\ud800"]
)
changes = st.dictionaries(st.sampled_from(PERMISSIVE.columns_to_code), texts | values, max_size=2)
objects = st.builds(
    lambda row_id, said: item(row_id, **said), st.sampled_from(["1", "2", "2", "3", 1, None]), changes
)
replies = (
    st.text(st.characters(), max_size=60)
    | st.lists(fragments | st.text(max_size=3), max_size=20).map("".join)
    | st.lists(objects, max_size=3).map(json.dumps)
    | st.lists(objects, max_size=3).map(lambda said: json.dumps(said, ensure_ascii=False))
)


@given(replies, st.sampled_from([PERMISSIVE, STRICT, CONDITIONAL]))
@example(reply(about("1", Key_Point="x" * 10_001), TWO), PERMISSIVE)
@example(reply(about("1", Key_Point="\ud800"), TWO), PERMISSIVE)
@example(reply(about("1", Key_Point="a\x00\x85b"), TWO), STRICT)
@example(reply(about("1", Urgency="a\u202eb"), TWO), PERMISSIVE)
@example(reply(about("1", Topic="Other", Urgency="\x00", Key_Point=["\u202e"]), TWO), CONDITIONAL)
def test_whatever_is_accepted_is_clean(text: str, file: PromptFile) -> None:
    for row_ids in (("1", "2"), ("1",)):
        outcomes = read(text, row_ids, file)
        if isinstance(outcomes, BadReply):
            continue
        assert len(outcomes) == len(row_ids)
        for found in outcomes:
            if isinstance(found, Answer):
                assert list(found.values) == list(file.columns_to_code)
                assert all(map(is_clean, found.values.values()))
                assert all(map(str.isprintable, found.warnings))
            else:
                assert found.detail.isprintable()


def is_clean(value: str) -> bool:
    value.encode()
    controls = {character for character in value if unicodedata.category(character) == "Cc"}
    return type(value) is str and controls <= {"\n", "\t"} and len(value) <= MAX_VALUE_CHARACTERS
