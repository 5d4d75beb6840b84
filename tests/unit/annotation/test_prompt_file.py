import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from prism.annotation import PromptFile, PromptRefused
from tests.unit.annotation.samples import FEEDBACK, prompt_file

REFERENCE = Path(__file__).parents[3] / "docs" / "prompt-files.md"


@pytest.mark.parametrize(
    "key",
    ["valid_topic", "valid_topics", "topic_valid", "topic_options", "VALID_Topic", "Topic_Options"],
)
def test_four_spellings_of_a_rule(key: str) -> None:
    file = prompt_file(columns_to_code=["Topic", "Note"], validation_rules={key: ["A", "B"]})
    assert file.labels("Topic") == ("A", "B")
    assert file.labels("Note") is None
    assert not [w for w in file.warnings if w.startswith("validation_rules")]


def test_a_rule_belongs_to_the_column_that_it_names_most_directly() -> None:
    file = prompt_file(columns_to_code=["Statu", "Status"], validation_rules={"valid_status": ["A"]})
    assert file.labels("Status") == ("A",)
    assert file.labels("Statu") is None


def test_scalars_in_lists_and_defaults_become_text() -> None:
    rules = {"valid_topic": [1, 2.5, True, " x "]}
    file = prompt_file(validation_rules=rules, not_applicable_defaults={"Topic": 0})
    assert file.labels("Topic") == ("1", "2.5", "true", "x")
    assert file.defaults == {"Topic": "0", "Sentiment": "-", "Urgency": "-", "Key_Point": "-"}


def test_optional_and_unknown_keys() -> None:
    file = PromptFile.parse({"system_prompt": "x", "columns_to_code": ["A"], "zz": None})
    assert (file.strict, file.labels("A"), file.warnings) == (False, None, ())
    assert (file.conditions, file.close_on, file.image_column) == ((), None, None)


def test_slips_are_warnings() -> None:
    file = prompt_file(
        validation_rules={"valid_topik": ["A"], "anything": 1}, not_applicable_defaults={"topik": "-"}
    )
    assert [warning.split(":")[0] for warning in file.warnings] == [
        "validation_rules.valid_topik",
        "validation_rules.anything",
        "not_applicable_defaults.topik",
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"system_prompt": " \n"}, "system_prompt"),
        ({"system_prompt": "\ud800"}, "system_prompt"),
        ({"system_prompt": None}, "system_prompt"),
        ({"columns_to_code": []}, "columns_to_code"),
        ({"columns_to_code": "Topic"}, "columns_to_code"),
        ({"columns_to_code": ["Topic", "topic"]}, "columns_to_code"),
        ({"columns_to_code": ["RowID"]}, "columns_to_code"),
        ({"columns_to_code": ["Topic", "row_id"]}, "columns_to_code"),
        ({"columns_to_code": [""]}, "columns_to_code"),
        ({"columns_to_code": [" Topic"]}, "columns_to_code"),
        ({"columns_to_code": ["Top\nic"]}, "columns_to_code"),
        ({"columns_to_code": ["T" * 201]}, "columns_to_code"),
        ({"columns_to_code": [1]}, "columns_to_code"),
        ({"validation_rules": []}, "validation_rules"),
        ({"validation_rules": {"valid_topic": []}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": "A"}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": ["A", "B", "A "]}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": ["A", ""]}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": ["A", None]}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": ["A", "b\x00"]}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": ["A", "\udfff"]}}, "validation_rules.valid_topic"),
        ({"validation_rules": {"valid_topic": ["A"], "topic_options": ["B"]}}, "topic_options"),
        ({"not_applicable_defaults": {"Topic": None}}, "not_applicable_defaults.Topic"),
        ({"not_applicable_defaults": []}, "not_applicable_defaults"),
        ({"not_applicable_defaults": {"Topic": "a\x00b"}}, "not_applicable_defaults.Topic"),
        ({"not_applicable_defaults": {"Topic": "x" * 10_001}}, "not_applicable_defaults.Topic"),
        ({"close_on": False}, "close_on"),
        ({"close_on": [None]}, "close_on"),
        ({"close_on": [""]}, "close_on"),
        ({"close_on": ["N"], "strict": True}, "close_on"),
        ({"image_column": ""}, "image_column"),
        ({"image_column": " Photo"}, "image_column"),
        ({"image_column": "Pho\nto"}, "image_column"),
        ({"image_column": "P" * 201}, "image_column"),
        ({"image_column": 7}, "image_column"),
        ({"image_column": "row_id"}, "image_column"),
        ({"image_column": "Message"}, "image_column"),
        ({"image_column": "title"}, "image_column"),
        ({"image_column": "Sentiment"}, "image_column"),
        ({"image_column": "topic"}, "image_column"),
        ({"strict": "perhaps"}, "strict"),
    ],
)
def test_clear_errors_are_refused_in_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(PromptRefused, match=re.escape(named)) as refused:
        prompt_file(**changes)
    message = str(refused.value)
    assert message.startswith("prompt file: ")
    assert message.isprintable()
    assert len(message) < 400
    assert ";" in message  # what next


@pytest.mark.parametrize("key", ["system_prompt", "columns_to_code"])
def test_required_keys(key: str) -> None:
    with pytest.raises(PromptRefused, match=key):
        PromptFile.parse({name: value for name, value in FEEDBACK.items() if name != key})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "17", b"\xff{}", '{"strict": NaN}', '{"strict": true, "strict": false}', "[" * 100_000],
)
def test_text_that_is_not_an_object_of_strict_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(PromptRefused):
        PromptFile.parse(text)


def test_reads_text_bytes_and_its_own_dump() -> None:
    condition = {"when": {"Topic": "Other"}, "set": {"Urgency": "Low"}, "default": {"Key_Point": "?"}}
    source = FEEDBACK | {"conditions": [condition], "close_on": "Support", "image_column": "Photo"}
    file = PromptFile.parse(source)
    text = "\ufeff" + json.dumps(source)
    assert PromptFile.parse(text) == PromptFile.parse(text.encode()) == file
    assert PromptFile.parse(file.model_dump()) == file
    assert PromptFile.parse(file.model_dump_json()) == file


def test_inside_another_model_it_is_an_ordinary_validation_error() -> None:
    class Run(BaseModel):
        prompts: PromptFile

    with pytest.raises(ValidationError, match="columns_to_code: is empty"):
        Run.model_validate({"prompts": FEEDBACK | {"columns_to_code": []}})


def test_the_reference_names_every_key_and_its_example_is_sound() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(\{\n.*?)```", page, re.DOTALL)
    file = PromptFile.parse(example)
    assert file.warnings == ()
    assert set(json.loads(example)) | {"close_on"} == set(PromptFile.model_fields)
    assert not [key for key in PromptFile.model_fields if f"`{key}`" not in page]
