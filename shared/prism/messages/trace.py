"""Which trace a message belongs to: W3C Trace Context, section 3.2 (`traceparent`), 3.3 (`tracestate`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

HEADER_PARENT = "traceparent"
HEADER_STATE = "tracestate"

_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# What a sender may have us carry along with each message of a run.
_STATE = re.compile(r"[ -~]{1,512}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of somebody's, under which what follows belongs.

    parent: `00-<trace id>-<span id>-<flags>`. state: what the sender's own tracing wants carried along.
    """

    parent: str
    state: str | None = None

    @classmethod
    def of(cls, parent: str | None, state: str | None) -> Self | None:
        """Return the context that was given; None for one that is none. A bad state alone is left out."""
        if parent is None or _PARENT.fullmatch(parent) is None:
            return None
        return cls(parent, state if state is not None and _STATE.fullmatch(state) else None)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Self | None:
        """Return the context in a record's headers, names in lower case; None without a valid one."""
        return cls.of(headers.get(HEADER_PARENT), headers.get(HEADER_STATE))

    @property
    def sampled(self) -> bool:
        """Whether that span is seen, as far as its side knows."""
        return int(self.parent[-2:], 16) & 1 == 1

    @property
    def span_id(self) -> str:
        """The span, as 16 hexadecimal digits."""
        return self.parent[36:52]
