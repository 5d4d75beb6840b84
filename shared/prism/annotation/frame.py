"""The frame around the rows of a prompt, and the quoting that keeps a row's text inside it.

Row text is data: whatever it says, it cannot open, close or imitate a part of the frame.

- A line break in a row's text becomes a newline and `> `, so no line of the frame begins within a text.
- The frame's own marks are spelled differently inside a text: `═` as `=`, `[MENTION` as `(MENTION`,
  `[photo attached]` as `(photo attached]`, `**RETURN` as `* *RETURN`, `RowID:` as `RowID :`.
- So are the control tokens of chat templates (`<|im_end|>`, `</s>`, `[INST]`), which a server would
  take for its own, and Ollama's `[img-7]`, which makes it refuse the whole call.
- Control characters and lone surrogates become U+FFFD.

It stays readable for a model and for people; the output's cells keep the text as it came.
"""

import re

RULER = "═" * 16
CONTINUATION = "\n> "
PHOTO = "[photo attached]"

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
_OPENING = re.compile(
    r"\[(?=\s{0,8}(?i:MENTION|INPUT\s{1,8}SENTIMENT|PHOTO\s{1,8}ATTACHED|img-\d)|/?[A-Z_]{3,40}\])"
)
_TAG = re.compile(r"<(?=[|\uff5c]|/?[A-Za-z_]{1,40}>)")
_RETURN = re.compile(r"\*\*(?=\s{0,8}RETURN)", re.IGNORECASE)
_ROW_ID = re.compile(r"(RowID)(?=\s{0,8}:)", re.IGNORECASE)


def quote_text(text: str) -> str:
    """Return a row's text as it stands in the frame."""
    text = text.strip()
    if text.isprintable():  # no line break, no control character, no surrogate
        return _disarm(text)
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _LINE_BREAK.sub(CONTINUATION, _disarm(_CONTROL.sub("\ufffd", text)))


def quote_line(text: str) -> str:
    """Return a row's text as one line of the frame."""
    return quote_text(text).replace(CONTINUATION, " ")


def mention(identity: str, sentiment: str | None, title: str | None, message: str, image: bool) -> str:
    """Return the fields of one row: the whole of it in the single form, one section in the batch form."""
    lines = [f"RowID: {identity}"]
    if sentiment and (shown := quote_line(sentiment)):
        lines.append(f"[INPUT SENTIMENT]: {shown} ← Validate and override if wrong")
    lines.append("")
    if title and (shown := quote_text(title)):
        lines.append(f"Title: {shown}")
    lines.append(f"Content: {quote_text(message)}")
    if image:
        lines.append(PHOTO)
    return "\n".join(lines)


def single(text: str) -> str:
    """Return the user message for one mention."""
    return (
        f"Classify this mention. Return ONE JSON object.\n\n{text}\n\n"
        '**RETURN:** A JSON object with exactly the keys listed, "RowID" first: {...}'
    )


def batch(texts: list[str]) -> str:
    """Return the user message for several mentions."""
    count = len(texts)
    sections = "".join(
        f"{RULER}\n[MENTION {number} of {count}]\n{text}\n" for number, text in enumerate(texts, 1)
    )
    return (
        f'Classify these {count} mentions. Return ONE JSON object whose "mentions" array has '
        f"one object per mention, in the EXACT order given.\n\n{sections}{RULER}\n\n"
        f'**RETURN:** A JSON object {{"mentions": [{{...}}, {{...}}, ...]}} with EXACTLY {count} '
        'objects in order, "RowID" first in each'
    )


def _disarm(text: str) -> str:
    if "═" in text:
        text = text.replace("═", "=")
    if "[" in text:
        text = _OPENING.sub("(", text)
    if "<" in text:
        text = _TAG.sub("< ", text)
    if "**" in text:
        text = _RETURN.sub("* *", text)
    if "rowid" in text.lower():
        text = _ROW_ID.sub(r"\1 ", text)
    return text
