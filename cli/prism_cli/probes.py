"""Small HTTP questions on this machine and to a model server; never through a proxy on the loopback."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_BY_ENVIRONMENT = urllib.request.build_opener()
_MOST_BYTES = 8 * 1024 * 1024


class NoAnswer(Exception):
    """Nothing usable came back; the text says why, in a few words."""


def get_json(
    url: str, timeout_s: float, headers: Mapping[str, str] | None = None, local: bool = True
) -> tuple[int, dict[str, Any]]:
    """Return status and JSON object of a GET; raise NoAnswer."""
    opener = _DIRECT if local else _BY_ENVIRONMENT
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))
        with opener.open(request, timeout=timeout_s) as response:
            return int(response.status), _object(response.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _object(error.read(_MOST_BYTES))
    except urllib.error.URLError as error:
        raise NoAnswer(getattr(error.reason, "strerror", None) or str(error.reason)) from None
    except (OSError, ValueError) as error:
        raise NoAnswer(getattr(error, "strerror", None) or str(error) or type(error).__name__) from None


def why_not_ready(url: str, timeout_s: float = 2.0) -> str | None:
    """Return why the service at `url` is not ready, None when it is."""
    try:
        status, answer = get_json(f"{url}/ready", timeout_s)
    except NoAnswer as error:
        return str(error)
    if status == 200:
        return None
    return str(answer.get("reason") or f"HTTP {status}")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
