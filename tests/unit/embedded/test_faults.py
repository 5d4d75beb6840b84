"""Faults: how they are written, when they come, what they do."""

import json
from typing import Any

import pytest

from prism_embedded.answers import Reply
from prism_embedded.errors import EmbeddedError
from prism_embedded.faults import CONTENT_FAULTS, FAULTS, parse_faults, spoil


def batch() -> Reply:
    items: list[dict[str, Any]] = [{"RowID": str(n), "Topic": f"Töpic {n}"} for n in range(3)]
    return Reply({"mentions": items}, items)


def single() -> Reply:
    item: dict[str, Any] = {"RowID": "1", "Topic": "A"}
    return Reply(item, [item])


def identities(text: str) -> list[str]:
    return [item["RowID"] for item in json.loads(text)["mentions"]]


def test_rates_and_markers_are_read() -> None:
    plan = parse_faults("http_500=0.5, hang=1,text:BOOM=1=empty", seed=3)
    assert plan.rates == (("http_500", 0.5), ("hang", 1.0))
    assert plan.markers == (("BOOM=1", "empty"),)
    assert parse_faults("") == parse_faults(" , ")


@pytest.mark.parametrize("wrong", ["nonsense=0.5", "hang=2", "hang=x", "hang", "text:A=nonsense", "hang=nan"])
def test_a_wrong_specification_is_one_line(wrong: str) -> None:
    with pytest.raises(EmbeddedError) as caught:
        parse_faults(wrong)
    assert "\n" not in str(caught.value)


def test_a_draw_depends_on_seed_content_and_count_only() -> None:
    def picks(seed: int) -> list[str | None]:
        plan = parse_faults("http_500=0.3,hang=0.3", seed)
        return [plan.pick([], f"row {n}", before) for n in range(200) for before in range(2)]

    assert picks(1) == picks(1)
    assert picks(1) != picks(2)
    share = picks(1).count("http_500") / 400
    assert 0.2 < share < 0.4
    plan = parse_faults("hang=0.5", 1)
    assert len({plan.pick([], "same row", before) for before in range(50)}) == 2


def test_a_marker_always_triggers() -> None:
    plan = parse_faults("text:BOOM=empty")
    assert plan.pick(["calm", "a BOOM b"], "c", 0) == "empty"
    assert plan.pick(["calm"], "c", 0) is None


def test_items_are_lost_added_swapped_or_renamed() -> None:
    assert identities(spoil(batch(), "too_few")) == ["0", "1"]
    assert identities(spoil(batch(), "too_many")) == ["0", "1", "2", "2"]
    assert identities(spoil(batch(), "swapped")) == ["2", "1", "0"]
    assert identities(spoil(batch(), "wrong_identity")) == ["1", "1", "2"]
    assert json.loads(spoil(single(), "wrong_identity"))["RowID"] == "not-1"
    assert json.loads(spoil(single(), "too_few")) == {}
    assert identities(spoil(single(), "too_many")) == ["1", "1"]


@pytest.mark.parametrize(
    "fault", ["truncated_json", "length", "prose", "fences", "empty", "thoughts_only", "thoughts_first"]
)
def test_text_is_no_longer_json(fault: str) -> None:
    for reply in (batch(), single()):
        with pytest.raises(json.JSONDecodeError):
            json.loads(spoil(reply, fault))


def test_thoughts_hold_a_draft_and_perhaps_an_answer_follows() -> None:
    for reply in (batch(), single()):
        thoughts, answer = spoil(reply, "thoughts_first").rsplit("</think>")
        assert thoughts.startswith("<think>")
        assert reply.text in thoughts
        assert answer.strip() == reply.text
        assert spoil(reply, "thoughts_only") == thoughts + "</think>\n"


def test_nan_and_duplicate_keys_are_what_python_accepts() -> None:
    assert spoil(single(), "nan") == '{"RowID":"1","Topic":NaN}'
    assert spoil(single(), "duplicate_keys") == '{"RowID":"1","Topic":"A","Topic":"another"}'
    assert '"Topic":NaN}' in spoil(batch(), "nan")
    assert spoil(batch(), "duplicate_keys").count('"Topic"') == 4


def test_brackets_and_a_long_number_are_what_python_chokes_on() -> None:
    for reply in (batch(), single()):
        assert sum(map(spoil(reply, "brackets").count, "[]")) >= 100_000
        with pytest.raises(RecursionError):
            json.loads(spoil(reply, "brackets"))
        with pytest.raises(ValueError, match="digits"):
            json.loads(spoil(reply, "long_number"))


def test_half_a_surrogate_pair_is_what_python_accepts_and_cannot_write() -> None:
    text = spoil(single(), "surrogate")
    assert text.isascii()
    with pytest.raises(UnicodeEncodeError):
        json.loads(text)["Topic"].encode()


def test_a_key_is_lost_or_added_and_a_label_is_none() -> None:
    assert json.loads(spoil(single(), "missing_key")) == {"RowID": "1"}
    assert json.loads(spoil(single(), "extra_key")).keys() == {"RowID", "Topic", "Remark"}
    assert json.loads(spoil(single(), "wrong_label")) == {"RowID": "1", "Topic": "no label of any list"}
    for fault in ("missing_key", "extra_key", "wrong_label"):
        first, *others = json.loads(spoil(batch(), fault))["mentions"]
        assert first["RowID"] == "0"
        assert first != batch().items[0]
        assert others == batch().items[1:]


def test_every_fault_changes_the_reply() -> None:
    assert set(CONTENT_FAULTS) < set(FAULTS)
    for fault in CONTENT_FAULTS:
        assert spoil(batch(), fault) != batch().text


@pytest.mark.parametrize("fault", CONTENT_FAULTS)
def test_a_text_answer_can_be_spoilt(fault: str) -> None:
    assert isinstance(spoil(Reply("a sentence", []), fault), str)
