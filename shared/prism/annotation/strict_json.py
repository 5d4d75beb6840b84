"""JSON read strictly: what Python's parser lets through is refused here.

Refused: NaN and Infinity, duplicate keys, nesting deeper than 32, numbers longer than 400
characters, lone surrogates. A number stays the text that it was written as (`1.10` keeps its
zero), since every value that PRISM reads from a model ends as text.
"""

import json
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
MAX_NUMBER_CHARACTERS = 400

# A string (or one that is never closed: it runs to the end, so that scanning stays linear) or a bracket.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class NotStrictJson(ValueError):
    """The text is not JSON, or JSON of a kind that is refused. The message says which."""


class NumberText(str):
    """A JSON number, as the characters that it was written with."""

    __slots__ = ()


def load_strictly(text: str) -> Any:
    """Return the JSON value that is the whole of `text`; raise NotStrictJson otherwise."""
    if text.count("[") + text.count("{") > MAX_DEPTH:
        end_of_value(text, 0)  # before the parser can run out of stack
    try:
        value = _DECODER.decode(text)
        if not text.isascii() or _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except NotStrictJson:
        raise
    except UnicodeEncodeError:
        raise NotStrictJson("a lone surrogate") from None
    except ValueError as error:
        raise NotStrictJson(f"not JSON: {error}") from None
    return value


def end_of_value(text: str, start: int) -> int | None:
    """Return the index behind the object or array that opens at `start`, None if it is never closed.

    Raises NotStrictJson when it is nested too deep.
    """
    depth = 0
    for token in _TOKEN.finditer(text, start):
        character = token[0]
        if character in ("{", "["):
            depth += 1
            if depth > MAX_DEPTH:
                raise NotStrictJson(f"nested deeper than {MAX_DEPTH}")
        elif character in ("}", "]"):
            depth -= 1
            if depth <= 0:
                return token.end()
    return None


def _number(text: str) -> NumberText:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise NotStrictJson(f"a number longer than {MAX_NUMBER_CHARACTERS} characters")
    return NumberText(text)


def _constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotStrictJson("a key given twice in one object")
    return value


_DECODER = json.JSONDecoder(
    parse_int=_number, parse_float=_number, parse_constant=_constant, object_pairs_hook=_object
)
