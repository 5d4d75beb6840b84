"""Rows and a prompt file become one prompt: messages, the reply's JSON schema, and whose rows they are."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prism.annotation import frame
from prism.annotation.column import shorten
from prism.annotation.prompt_file import ROW_ID, PromptFile

MENTIONS = "mentions"
MAX_SHOWN_REPLY_CHARACTERS = 2_000

# Whatever else a RowID holds, a model may garble it, and it is row text: it could forge the frame.
_PLAIN_ROW_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Message = dict[str, str]
"""`role` ("system", "user", "assistant") and `content`, as chat APIs take them."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """What of a row goes into a prompt. `image`: a photo goes with it; the message may then be empty."""

    row_id: str
    title: str | None
    message: str
    sentiment: str | None
    image: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """One model call. `identities` name the rows, in their order; each is unique in the call.

    `images` are base64 texts that belong to the user message; the caller, who can read them, fills them in.
    """

    system: str
    user: str
    schema: dict[str, Any]
    identities: tuple[str, ...]
    images: tuple[str, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The chat: the part that all calls of a run share first, so that servers reuse their cache."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


def build_prompt(prompt_file: PromptFile, rows: Sequence[PromptRow]) -> Prompt:
    """Return the call that asks about `rows`: the single form for one, the batch form for more.

    Raises ValueError without rows, and for a photo among several: nothing says whose it would be.
    """
    if not rows:
        raise ValueError("a prompt needs at least one row")
    if len(rows) > 1 and any(row.image for row in rows):
        raise ValueError("a row with a photo needs a prompt of its own")
    identities = identify([row.row_id for row in rows])
    texts = [
        frame.mention(
            identity,
            row.sentiment if prompt_file.codes_sentiment else None,
            row.title,
            row.message,
            row.image,
        )
        for identity, row in zip(identities, rows, strict=True)
    ]
    return Prompt(
        system=prompt_file.system_message,
        user=frame.single(texts[0]) if len(texts) == 1 else frame.batch(texts),
        schema=_schema(prompt_file, identities),
        identities=identities,
    )


def build_repair(prompt: Prompt, bad_reply: str, problem: str) -> list[Message]:
    """Return the one repair attempt: the same call, what came back (shortened), and what is wrong with it."""
    shown = frame.quote_text(bad_reply[:MAX_SHOWN_REPLY_CHARACTERS]).replace(frame.CONTINUATION, "\n")
    if len(bad_reply) > MAX_SHOWN_REPLY_CHARACTERS:
        shown += "…"
    return [
        *prompt.messages,
        {"role": "assistant", "content": shown or "(empty)"},
        {
            "role": "user",
            "content": f"This reply cannot be used: {frame.quote_line(shorten(problem, 300))}. "
            "Answer the same mentions again, complete, as the **RETURN** line asks: JSON only.",
        },
    ]


def identify(row_ids: Sequence[str]) -> tuple[str, ...]:
    """Return a unique, plain identity for each row: its own RowID where that is one, else `row-N`."""
    counts = Counter(row_ids)
    own = {name for name, count in counts.items() if count == 1 and _PLAIN_ROW_ID.fullmatch(name)}
    tokens = (token for number in range(1, 2 * len(row_ids) + 1) if (token := f"row-{number}") not in own)
    return tuple(name if name in own else next(tokens) for name in row_ids)


def _schema(prompt_file: PromptFile, identities: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of the whole reply.

    A batch is a tuple, not a list of equals: item i carries identity i. A server that enforces it
    cannot leave a row out or answer one twice, which Ollama's models do when any identity may
    stand in any item.
    """
    items = [_item_schema(prompt_file, identity) for identity in identities]
    if len(items) == 1:
        return items[0]
    mentions = {"type": "array", "minItems": len(items), "maxItems": len(items), "prefixItems": items}
    return _object_schema({MENTIONS: mentions})


def _item_schema(prompt_file: PromptFile, identity: str) -> dict[str, Any]:
    columns = {column.name: column.schema for column in prompt_file.columns}
    return _object_schema({ROW_ID: {"type": "string", "enum": [identity]}, **columns})


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
