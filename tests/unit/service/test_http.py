import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter

from prism.service.errors import FatalError
from prism.service.http import HealthServer
from prism.service.metrics import ServiceRegistry
from prism.service.readiness import Readiness


@pytest.fixture
def board() -> Readiness:
    return Readiness("broker")


@pytest.fixture
def server(board: Readiness) -> Iterator[HealthServer]:
    registry = ServiceRegistry("merger")
    Counter("prism_rows", "Rows.", registry=registry).inc(3)
    server = HealthServer(
        "127.0.0.1",
        0,
        status=lambda: {"model": "m", "status": "overwritten", "path": Path("/x")},
        readiness=board,
        registry=registry,
        ready_details=lambda: {"topic": "t"},
    )
    yield server
    server.close()


def request(server: HealthServer, path: str, method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), body


def body_of(server: HealthServer, path: str) -> tuple[int, Any]:
    status, headers, body = request(server, path)
    assert headers["Content-Type"] == "application/json"
    return status, json.loads(body)


def test_health_carries_the_status_of_the_service(server: HealthServer) -> None:
    assert body_of(server, "/health") == (200, {"status": "ok", "model": "m", "path": "/x"})


@pytest.mark.promise(10)
def test_ready_follows_the_board(server: HealthServer, board: Readiness) -> None:
    reason = {"status": "not_ready", "reason": "broker: starting", "topic": "t"}
    assert body_of(server, "/ready") == (503, reason)
    board.set("broker", True)
    assert body_of(server, "/ready") == (200, {"status": "ready", "topic": "t"})


def test_metrics_are_the_registry(server: HealthServer) -> None:
    status, headers, body = request(server, "/metrics")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert b"prism_rows_total 3.0" in body
    assert b"process_resident_memory_bytes" in body


def test_no_header_says_what_serves(server: HealthServer) -> None:
    for path in ("/health", "/nowhere"):
        headers = request(server, path)[1]
        assert "Server" not in headers
        assert not any(
            "waitress" in value.lower() or "werkzeug" in value.lower() for value in headers.values()
        )


def test_an_unknown_path_is_a_json_404(server: HealthServer) -> None:
    assert body_of(server, "/%0a<script>") == (404, {"error": "Not Found"})


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(server: HealthServer, method: str) -> None:
    status, headers, body = request(server, "/health", method)
    assert (status, headers["Allow"], json.loads(body)) == (405, "GET, HEAD", {"error": "Method Not Allowed"})


def test_a_status_that_fails_does_not_make_the_process_dead(board: Readiness) -> None:
    def broken() -> Mapping[str, object]:
        raise RuntimeError("no")

    server = HealthServer("127.0.0.1", 0, status=broken, readiness=board, registry=ServiceRegistry("merger"))
    assert body_of(server, "/health") == (200, {"status": "ok"})
    server.close()


def test_a_taken_port_is_fatal_and_says_so(server: HealthServer, board: Readiness) -> None:
    with pytest.raises(FatalError) as caught:
        HealthServer(
            "127.0.0.1", server.port, status=dict, readiness=board, registry=ServiceRegistry("merger")
        )
    assert str(caught.value).startswith(
        "cannot serve HTTP: Address already in use (PRISM_HTTP_HOST=127.0.0.1 PORT="
    )
    assert "\n" not in str(caught.value)


def test_a_host_name_that_is_not_one_is_fatal(board: Readiness) -> None:
    with pytest.raises(FatalError, match="cannot serve HTTP"):
        HealthServer(
            "no.such.host.invalid", 0, status=dict, readiness=board, registry=ServiceRegistry("merger")
        )


def test_close_gives_the_port_and_the_threads_back(board: Readiness) -> None:
    before = threading.active_count()
    server = HealthServer("127.0.0.1", 0, status=dict, readiness=board, registry=ServiceRegistry("merger"))
    assert request(server, "/health")[0] == 200
    server.close()
    server.close()
    socket.create_server(("127.0.0.1", server.port)).close()
    assert threading.active_count() == before
