"""Makes a service of today one of a version to come: whatever it sends says more than today's code knows.

Python imports this by itself in a process whose PYTHONPATH begins with this folder.
"""

import json
from typing import Any

from prism.messages.base import Message

VERSION = 2
MORE = {"invented_later": {"x": [1, None, "y"]}, "another_day": 0.5}
_today = Message.to_bytes


def _later(self: Message) -> bytes:
    sent: dict[str, Any] = json.loads(_today(self))
    for part in (*sent.get("rows", ()), *_parts(sent.get("files")), *_parts(sent.get("runs"))):
        part.update(MORE)
    return json.dumps({**MORE, **sent, "schema_version": VERSION}, ensure_ascii=False).encode()


def _parts(value: Any) -> list[dict[str, Any]]:
    found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in found if isinstance(one, dict)]


Message.to_bytes = _later  # type: ignore[method-assign]
