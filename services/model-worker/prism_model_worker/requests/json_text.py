"""JSON written again as it was read: strictly parsed numbers keep their digits (`1.10`, `1e3`)."""

import json
from typing import Any, TypeGuard

from prism.annotation.strict_json import NumberText


def compact(value: Any) -> str:
    """Return the shortest JSON text of a value that `load_strictly` returned, readable in any script."""
    if isinstance(value, NumberText):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{compact(name)}:{compact(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value was a JSON string; a number is text too, to Python."""
    return isinstance(value, str) and not isinstance(value, NumberText)
