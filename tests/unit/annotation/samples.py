"""Prompt files and replies that several tests of annotation share."""

import json
from typing import Any

from prism.annotation import PromptFile, PromptRow

FEEDBACK: dict[str, Any] = {
    "system_prompt": "You are a customer feedback analyst.",
    "columns_to_code": ["Topic", "Sentiment", "Urgency", "Key_Point"],
    "validation_rules": {
        "valid_topic": ["Product", "Support", "Not Sure", "Other"],
        "valid_sentiment": ["Positive", "Negative", "Neutral", "Mixed"],
        "valid_urgency": ["High", "Medium", "Low"],
    },
    "not_applicable_defaults": {"Topic": "Other", "Sentiment": "Neutral", "Urgency": "Low"},
}


def prompt_file(**changes: Any) -> PromptFile:
    return PromptFile.parse(FEEDBACK | changes)


def row(row_id: str = "1", message: str = "The app crashes.", **changes: Any) -> PromptRow:
    return PromptRow(
        row_id=row_id,
        title=changes.get("title"),
        message=message,
        sentiment=changes.get("sentiment"),
        image=changes.get("image", False),
    )


def rows(*row_ids: str) -> list[PromptRow]:
    return [row(row_id, f"message of {row_id}") for row_id in row_ids]


def item(row_id: Any = "1", **changes: Any) -> dict[str, Any]:
    values = {"Topic": "Product", "Sentiment": "Negative", "Urgency": "High", "Key_Point": "It crashes."}
    return {"RowID": row_id} | values | changes


def reply(*items: dict[str, Any]) -> str:
    return json.dumps({"mentions": list(items)})
