import gzip
import os
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from prism.modelserver import errors
from prism.modelserver.errors import AwayReason, UnusableReason
from prism.modelserver.ollama import Ollama
from prism.modelserver.server import ChatMessage, ChatRequest
from prism.modelserver.transport import MAX_BODY_BYTES, Transport
from tests.unit.modelserver.conftest import Serve
from tests.unit.modelserver.server import Handler, Request, ScriptedServer, reset, respond
from tests.unit.modelserver.test_ollama import REPLY, always, failure

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip(server: list[ScriptedServer], first: bytes, endless: bytes) -> Handler:
    """Send `first`, then `endless` byte by byte, each well within any socket timeout."""

    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(first)
        while not server[0].closing.wait(0.02):
            connection.sendall(endless)

    return handler


@pytest.mark.promise(9)
def test_a_refused_connection(request_: ChatRequest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(errors.ServerAway, match="connection refused") as caught:
        Ollama(f"127.0.0.1:{port}").chat(request_)
    assert caught.value.reason is AwayReason.UNREACHABLE


def test_a_host_without_address(request_: ChatRequest) -> None:
    with pytest.raises(errors.ServerAway, match="no address") as caught:
        Ollama("no.such.host.invalid").chat(request_)
    assert caught.value.reason is AwayReason.UNREACHABLE


def test_a_connection_that_is_never_made(request_: ChatRequest) -> None:
    # A full backlog: the kernel answers no further SYN.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        client = Ollama(f"127.0.0.1:{address[1]}", connect_timeout_s=0.2)
        with pytest.raises(errors.ServerAway, match="no connection in time"):
            client.chat(request_)
        for each in waiting:
            each.close()


@pytest.mark.promise(9)
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", HEAD + b'Content-Length: 99\r\n\r\n{"mess'])
@pytest.mark.parametrize("abrupt", [True, False])
def test_a_connection_that_breaks_off(serve: Serve, request_: ChatRequest, sent: bytes, abrupt: bool) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(sent)
        if abrupt:
            reset(connection)
        else:
            connection.shutdown(socket.SHUT_RDWR)

    error = failure(serve, handler, request_)
    assert isinstance(error, errors.ServerAway)
    assert error.reason is AwayReason.BROKEN_OFF


def test_a_chunked_body_that_breaks_off(serve: Serve, request_: ChatRequest) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mes\r\n')
        connection.shutdown(socket.SHUT_RDWR)

    assert isinstance(failure(serve, handler, request_), errors.ServerAway)


def test_a_chunked_body(serve: Serve) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"version":', b'"1"}'):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")

    server, client = serve(handler)
    assert [client.version(), client.version()] == ["1", "1"]
    assert server.connections == 1


def test_a_body_that_ends_with_the_connection(serve: Serve) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(HEAD + b'Connection: close\r\n\r\n{"version":')
        connection.sendall(b'"1"}')
        connection.shutdown(socket.SHUT_RDWR)

    server, client = serve(handler)
    assert [client.version(), client.version()] == ["1", "1"]
    assert server.connections == 2


def test_an_idle_connection_that_the_server_closed_is_not_used(serve: Serve, request_: ChatRequest) -> None:
    closed = threading.Event()

    def handler(connection: socket.socket, request: Request) -> None:
        always(200, REPLY)(connection, request)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    _, client = serve(handler)
    for _ in range(3):
        client.chat(request_)
        assert closed.wait(5)
        closed.clear()


