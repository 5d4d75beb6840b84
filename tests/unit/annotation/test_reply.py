import itertools
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.annotation import Answer, BadReply, Problem, PromptFile, build_prompt, read_reply
from prism.messages.reasons import RowReason
from tests.unit.annotation.samples import item, prompt_file, reply, rows

ROW_IDS = ("1", "2", "3")
FILE = prompt_file()
Outcome = Answer | Problem


def read(text: str, *row_ids: str, file: PromptFile = FILE) -> list[Outcome]:
    return read_reply(text, build_prompt(file, rows(*(row_ids or ROW_IDS))), file)


def points(outcomes: list[Outcome]) -> list[str]:
    """The Key_Point of each answer, the reason of each problem."""
    return [x.values["Key_Point"] if isinstance(x, Answer) else x.reason for x in outcomes]


def items(*row_ids: Any) -> list[dict[str, Any]]:
    return [item(row_id, Key_Point=f"about {row_id}") for row_id in row_ids]


ABOUT = ["about 1", "about 2", "about 3"]
SOUND = reply(*items(*ROW_IDS))
BARE = json.dumps(items(*ROW_IDS))


@pytest.mark.promise(7)
@pytest.mark.parametrize("order", list(itertools.permutations(ROW_IDS)))
def test_swapped_items_label_the_right_rows(order: tuple[str, ...]) -> None:
    assert points(read(reply(*items(*order)))) == ABOUT


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("row_ids", "expected"),
    [
        (("1", "2"), ["about 1", "about 2", "missing_row"]),
        (("1", "2", "9"), ["about 1", "about 2", "missing_row"]),
        (("1", "2", "2"), ["about 1", "ambiguous_row", "missing_row"]),
        (("1", "2", "3", "3"), ["about 1", "about 2", "ambiguous_row"]),
        (("1", "2", "3", "9"), ABOUT),
        ((), ["missing_row"] * 3),
        (("1", "2", None), ["about 1", "about 2", "missing_row"]),
        (("1", "2", True), ["about 1", "about 2", "missing_row"]),
        (("1", "2", ["3"]), ["about 1", "about 2", "missing_row"]),
        ((1, 2.0, " 3 "), ["about 1", "about 2.0", "about  3"]),
        (("1.0", "2", "3"), ["missing_row", "about 2", "about 3"]),
        (("01", "2", "3"), ["missing_row", "about 2", "about 3"]),
    ],
)
def test_rows_are_matched_by_identity(row_ids: tuple[Any, ...], expected: list[str]) -> None:
    assert points(read(reply(*items(*row_ids)))) == expected


@pytest.mark.promise(7)
def test_a_number_that_fits_two_identities_labels_neither() -> None:
    assert points(read('{"mentions": [{"RowID": 17.0}]}', "17", "17.0")) == ["missing_row"] * 2
    fits_one = json.dumps([item("X")]).replace('"X"', "1.10")
    assert points(read(fits_one, "1.1", "1.10")) == ["missing_row", "It crashes."]


@pytest.mark.promise(7)
def test_an_item_without_identity_labels_nothing_in_a_batch() -> None:
    nameless = {key: value for key, value in item().items() if key != "RowID"}
    assert points(read(reply(nameless, *items("2", "3")))) == ["missing_row", "about 2", "about 3"]


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([item("1")], "It crashes."),
        ([{key: value for key, value in item().items() if key != "RowID"}], "It crashes."),
        ([item("2")], "missing_row"),
        ([item(None)], "missing_row"),
        ([item("1"), item("1")], "ambiguous_row"),
        ([item("1"), item("2")], "It crashes."),
        ([{"Topic": "Other"}, {"Topic": "Other"}], "missing_row"),
    ],
)
def test_one_row(objects: list[dict[str, Any]], expected: str) -> None:
    assert points(read(reply(*objects), "1")) == [expected]
    if len(objects) == 1:
        assert points(read(json.dumps(objects[0]), "1")) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        f"  \ufeff{SOUND}\n\n",
        BARE,
        json.dumps({"results": items(*ROW_IDS)}),
        json.dumps({"note": "in order", "mentions": items(*ROW_IDS)}),
        f"```json\n{SOUND}\n```",
        f"```\n{BARE}```",
        f'Sure [as asked], here is {{topic}}:\n{SOUND}\nHope this "helps" :-}} [1]',
        f"<think>Perhaps {SOUND} or not</think>{SOUND}",
        f"perhaps {SOUND}</think>\n{SOUND}",
        f"<think>a</think><think>b [</think>{SOUND}",
        "\n".join(map(json.dumps, items(*ROW_IDS))),
        f"{BARE[:-1]}]",
    ],
)
def test_packaging_is_forgiven(text: str) -> None:
    assert points(read(text)) == ABOUT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", RowReason.EMPTY_REPLY),
        (" \n\ufeff ", RowReason.EMPTY_REPLY),
        ("<think>hm</think>", RowReason.EMPTY_REPLY),
        (f"<think>never closed {SOUND}", RowReason.EMPTY_REPLY),
        ("I cannot do that.", RowReason.NOT_JSON),
        ("<!DOCTYPE html><html><script>" + SOUND + "</script></html>", RowReason.NOT_JSON),
        ("<html>502 Bad Gateway</html>", RowReason.NOT_JSON),
        (SOUND.replace('"High"', "NaN", 1), RowReason.NOT_JSON),
        (SOUND.replace('"High"', "-Infinity", 1), RowReason.NOT_JSON),
        (SOUND.replace('"Urgency"', '"Topic"', 1), RowReason.NOT_JSON),
        (SOUND.replace('"High"', "9" * 401, 1), RowReason.NOT_JSON),
        (SOUND.replace('"High"', "[" * 33 + "]" * 33, 1), RowReason.NOT_JSON),
        (SOUND.replace('"High"', r'"\ud800"', 1), RowReason.NOT_JSON),
        (SOUND.replace('"High"', '"\ud800"', 1), RowReason.NOT_JSON),
        (SOUND.replace('"', "'"), RowReason.NOT_JSON),
        (SOUND + SOUND[:-1], RowReason.NOT_JSON),
        (f"Draft: {SOUND[:40]} Final: {SOUND}", RowReason.NOT_JSON),
        ("[" * 100_000, RowReason.NOT_JSON),
        ('{"a":' * 100_000, RowReason.NOT_JSON),
        ("{" + '"\\' * 50_000, RowReason.NOT_JSON),
        ("<think>" * 50_000, RowReason.EMPTY_REPLY),
        ('"a text"', RowReason.SCHEMA_VIOLATION),
        ("17", RowReason.SCHEMA_VIOLATION),
        ("null", RowReason.SCHEMA_VIOLATION),
        ("{}", RowReason.SCHEMA_VIOLATION),
        ('{"error": "model overloaded"}', RowReason.SCHEMA_VIOLATION),
        ('{"mentions": "none"}', RowReason.SCHEMA_VIOLATION),
    ],
)
def test_replies_that_cannot_be_used(text: str, reason: RowReason) -> None:
    with pytest.raises(BadReply) as bad:
        read(text)
    assert bad.value.reason == reason
    assert bad.value.detail.isprintable()


