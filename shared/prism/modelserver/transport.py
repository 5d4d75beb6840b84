"""HTTP calls with a total deadline: what the clients of all model servers share.

Why a slow server cannot evade the deadline. A socket's timeout bounds one read, so a server that sends a
byte now and then holds a call for ever, in the headers as well as in the body. Here every read from the
socket (`_DeadlineReader`) and every piece written (`send`) first sets the socket's timeout to what is left
of the call. The deadline lies in a thread local: from taking a connection out of the pool until the body
is read, a connection belongs to one call, and a call to one thread. Not covered: looking up the host's
name, and that each further address of a host with several is given its own connect timeout.

Of `requests`, the adapter is used without a session: no cookies, no redirects, no .netrc, and the
environment (proxies, CA bundle) is read once, not per call. That halves the CPU time of a call.
"""

import http.client
import io
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError

from prism.modelserver.errors import AwayReason, CallTimeout, ReplyUnusable, ServerAway, UnusableReason

# A reply is some kB of JSON; more than this is not one.
MAX_BODY_BYTES = 8 * 1024 * 1024
_READ_BYTES = 64 * 1024
_SEND_BYTES = 64 * 1024
_READ_TIMEOUTS = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    body: bytes
    retry_after: str | None


def bearer(api_key: str | None) -> str | None:
    """Return the Authorization header for a key; None without one. Raises ValueError for what is none."""
    # Out of a file or a Kubernetes secret it often comes with its line's end.
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("the API key has characters that an HTTP header cannot carry")
    return f"Bearer {key}" if key else None


class Transport:
    """Keep-alive connections to one server. Threads share it.

    base_url: `scheme://host:port[/path]`. `authorization`: the header's value, or None.
    pool_size: most connections kept, so as many as calls may run at once.
    connect_timeout_s: seconds for connecting, within each call's deadline.
    """

    def __init__(
        self, base_url: str, *, pool_size: int, connect_timeout_s: float, authorization: str | None = None
    ) -> None:
        self.base_url = base_url
        self._connect_timeout_s = connect_timeout_s
        self._adapter = _DeadlineAdapter(pool_connections=1, pool_maxsize=pool_size)
        self._verify, self._proxies = _environment(base_url)
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "prism"}
        if authorization is not None:
            self._headers["Authorization"] = authorization
        self._prepared: dict[tuple[str, str], requests.PreparedRequest] = {}

    def call(self, method: str, path: str, body: bytes | None, deadline_s: float) -> Answer:
        """Send one request and read the whole answer within `deadline_s` seconds; nothing is tried twice.

        Raises ServerAway, CallTimeout, and ReplyUnusable for an answer that is too large.
        """
        where = self.base_url + path
        deadline = time.monotonic() + deadline_s
        _call.deadline = deadline
        try:
            response = self._send(self._request(method, path, body), deadline_s)
            return Answer(response.status_code, _read(response, where), response.headers.get("Retry-After"))
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _failure(error, where, deadline_s, time.monotonic() >= deadline) from error

    def close(self) -> None:
        """Close idle connections."""
        self._adapter.close()

    def _send(self, request: requests.PreparedRequest, deadline_s: float) -> requests.Response:
        timeout = (min(self._connect_timeout_s, deadline_s), deadline_s)
        return self._adapter.send(
            request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
        )

    def _request(self, method: str, path: str, body: bytes | None) -> requests.PreparedRequest:
        """Return a copy of the request to `path`, prepared once: its URL is the costly part."""
        prepared = self._prepared.get((method, path))
        if prepared is None:
            prepared = requests.Request(method, self.base_url + path, headers=self._headers).prepare()
            self._prepared[method, path] = prepared
        request = prepared.copy()
        if body is not None:
            request.body = body
            request.headers["Content-Type"] = "application/json"
            request.headers["Content-Length"] = str(len(body))
        return request