@pytest.mark.promise(10)
@pytest.mark.parametrize(
    ("first", "endless"),
    [
        pytest.param(b"", b"", id="silence"),
        pytest.param(b"", b"H", id="drip of the status line"),
        pytest.param(HEAD + b"X: ", b"x", id="drip of a header"),
        pytest.param(HEAD, b"Xy: z\r\n", id="drip of headers"),
        pytest.param(HEAD + b"Content-Length: 100000\r\n\r\n", b" ", id="drip of the body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="drip of chunks"),
        pytest.param(HEAD + b"\r\n", b" ", id="drip to the end of the connection"),
    ],
)
def test_no_slowness_evades_the_deadline(
    serve: Serve, request_: ChatRequest, first: bytes, endless: bytes
) -> None:
    holder: list[ScriptedServer] = []
    server, client = serve(drip(holder, first, endless))
    holder.append(server)
    started = time.monotonic()
    with pytest.raises(errors.CallTimeout, match=r"within 0\.4 s"):
        client.chat(replace(request_, deadline_s=0.4))
    assert 0.4 <= time.monotonic() - started < 1.0


@pytest.mark.promise(10)
def test_a_byte_just_before_the_deadline_does_not_extend_it(serve: Serve, request_: ChatRequest) -> None:
    holder: list[ScriptedServer] = []

    def handler(connection: socket.socket, request: Request) -> None:
        holder[0].closing.wait(0.4)
        connection.sendall(b"H")
        holder[0].closing.wait()

    server, client = serve(handler)
    holder.append(server)
    started = time.monotonic()
    with pytest.raises(errors.CallTimeout):
        client.chat(replace(request_, deadline_s=0.5))
    assert time.monotonic() - started < 0.8


@pytest.mark.promise(10)
def test_a_server_that_stops_reading_is_left_in_time(serve: Serve, request_: ChatRequest) -> None:
    """On a connection whose socket still has the timeout of the call before."""
    holder: list[ScriptedServer] = []

    def handler(connection: socket.socket, request: Request) -> None:
        always(200, REPLY)(connection, request)
        holder[0].closing.wait()

    server, client = serve(handler)
    holder.append(server)
    client.chat(request_)
    huge = (ChatMessage("user", "x" * 16_000_000),)
    started = time.monotonic()
    with pytest.raises(errors.CallTimeout):
        client.chat(replace(request_, messages=huge, deadline_s=0.4))
    assert time.monotonic() - started < 1.5
    assert server.connections == 1


@pytest.mark.promise(10)
def test_a_server_that_reads_slowly_is_left_in_time(request_: ChatRequest) -> None:
    stop = threading.Event()

    def read_slowly(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not stop.wait(0.05) and connection.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        threading.Thread(target=read_slowly, args=(listener,), daemon=True).start()
        client = Ollama(f"127.0.0.1:{listener.getsockname()[1]}")
        huge = (ChatMessage("user", "x" * 16_000_000),)
        started = time.monotonic()
        with pytest.raises(errors.CallTimeout):
            client.chat(replace(request_, messages=huge, deadline_s=0.4))
        assert time.monotonic() - started < 1.5
        stop.set()


def test_the_next_call_is_not_bound_by_the_last_ones_deadline(serve: Serve, request_: ChatRequest) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        threading.Event().wait(0.3)
        always(200, REPLY)(connection, request)

    _, client = serve(handler)
    for deadline_s in (5.0, 0.1, 5.0):
        if deadline_s > 1:
            client.chat(replace(request_, deadline_s=deadline_s))
        else:
            with pytest.raises(errors.CallTimeout):
                client.chat(replace(request_, deadline_s=deadline_s))


def test_a_late_answer_is_not_taken_for_the_next_calls(serve: Serve, request_: ChatRequest) -> None:
    """Promise 7: the connection of a call that timed out is never used again."""
    answered = threading.Event()

    def handler(connection: socket.socket, request: Request) -> None:
        text = request.json["messages"][0]["content"]
        if text == "slow":
            answered.wait(5)
        always(200, REPLY | {"message": {"content": text}})(connection, request)

    _, client = serve(handler)
    with pytest.raises(errors.CallTimeout):
        client.chat(replace(request_, messages=(ChatMessage("user", "slow"),), deadline_s=0.1))
    answered.set()
    assert client.chat(replace(request_, messages=(ChatMessage("user", "fast"),))).text == "fast"


@pytest.mark.parametrize("length", [f"Content-Length: {MAX_BODY_BYTES * 100}", "X-No-Length: 1"])
def test_a_body_that_is_too_large_is_left(serve: Serve, request_: ChatRequest, length: str) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(HEAD + length.encode() + b"\r\n\r\n")
        while True:
            connection.sendall(b" " * 1_000_000)

    error = failure(serve, handler, request_)
    assert isinstance(error, errors.ReplyUnusable)
    assert error.reason is UnusableReason.TOO_LARGE


def test_a_compressed_bomb_is_left(serve: Serve, request_: ChatRequest) -> None:
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES * 8))

    def handler(connection: socket.socket, request: Request) -> None:
        respond(connection, 200, bomb, "Content-Encoding: gzip")

    error = failure(serve, handler, request_)
    assert isinstance(error, errors.ReplyUnusable)
    assert error.reason is UnusableReason.TOO_LARGE


def test_what_is_no_http(serve: Serve, request_: ChatRequest) -> None:
    def handler(connection: socket.socket, request: Request) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    assert isinstance(failure(serve, handler, request_), errors.ServerAway)


def test_no_proxy_stands_before_a_loopback(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    _, client = serve(always(200, {"version": "1"}))
    assert client.version() == "1"


def test_a_proxy_is_used_for_others(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, _ = serve(always(200, {"version": "1"}))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    assert Ollama("gpu.example:11434").version() == "1"
    assert proxy.requests[0].path == "http://gpu.example:11434/api/version"


def test_a_cookie_or_netrc_is_never_sent(
    serve: Serve, request_: ChatRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", os.fspath(tmp_path / "netrc"))
    server, client = serve(always(200, REPLY, "Set-Cookie: a=b"))
    for _ in range(2):
        client.chat(request_)
    assert not any({"cookie", "authorization"} & set(request.headers) for request in server.requests)


def test_an_untrusted_certificate_and_the_deadline_under_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: ChatRequest
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    made = subprocess.run(
        [*command, *names, "-keyout", key, "-out", certificate], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("openssl cannot make a certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        threading.Thread(target=serve_tls, args=(listener, context, stop), daemon=True).start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        with pytest.raises(errors.ServerAway, match="TLS failed"):
            Ollama(url).version()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.fspath(certificate))
        started = time.monotonic()
        with pytest.raises(errors.CallTimeout):
            Ollama(url).chat(replace(request_, deadline_s=0.5))
        assert 0.5 <= time.monotonic() - started < 1.5
        stop.set()


def serve_tls(listener: socket.socket, context: ssl.SSLContext, stop: threading.Event) -> None:
    """Drip a header for ever to whoever completes the handshake."""
    while not stop.is_set():
        try:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(HEAD)
                while not stop.wait(0.02):
                    connection.sendall(b"X: y\r\n")
        except OSError:
            continue


def test_a_mistake_of_ours_is_not_taken_for_a_server_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: object, **kwargs: object) -> requests.Response:
        raise TypeError("a bug")

    transport = Transport("http://127.0.0.1:1", pool_size=1, connect_timeout_s=1)
    monkeypatch.setattr(transport, "_send", wrong)
    with pytest.raises(TypeError, match="a bug"):
        transport.call("GET", "/", None, 1)
