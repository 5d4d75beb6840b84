"""The embedded model server from outside: what it has done, and how it is to behave."""

import json
import urllib.request
from typing import Any


class ModelControl:
    """A model server that somebody else started."""

    def __init__(self, url: str) -> None:
        self.url = url

    def set(self, **changes: object) -> None:
        """Change how it behaves; `reset=True` sets its counts to zero."""
        body = json.dumps(changes).encode()
        urllib.request.urlopen(f"{self.url}/prism/control", data=body, timeout=10.0).close()

    def stats(self) -> dict[str, Any]:
        """Return its own counts."""
        with urllib.request.urlopen(f"{self.url}/prism/stats", timeout=10.0) as answer:
            found: dict[str, Any] = json.load(answer)
        return found
