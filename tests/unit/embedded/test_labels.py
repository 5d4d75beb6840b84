"""How a label is chosen for a text."""

import pytest

from prism_embedded.labels import choose
from prism_embedded.sentiment import MAX_CHARACTERS, sentiment


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("My parcel has not arrived", "Shipping"),
        ("They charged my card twice", "Billing"),
        ("About billing and nothing else", "Billing"),
        ("The weather", "Other"),
    ],
)
def test_topics_share_words_with_the_text(text: str, label: str) -> None:
    assert choose(("Shipping", "Billing", "Other"), "Topic", text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love it", "positive"),
        ("I hate it", "negative"),
        ("It is a box", "neutral"),
        ("Great room, bad breakfast", "neutral"),
    ],
)
def test_sentiments_come_from_vader_in_the_labels_spelling(text: str, label: str) -> None:
    assert choose(("positive", "neutral", "negative"), "Mood", text) == label


def test_mixed_is_used_where_it_is_a_label() -> None:
    assert choose(("Positive", "Negative", "Mixed"), "Mood", "Great room, bad breakfast") == "Mixed"


def test_levels_rise_with_trouble() -> None:
    levels = ("Low", "Medium", "High")
    texts = ["Nice and good", "I am a bit disappointed", "Urgent: this is terrible, awful, I hate it"]
    assert [choose(levels, "Urgency", text) for text in texts] == list(levels)


def test_yes_and_no() -> None:
    assert choose(("Y", "N"), "Mentions_Refund", "I want a refund") == "Y"
    assert choose(("Y", "N"), "Mentions_Refund", "I want a cake") == "N"
    assert choose(("Yes", "No"), "Relevant", "anything") == "Yes"


def test_not_applicable_is_for_texts_without_letters_only() -> None:
    labels = ("A", "B", "NOT_APPLICABLE")
    assert choose(labels, "Topic", "12345 !!") == "NOT_APPLICABLE"
    assert choose(labels, "Topic", "x") != "NOT_APPLICABLE"
    assert choose(("NOT_APPLICABLE",), "Topic", "x") == "NOT_APPLICABLE"


def test_without_other_the_last_label_is_the_fallback() -> None:
    assert choose(("Alpha", "Beta"), "Topic", "nothing shared") == "Beta"


def test_sentiment_looks_at_the_beginning() -> None:
    filler = "the " * MAX_CHARACTERS
    assert sentiment("good " + filler + "bad " * 50).name == "Positive"
