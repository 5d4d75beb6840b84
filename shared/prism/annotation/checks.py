"""What a prompt file's texts and names are checked for. A refusal names its key and the way out."""

from typing import Any

from pydantic_core import PydanticCustomError

from prism.annotation.column import MAX_VALUE_CHARACTERS, clean_value, quote, shorten

MAX_COLUMN_NAME_CHARACTERS = 200


def refusal(key: str, problem: str, remedy: str) -> PydanticCustomError:
    """Return an error for a validator; `PromptFile.parse` turns it into PromptRefused."""
    return PydanticCustomError(
        "prompt", "{key}: {problem}; {remedy}", {"key": key, "problem": problem, "remedy": remedy}
    )


def encodable(key: str, text: str) -> str:
    """Return the text; raise a refusal if UTF-8 cannot hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refusal(shorten(key), "holds half of a character (a lone surrogate)", "mend it") from None
    return text


def scalar_text(key: str, value: Any) -> str:
    """Return a text, number or boolean as text; raise a refusal for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return encodable(key, str(value))
    raise refusal(shorten(key), "holds a value that is no text", "write text")


def cell_text(key: str, value: Any) -> str:
    """Return a scalar as it may stand in a cell of the output; raise a refusal if it may not."""
    text = scalar_text(key, value).strip()
    if text != clean_value(text):
        raise refusal(shorten(key), "has control characters", "take them out")
    if len(text) > MAX_VALUE_CHARACTERS:
        raise refusal(shorten(key), f"is longer than {MAX_VALUE_CHARACTERS} characters", "shorten it")
    return text


def assert_plain_name(key: str, name: str) -> None:
    """Raise a refusal unless `name` can be a column's name."""
    shown = quote(shorten(name))
    if not name or name != name.strip() or not name.isprintable():
        problem = f"{shown} is empty, has spaces around it or unprintable characters"
        raise refusal(key, problem, "use a plain name")
    if len(name) > MAX_COLUMN_NAME_CHARACTERS:
        problem = f"{shown} is longer than {MAX_COLUMN_NAME_CHARACTERS} characters"
        raise refusal(key, problem, "use a shorter name")
