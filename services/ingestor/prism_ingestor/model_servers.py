"""Which model servers a run may name: it comes from outside, and its calls go out from the workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from prism.runs.catalogue import Catalogue, ModelEntry
from prism.runs.job import JobRefused


@dataclass(frozen=True, slots=True)
class AllowedServers:
    """`origins`: `scheme://host:port` of each; None: any. `catalogue`: the fleet's own `models.json`."""

    origins: frozenset[str] | None
    catalogue: Callable[[], Catalogue]

    def check(self, models: Sequence[ModelEntry]) -> None:
        """Raise JobRefused if a run names a server that is neither the fleet's own nor allowed.

        What the fleet's own `models.json` says of a model is allowed with the key that it names there, and
        with no other: a key must not be sent to where it does not belong.
        """
        if self.origins is None:
            return
        own = self.catalogue()
        for one in models:
            mine = own.entry(one.name)
            if (one.base_url, one.api_key_env) == (mine.base_url, mine.api_key_env):
                continue
            for url in one.base_url or ("its default",):
                if origin_of(url) not in self.origins:
                    raise JobRefused(
                        f"model {one.name}: {url} is not a server that a run may name (PRISM_MODEL_SERVERS: "
                        f"{', '.join(sorted(self.origins)) or 'none'}); name one of the fleet's models.json"
                    )


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address, in lower case, the usual port written out; else nothing."""
    try:
        parts = urlsplit(url.strip().lower())
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}" if parts.hostname and port else ""
