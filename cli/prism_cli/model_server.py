"""The embedded model server as a child process."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from prism_cli.exits import MODEL_AWAY, CommandFailed
from prism_cli.probes import NoAnswer, get_json
from prism_cli.processes import ServiceChild

_START_S = 30.0
_LOOK_S = 0.05


def embedded_model_server(environ: Mapping[str, str], log: Path, folder: Path | None = None) -> ServiceChild:
    """Return the server, not yet started."""
    command = [sys.executable, "-P", "-m", "prism_embedded.model_server", "--port", "{port}"]
    return ServiceChild("model-server", "model-server", command, environ, log, folder)


def answers(server: ServiceChild) -> bool:
    """Return whether the server takes requests."""
    try:
        return get_json(f"{server.url}/api/version", 1.0)[0] == 200
    except NoAnswer:
        return False


def await_version(server: ServiceChild) -> None:
    """Wait until the server takes requests. Raises CommandFailed (5)."""
    deadline = time.monotonic() + _START_S
    while not answers(server):
        if time.monotonic() > deadline:
            raise CommandFailed(MODEL_AWAY, f"the embedded model server did not start: {server.last_words()}")
        time.sleep(_LOOK_S)
