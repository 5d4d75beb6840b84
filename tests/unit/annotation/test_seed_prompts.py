"""The prompt files of PRISM v6 work as they are: its examples, its four spellings, its hard-coded rules."""

from typing import Any

import pytest

from prism.annotation import Answer, PromptFile, build_prompt, read_reply
from tests.unit.annotation.samples import reply, rows

TOPICS = ["Product", "Support", "Billing", "Shipping", "Account", "Other"]
MOODS, URGENCIES = ["Positive", "Negative", "Neutral", "Mixed"], ["High", "Medium", "Low"]
FEEDBACK: dict[str, Any] = {
    "system_prompt": "Classify customer feedback.",
    "columns_to_code": ["Topic", "Sentiment", "Urgency", "Key_Point"],
    "validation_rules": {"valid_topic": TOPICS, "valid_sentiment": MOODS, "valid_urgency": URGENCIES},
    "not_applicable_defaults": {
        "Topic": "Other",
        "Sentiment": "Neutral",
        "Urgency": "Low",
        "Key_Point": "-",
    },
}
# The example of the cloud document lists NOT_APPLICABLE among the topics.
CLOUD = FEEDBACK | {
    "validation_rules": FEEDBACK["validation_rules"] | {"valid_topic": [*TOPICS, "NOT_APPLICABLE"]}
}
SKELETON: dict[str, Any] = {
    "system_prompt": "Classify.",
    "columns_to_code": ["Column1", "Column2", "Column3"],
    "validation_rules": {"valid_column1": ["Value1", "Value2", "Value3"], "valid_column2": ["A", "B", "C"]},
    "not_applicable_defaults": {"Column1": "-", "Column2": "-", "Column3": "-"},
}
SPELLED = FEEDBACK | {
    "validation_rules": {"valid_topics": TOPICS, "sentiment_valid": MOODS, "urgency_options": URGENCIES}
}
CODED = {"Topic": "Billing", "Sentiment": "Mixed", "Urgency": "Medium", "Key_Point": "Paid twice."}
COMPARISONS: dict[str, Any] = {
    "system_prompt": "Classify mentions of the bank.",
    "columns_to_code": [
        "Topic",
        "Comparative_Mention",
        "Competitor_Named",
        "Competitive_Position",
        "Abandonment_Mentioned",
        "Abandonment_Reason",
    ],
    "validation_rules": {
        "valid_comparative_mention": ["Y", "N"],
        "valid_competitor_named": ["Acme", "Globex", "Other", "NONE"],
        "valid_competitive_position": ["Better", "Worse", "Equal"],
        "valid_abandonment_mentioned": ["Y", "N"],
        "valid_abandonment_reason": ["Price", "Service"],
    },
    "strict": True,
    "conditions": [
        {
            "when": {"Comparative_Mention": "N"},
            "set": {"Competitor_Named": "NONE", "Competitive_Position": "-"},
        },
        {"when": {"Comparative_Mention": "Y"}, "default": {"Competitor_Named": "Other"}},
        {"when": {"Abandonment_Mentioned": "N"}, "set": {"Abandonment_Reason": "NONE"}},
    ],
}


def code(file: PromptFile, *said: dict[str, Any]) -> list[Answer]:
    prompt = build_prompt(file, rows(*map(str, range(len(said)))))
    objects = [{"RowID": str(number)} | values for number, values in enumerate(said)]
    found = read_reply(reply(*objects), prompt, file)
    accepted = [outcome for outcome in found if isinstance(outcome, Answer)]
    assert len(accepted) == len(said), found
    return accepted


@pytest.mark.parametrize(
    ("source", "coded"),
    [
        (FEEDBACK, CODED),
        (CLOUD, CODED),
        (SPELLED, CODED),
        (SKELETON, {"Column1": "Value2", "Column2": "C", "Column3": "free"}),
    ],
)
def test_the_examples_parse_and_code(source: dict[str, Any], coded: dict[str, str]) -> None:
    file = PromptFile.parse(source)
    assert file.warnings == ()
    first = file.columns_to_code[0]
    sound, shouted, gated = code(
        file, coded, {name: value.upper() for name, value in coded.items()}, {first: "not_applicable"}
    )
    assert sound == Answer(coded, ())
    free = file.columns_to_code[-1]
    assert shouted == Answer(coded | {free: coded[free].upper()}, ())
    assert gated == Answer(source["not_applicable_defaults"], ())


@pytest.mark.parametrize(
    ("said", "coded"),
    [
        (("N", "Acme", "Better", "N", "Price"), ("N", "NONE", "-", "N", "NONE")),
        (("n", None, None, "n", ""), ("N", "NONE", "-", "N", "NONE")),
        (("Y", "globex", "worse", "Y", "service"), ("Y", "Globex", "Worse", "Y", "Service")),
        (("Y", "", "Equal", "N", "-"), ("Y", "Other", "Equal", "N", "NONE")),
        (("Y", "NONE", "Equal", "N", "-"), ("Y", "Other", "Equal", "N", "NONE")),
    ],
)
def test_the_rules_that_were_hard_coded(said: tuple[str | None, ...], coded: tuple[str, ...]) -> None:
    file = PromptFile.parse(COMPARISONS)
    names = file.columns_to_code[1:]
    (found,) = code(file, {"Topic": "Cards"} | dict(zip(names, said, strict=True)))
    assert tuple(found.values[name] for name in names) == coded
