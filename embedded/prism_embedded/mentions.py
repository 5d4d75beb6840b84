"""Finds the rows in a prompt.

The batch form has frames: a line of `═`, `[MENTION i of n]`, then the fields; the single form has the
fields alone. A line that begins with `> ` goes on with the field before it.
"""

import hashlib
import re
from dataclasses import dataclass

HEAD_CHARACTERS = 2000  # bounds the time of the rules, and the memory of their caches
_RULER = re.compile(r"^═{5,}[ \t]*$", re.MULTILINE)
_OPENING = re.compile(r"\s*\[MENTION \d+ of \d+\][ \t]*\n")
_END_OF_SINGLE = re.compile(r"^\*\*RETURN", re.MULTILINE)
_FIELDS = re.compile(
    r"^RowID:[ \t]*(?P<row_id>.*)\n"
    r"(?:\[INPUT SENTIMENT\]:.*\n)?"
    r"\s*"
    r"(?:Title:[ \t]*(?P<title>.*(?:\n> .*)*)\n\s*)?"
    r"Content:[ \t]*(?P<content>[\s\S]*)\Z",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Mention:
    """One row of a prompt; `row_id` is None where the prompt has no frame and is itself the text."""

    row_id: str | None
    title: str
    content: str

    @property
    def text(self) -> str:
        """Title and content."""
        return f"{self.title}. {self.content}" if self.title else self.content

    @property
    def head(self) -> str:
        """As much of the text as the rules look at."""
        return self.text[:HEAD_CHARACTERS]


def find_mentions(prompt: str) -> list[Mention]:
    """The rows of a prompt in their order; empty where it has no frame."""
    if "RowID:" not in prompt:
        return []
    sections = _RULER.split(prompt)
    if len(sections) > 1:
        framed = ((section, _OPENING.match(section)) for section in sections)
        found = [_fields(section[opening.end() :]) for section, opening in framed if opening]
    else:
        found = [_fields(_END_OF_SINGLE.split(prompt)[0])]
    return [mention for mention in found if mention]


def row_hash(row_id: str, content: str) -> str:
    """How the server's statistics name a row: SHA-1 of its RowID, a unit separator and its text."""
    return hashlib.sha1(f"{row_id}\x1f{content}".encode("utf-8", "replace")).hexdigest()


def _fields(section: str) -> Mention | None:
    found = _FIELDS.search(section)
    if not found:
        return None
    title = _plain(found["title"] or "")
    return Mention(found["row_id"].strip(), title, _plain(found["content"]))


def _plain(text: str) -> str:
    return text.replace("\n> ", "\n").strip()