@pytest.mark.promise(7)
@given(st.integers(0, len(SOUND) - 1), st.sampled_from(["", "```json\n", "Here: ", "<think>x</think>"]))
def test_a_truncated_reply_is_never_accepted(length: int, before: str) -> None:
    with pytest.raises(BadReply):
        read(before + SOUND[:length])


@pytest.mark.promise(7)
@given(st.integers(0, len(BARE) - 1))
def test_a_truncated_bare_array_is_never_accepted(length: int) -> None:
    with pytest.raises(BadReply):
        read(BARE[:length])


def test_the_same_content_twice_is_ambiguous() -> None:
    assert points(read(SOUND + "\n" + SOUND)) == ["ambiguous_row"] * 3


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "change",
    [{"Topic": None}, {"Topic": ["Other"]}, {"Topic": {"a": 1}}, {"Topic": " "}, {"Key_Point": "x" * 10_001}],
)
def test_a_bad_value_fails_its_row_only(change: dict[str, Any]) -> None:
    good = items("1", "3")
    outcomes = read(reply(good[0], item("2", **change), good[1]))
    assert points(outcomes) == ["about 1", "schema_violation", "about 3"]


def test_a_missing_key_fails_its_row_only_and_an_extra_one_is_ignored() -> None:
    first, second, third = items(*ROW_IDS)
    del second["Urgency"]
    third["Extra"] = {"deep": [1]}
    outcomes = read(reply(first, second, third))
    assert points(outcomes) == ["about 1", "schema_violation", "about 3"]
    assert isinstance(outcomes[1], Problem)
    assert "Urgency" in outcomes[1].detail
    assert isinstance(outcomes[2], Answer)
    assert list(outcomes[2].values) == list(FILE.columns_to_code)


@pytest.mark.parametrize("spelling", ["key_point", "KEYPOINT", "Key Point", "key-point"])
def test_keys_are_found_by_case_and_underscores(spelling: str) -> None:
    answer = {"row_id": 1, "topic": "Other", "SENTIMENT": "Mixed", "urgency": "Low", spelling: "found"}
    assert points(read(json.dumps([answer]))) == ["found", "missing_row", "missing_row"]
    assert points(read(json.dumps(answer), "1")) == ["found"]


def test_keys_that_could_be_either_are_not_guessed() -> None:
    two_keys = item("1")
    del two_keys["Urgency"]
    assert points(read(json.dumps(two_keys | {"urgency": "Low", "URGENCY": "High"}), "1")) == [
        "schema_violation"
    ]
    file = prompt_file(columns_to_code=["Key_Point", "KeyPoint"])
    assert points(read('{"RowID": "1", "key point": "x"}', "1", file=file)) == ["schema_violation"]


reply_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(ROW_IDS),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["RowID", "mentions", "Topic", "Sentiment", "Urgency", "Key_Point", "topic"])
            | st.text(max_size=5),
            children,
            max_size=6,
        )
    ),
    max_leaves=20,
)
fragments = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        ",",
        ":",
        '"RowID"',
        '"mentions":[',
        "<think>",
        "</think>",
        "```",
        "1e9",
        SOUND,
    ]
)


@given(
    st.text(st.characters(), max_size=60)
    | st.lists(fragments | st.text(max_size=3), max_size=20).map("".join)
    | reply_json.map(json.dumps)
)
def test_any_text_gives_outcomes_or_a_bad_reply(text: str) -> None:
    for row_ids in (ROW_IDS, ("1",)):
        with suppress(BadReply):
            outcomes = read(text, *row_ids)
            assert len(outcomes) == len(row_ids)
            for outcome in outcomes:
                if isinstance(outcome, Answer):
                    assert list(outcome.values) == list(FILE.columns_to_code)
                    assert all(type(value) is str for value in outcome.values.values())
