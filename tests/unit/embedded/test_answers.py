"""The rules of the embedded model server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_embedded.answers import Question, answer, first_sentence
from prism_embedded.mentions import find_mentions
from prism_embedded.photos import PhotoFacts

TOPICS = ["Product", "Shipping", "Support", "Other"]
SENTIMENTS = ["Positive", "Negative", "Neutral", "Mixed"]
RULER = "═" * 16


def item_schema(identity: str) -> dict[str, Any]:
    properties = {
        "RowID": {"type": "string", "enum": [identity]},
        "Topic": {"anyOf": [{"type": "string", "enum": TOPICS}, {"type": "string", "minLength": 1}]},
        "Sentiment": {"type": "string", "enum": [*SENTIMENTS, "NOT_APPLICABLE"]},
        "Summary": {"type": "string", "maxLength": 80},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def batch_schema(identities: list[str]) -> dict[str, Any]:
    items = [item_schema(identity) for identity in identities]
    return {"type": "object", "properties": {"mentions": {"type": "array", "prefixItems": items}}}


def batch_prompt(rows: list[tuple[str, str]]) -> str:
    sections = "".join(
        f"{RULER}\n[MENTION {number} of {len(rows)}]\nRowID: {row_id}\n\nContent: {text}\n"
        for number, (row_id, text) in enumerate(rows, 1)
    )
    return f"Classify these.\n\n{sections}{RULER}\n\n**RETURN:** a JSON object"


def ask(prompts: list[str], form: Any, photo: PhotoFacts | None = None) -> Any:
    question = Question(prompts, form, photo)
    text = answer(question, question.mentions()).text
    return text if form is None else json.loads(text)


def test_a_batch_gets_one_item_per_row() -> None:
    rows = [("7", "My parcel came late. I hate it."), ("x-2", "I love it!"), ("3", "🙂 123")]
    items = ask([batch_prompt(rows)], batch_schema(["7", "x-2", "3"]))["mentions"]
    assert items == [
        {"RowID": "7", "Topic": "Shipping", "Sentiment": "Negative", "Summary": "My parcel came late."},
        {"RowID": "x-2", "Topic": "Other", "Sentiment": "Positive", "Summary": "I love it!"},
        {"RowID": "3", "Topic": "Other", "Sentiment": "NOT_APPLICABLE", "Summary": "🙂 123"},
    ]


def test_the_single_form_gets_one_object() -> None:
    prompt = (
        "Classify this mention. Return ONE JSON object.\n\nRowID: 1\n"
        "[INPUT SENTIMENT]: Negative ← Validate and override if wrong\n\n"
        "Title: The staff\nContent: Great support.\n> Second line.\n\n**RETURN:** A JSON object"
    )
    (mention,) = find_mentions(prompt)
    assert (mention.row_id, mention.title) == ("1", "The staff")
    assert mention.content == "Great support.\nSecond line."
    found = ask([prompt], item_schema("1"))
    assert found == {"RowID": "1", "Topic": "Support", "Sentiment": "Positive", "Summary": "Great support."}


def test_a_repair_is_about_the_rows_before_it() -> None:
    rows = [("1", "I love it"), ("2", "I hate it")]
    prompts = [batch_prompt(rows), "This reply cannot be used: it is no JSON. Answer again."]
    items = ask(prompts, batch_schema(["1", "2"]))["mentions"]
    assert [item["Sentiment"] for item in items] == ["Positive", "Negative"]


def test_a_prompt_that_lost_its_beginning_answers_the_rows_that_are_left() -> None:
    prompt = batch_prompt([("1", "I love it"), ("2", "I hate it")])
    cut = prompt[prompt.index("love") :]
    items = ask([cut], batch_schema(["1", "2"]))["mentions"]
    assert [item["RowID"] for item in items] == ["2"]


def test_items_described_once_and_a_root_array() -> None:
    prompt = batch_prompt([("1", "good"), ("2", "bad")])
    inner = item_schema("1")
    listed = {"type": "object", "properties": {"mentions": {"type": "array", "items": inner}}}
    assert [item["RowID"] for item in ask([prompt], listed)["mentions"]] == ["1", "2"]
    assert [item["RowID"] for item in ask([prompt], {"type": "array", "items": inner})] == ["1", "2"]


def test_without_a_frame_the_last_user_message_is_the_text() -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    assert ask(["first", "What is up? Nothing."], schema) == {"answer": "What is up?"}
    assert ask(["I love it."], None) == "The text is positive: I love it."
    assert ask(["I love it."], "json") == {"Sentiment": "Positive", "Summary": "I love it."}


def test_every_type_of_a_schema_is_filled() -> None:
    schema = {
        "type": "object",
        "$defs": {"Mood": {"enum": ["happy", "sad"], "type": "string"}},
        "properties": {
            "mood": {"$ref": "#/$defs/Mood"},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "share": {"type": "number"},
            "refund_wanted": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "inner": {"type": "object", "properties": {"note": {"type": ["string", "null"]}}},
            "kind": {"const": "text"},
            "none": {"type": "null"},
            "level": {"enum": [1, 2]},
        },
    }
    found = ask(["I want a refund, I am so sad."], schema)
    assert found["mood"] == "sad"
    assert 1 <= found["score"] <= 5
    assert 0 <= found["share"] <= 1
    assert found["refund_wanted"] is True
    assert len(found["tags"]) == 2
    assert found["inner"] == {"note": "I want a refund, I am so sad."}
    assert (found["kind"], found["none"], found["level"]) == ("text", None, 1)


def test_what_frames_a_question_is_no_part_of_it() -> None:
    question = Question([f"{RULER}\nI love it. And you?\n{RULER}"], None)
    assert answer(question, question.mentions()).text == "The text is positive: I love it."
    assert Question([f"{RULER}\nOne.\n\nTwo.\n{RULER}"]).mentions()[0].content == "One.\n\nTwo."


def test_a_photo_is_described_by_its_facts() -> None:
    photo = PhotoFacts("JPEG", 640, 480, (40, 60, 180), "blue")
    properties = {
        "description": {"type": "string"},
        "width": {"type": "integer"},
        "colour": {"enum": ["red", "blue"]},
    }
    found = ask(["What is this?"], {"type": "object", "properties": properties}, photo)
    assert found["width"] == 640
    assert found["colour"] == "blue"
    assert "640 × 480" in found["description"]


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"$ref": "#/nowhere"}, {"properties": {"a": {}}}])
def test_odd_schemas_are_answered(schema: dict[str, Any]) -> None:
    if schema:
        assert isinstance(ask(["text"], schema), dict)


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"}
    assert isinstance(ask(["text"], schema), dict)


TEXT = st.text(st.characters(exclude_characters="═", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(st.lists(TEXT, min_size=2, max_size=12))
def test_items_are_rows_whatever_they_say(texts: list[str]) -> None:
    rows = [(f"id{number}", text.replace("\n", "\n> ")) for number, text in enumerate(texts)]
    identities = [row_id for row_id, _ in rows]
    items = ask([batch_prompt(rows)], batch_schema(identities))["mentions"]
    assert [item["RowID"] for item in items] == identities
    assert {item["Topic"] for item in items} <= set(TOPICS)
    assert {item["Sentiment"] for item in items} <= {*SENTIMENTS, "NOT_APPLICABLE"}
    assert all(len(item["Summary"]) <= 80 for item in items)


@given(TEXT, st.integers(1, 50))
def test_a_summary_keeps_its_limit(text: str, limit: int) -> None:
    assert len(first_sentence(text, limit)) <= limit
