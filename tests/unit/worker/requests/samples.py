"""Records of the request topic."""

import json
from collections.abc import Mapping
from typing import Any

from prism_model_worker.requests.parsing import parse
from prism_model_worker.requests.request import Refusal, Request, Skip

EMAIL = "user@example.com"
PLACE = "eater-send-photo/3/42"


def text_body(**more: Any) -> dict[str, Any]:
    """The value of a text request."""
    return {"user_email": EMAIL, "prompt": "What is a lag?", **more}


def photo_body(**more: Any) -> dict[str, Any]:
    """The value of a photo request."""
    return {"user_email": EMAIL, "prompt": "What is this?", "photo": "QUJD", **more}


def parsed(
    body: Any, key: bytes | None = b"k1", headers: Mapping[str, str] | None = None
) -> Request | Skip | Refusal:
    """What becomes of a record."""
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(value, key, headers or {}, place=PLACE)


def request(
    body: dict[str, Any], key: bytes | None = b"k1", headers: Mapping[str, str] | None = None
) -> Request:
    """A sound request."""
    found = parsed(body, key, headers)
    assert isinstance(found, Request), found
    return found


def outcome(found: Request | Skip | Refusal) -> str:
    """One word for what became of a record."""
    if isinstance(found, Skip):
        return f"skip {found.reason}"
    return f"refuse {found.code}" if isinstance(found, Refusal) else found.address.kind