def _environment(base_url: str) -> tuple[bool | str, dict[str, str]]:
    """Return what `verify` and `proxies` are for this server. No proxy ever stands before a loopback."""
    with requests.Session() as session:
        settings = session.merge_environment_settings(base_url, {}, None, None, None)
    host = urlsplit(base_url).hostname or ""
    loopback = host in ("localhost", "::1") or host.startswith("127.")
    verify = settings["verify"]
    return True if verify is None else verify, {} if loopback else dict(settings["proxies"])


def _read(response: requests.Response, where: str) -> bytes:
    """Return the whole body. At its end the connection goes back to the pool; a failure closes it."""
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := response.raw.read1(_READ_BYTES, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise ReplyUnusable(
                    f"the answer is larger than {MAX_BODY_BYTES} bytes",
                    where,
                    reason=UnusableReason.TOO_LARGE,
                )
    except BaseException:
        response.raw.close()
        raise
    response.raw.release_conn()
    if not pieces and not any(name in response.headers for name in ("Content-Length", "Transfer-Encoding")):
        # Python's http takes a status line that ends in mid-air for a whole answer.
        raise ServerAway("the answer broke off", where, reason=AwayReason.BROKEN_OFF)
    return b"".join(pieces)


def _failure(error: Exception, where: str, deadline_s: float, late: bool) -> CallTimeout | ServerAway:
    check = "check that it runs and that the address is right"
    if isinstance(error, requests.ConnectTimeout):
        return ServerAway("no connection in time", where, check, reason=AwayReason.UNREACHABLE)
    if late or isinstance(error, _READ_TIMEOUTS):
        return CallTimeout(
            f"no whole answer within {deadline_s:g} s", where, "raise the timeout if it is slow"
        )
    if isinstance(error, requests.exceptions.SSLError):
        return ServerAway("TLS failed", where, "check the certificate", reason=AwayReason.UNREACHABLE)
    cause = _cause(error)
    if isinstance(cause, NameResolutionError):
        return ServerAway("the host has no address", where, check, reason=AwayReason.UNREACHABLE)
    if isinstance(cause, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ProxyError):
        what = "connection refused" if "refused" in str(cause) else "no connection"
        return ServerAway(what, where, check, reason=AwayReason.UNREACHABLE)
    return ServerAway("the connection broke off", where, check, reason=AwayReason.BROKEN_OFF)


def _cause(error: BaseException) -> object:
    """Return urllib3's own error, which requests carries as its argument."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or inner


_call = threading.local()


def _remaining() -> float:
    remaining: float = _call.deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the call's deadline has passed")
    return remaining


class _DeadlineReader(io.RawIOBase):
    """Reads a socket, for as long as the call has."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._connection = connection
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_remaining())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # The socket's own raw stream counts the readers of a connection that is closed early: keep it.
        self.fp = io.BufferedReader(_DeadlineReader(sock, self.fp.detach()))


class _DeadlineHTTP(HTTPConnection):
    response_class = _DeadlineResponse

    def send(self, data: Any) -> None:
        _send_in_time(self, super().send, data)


class _DeadlineHTTPS(HTTPSConnection):
    response_class = _DeadlineResponse

    def send(self, data: Any) -> None:
        _send_in_time(self, super().send, data)


def _send_in_time(connection: HTTPConnection, send: Any, data: Any) -> None:
    if connection.sock is None:
        connection.connect()
    view = memoryview(data)
    for start in range(0, len(view), _SEND_BYTES):
        connection.sock.settimeout(_remaining())
        send(view[start : start + _SEND_BYTES])


class _DeadlineHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _DeadlineHTTP


class _DeadlineHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _DeadlineHTTPS


class _DeadlineAdapter(HTTPAdapter):
    """requests' adapter whose connections obey the deadline."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_deadlines(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        _use_deadlines(manager)
        return manager


def _use_deadlines(manager: urllib3.PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _DeadlineHTTPPool, "https": _DeadlineHTTPSPool}
