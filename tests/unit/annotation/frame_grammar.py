"""The frame of the user message, parsed as a model server has to: line by line, no knowledge of the texts."""

import re
from dataclasses import dataclass
from itertools import pairwise

RULER = re.compile(r"═{3,}")
SECTION = re.compile(r"\[MENTION (\d+) of (\d+)\]")
SENTIMENT = re.compile(r"\[INPUT SENTIMENT\]: (.*) ← Validate and override if wrong")


@dataclass
class Mention:
    row_id: str
    sentiment: str | None = None
    title: str | None = None
    content: str = ""
    image: bool = False


def parse_frame(user: str) -> list[Mention]:
    lines = user.split("\n")
    assert lines == user.splitlines(), "a line break that only some parsers see"
    assert lines[-1].startswith("**RETURN:**")
    assert sum(line.startswith("**RETURN") for line in lines) == 1
    if not any(RULER.fullmatch(line) for line in lines):
        assert lines[1] == lines[-2] == ""
        return [_mention(lines[2:-2])]
    rulers = [number for number, line in enumerate(lines) if RULER.fullmatch(line)]
    sections = [lines[start + 1 : end] for start, end in pairwise(rulers)]
    for position, section in enumerate(sections, 1):
        heading = SECTION.fullmatch(section[0])
        assert heading is not None
        assert heading.groups() == (str(position), str(len(sections)))
    return [_mention(section[1:]) for section in sections]


def _mention(lines: list[str]) -> Mention:
    mention = Mention(lines[0].removeprefix("RowID: "))
    assert lines[0].startswith("RowID: ")
    rest = lines[1:]
    if sentiment := SENTIMENT.fullmatch(rest[0]):
        mention.sentiment = sentiment[1]
        rest = rest[1:]
    assert rest[0] == ""
    rest = rest[1:]
    if rest[0].startswith("Title: "):
        mention.title, rest = _text(rest, "Title: ")
    mention.content, rest = _text(rest, "Content: ")
    mention.image = rest == ["[photo attached]"]
    assert mention.image or rest == []
    return mention


def _text(lines: list[str], name: str) -> tuple[str, list[str]]:
    assert lines[0].startswith(name)
    end = 1
    while end < len(lines) and lines[end].startswith("> "):
        end += 1
    return "\n".join([lines[0].removeprefix(name), *(line[2:] for line in lines[1:end])]), lines[end:]
