"""`/health`, `/ready` and `/metrics` of a service: Flask on waitress, in daemon threads."""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from flask import Blueprint, Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from waitress import wasyncore
from waitress.server import create_server
from werkzeug.exceptions import HTTPException

from prism.service.errors import FatalError
from prism.service.logs import get_logger
from prism.service.metrics import ServiceRegistry
from prism.service.readiness import Readiness

Details = Callable[[], Mapping[str, object]]

# Probes and one scraper: two threads answer while one of them is slow. A request has no body.
_THREADS = 2
_MAX_REQUEST_BYTES = 16 * 1024
_CLOSE_S = 2.0
# A client that has stopped reading is cut off by the kernel: the server's own look does not see it.
_STUCK_MS = 60_000
# Above it a thread waits for its client. What is sent is a file, which the server's loop reads as it goes.
_NEVER_WAIT_BYTES = 1 << 62

log = get_logger(__name__)


class HealthServer:
    """The HTTP port of a service, serving from construction until `close`.

    `status` and `ready_details` are added to the answers of `/health` and `/ready`; `pages` are a service's
    own. Port 0 takes a free port; `port` is the real one. Raises FatalError when the port cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        status: Details,
        readiness: Readiness,
        registry: ServiceRegistry,
        ready_details: Details = dict,
        pages: Blueprint | None = None,
    ) -> None:
        listener = _bind(host, port)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux, where connections have it from their listener
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_MS)
        self.port: int = listener.getsockname()[1]
        registry.show_ready(lambda: readiness.reason() is None)
        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            _application(status, readiness, registry, ready_details, pages),
            map=self._sockets,
            sockets=[listener],
            threads=_THREADS,
            ident="",
            max_request_header_size=_MAX_REQUEST_BYTES,
            max_request_body_size=_MAX_REQUEST_BYTES,
            outbuf_high_watermark=_NEVER_WAIT_BYTES,
            log_socket_errors=False,  # a client that has gone is no event
        )
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()
        log.info("http_listening", host=host, port=self.port)

    def close(self) -> None:
        """Stop serving and give the port back. Calling it again does nothing."""
        if self._thread.is_alive():
            # The loop's own thread closes its sockets: from another one it would select on closed ones.
            with suppress(OSError):  # the loop was awake, and has closed them before it was called
                self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets))
            self._thread.join(_CLOSE_S)
            self._server.task_dispatcher.shutdown(timeout=_CLOSE_S)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        # The standard library adds the address, which `where` says better.
        what = (error.strerror or str(error)).partition(" (while")[0]
        raise FatalError(
            f"cannot serve HTTP: {what}",
            f"PRISM_HTTP_HOST={host} PORT={port}",
            "stop what uses the port, or set PORT to another one (0 takes a free one)",
        ) from error


def _application(
    status: Details,
    readiness: Readiness,
    registry: ServiceRegistry,
    ready_details: Details,
    pages: Blueprint | None,
) -> Flask:
    app = Flask("prism", static_folder=None)
    if pages is not None:
        app.register_blueprint(pages)

    @app.get("/health", provide_automatic_options=False)
    def health() -> Response:
        return json_response({**_details("health", status), "status": "ok"})

    @app.get("/ready", provide_automatic_options=False)
    def ready() -> Response:
        details = _details("ready", ready_details)
        reason = readiness.reason()
        if reason is None:
            return json_response({**details, "status": "ready"})
        return json_response({**details, "status": "not_ready", "reason": reason}, 503)

    @app.get("/metrics", provide_automatic_options=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    app.register_error_handler(HTTPException, _refuse)
    app.register_error_handler(Exception, _fail)
    app.after_request(_do_not_store)
    return app


def _details(page: str, details: Details) -> dict[str, object]:
    """Return what the service adds to a page; that it cannot say it does not make the process dead."""
    try:
        return dict(details())
    except Exception as error:
        log.error("http_details_failed", page=page, error=error)
        return {}


def _refuse(error: HTTPException) -> Response:
    response = json_response({"error": error.name}, error.code or 500)
    if response.status_code == 405:
        response.headers["Allow"] = "GET, HEAD"
    return response


def _fail(error: Exception) -> Response:
    log.error("http_failed", error=error)
    return json_response({"error": "Internal Server Error"}, 500)


def json_response(body: Mapping[str, object], status: int = 200) -> Response:
    """Return a page that is a JSON object."""
    return Response(json.dumps(body, default=str), status, content_type="application/json")


def _do_not_store(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
