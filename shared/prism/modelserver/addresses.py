"""What people write for a model server's address, and the URL that it stands for."""

import re

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_SCHEME_PORTS = {"http": 80, "https": 443}


def server_url(address: str, default_port: int) -> str:
    """Return `scheme://host:port[/path]` without a slash at its end.

    `host`, `host:port`, `http://host:port/`, `:port`, `[::1]:port`, `::1`; the port of an address without
    one is `default_port`, or the scheme's own if it has a scheme; the addresses to listen on (0.0.0.0, ::)
    become the loopback. Raises ValueError saying what is allowed.
    """
    text = address.strip()
    scheme, separator, rest = text.rpartition("://")
    scheme = scheme.lower() if separator else "http"
    usual_port = _SCHEME_PORTS.get(scheme, 0) if separator else default_port
    authority, slash, path = rest.partition("/")
    name, port = _host_and_port(authority)
    if scheme not in _SCHEME_PORTS or name is None or port > 65535 or re.search(r"[\s?#]", path):
        shown = ascii(text if "@" not in text else "the value (hidden: it has a password)")
        raise ValueError(
            f"{shown} is no address of a model server; allowed: host, host:port, http(s)://host[:port]"
        )
    return f"{scheme}://{name}:{port or usual_port}{slash}{path}".rstrip("/")


def _host_and_port(authority: str) -> tuple[str | None, int]:
    """Return the host to connect to, None for what is none, and the port, 0 for none."""
    if authority.count(":") > 1 and "[" not in authority:
        authority = f"[{authority}]"
    elif authority.startswith(":") or not authority:
        authority = f"127.0.0.1{authority}"
    match = _HOST.fullmatch(authority)
    if match is None:
        return None, 0
    return _LOOPBACK.get(match[1], match[1]), int(match[2] or 0)
