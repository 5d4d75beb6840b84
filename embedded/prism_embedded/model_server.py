"""The embedded model server: Ollama's HTTP API, answered by rules (see `answers`). A command and a class."""

import argparse
import asyncio
import http.client
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import TracebackType
from typing import IO, Self

from aiohttp import web

from prism_embedded import child
from prism_embedded.errors import EmbeddedError
from prism_embedded.loopback import HOST, becomes_free, free_port
from prism_embedded.model_app import MODEL, ModelApp
from prism_embedded.model_state import Behaviour

_POLL_S = 0.02
_HELP = {
    "latency_ms": "of each call",
    "jitter_ms": "up to so much more, drawn from seed and content",
    "latency_per_row_ms": "so much more per row",
    "slots": "calls served at once (default: no limit)",
    "queue": "calls that may wait for a slot, others get 503 (default: 512)",
    "faults": "e.g. http_500=0.05,hang=0.01,text:MARKER=http_500",
    "seed": "of faults and jitter",
    "down": "close every connection without an answer",
    "count_rows": "count in /prism/stats how often each row is asked about",
}


class ModelServerError(EmbeddedError):
    """The embedded model server cannot start."""


class EmbeddedModelServer:
    """The server as a child process that dies with this one; for one thread at a time.

    :param behaviour: its settings; `POST /prism/control` changes them later.
    :param port: on the loopback; None: a free one, kept over restarts of this object.
    :param models: names it answers for, besides `prism-embedded`.
    :param clock: seconds, monotonic; decides about timeouts.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        port: int | None = None,
        models: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._behaviour = behaviour or Behaviour()
        self._port = port
        self._models = models
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, known from the first start on."""
        if self._port is None:
            raise ModelServerError("the model server was never started; call start() first")
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its process id; None before the first start."""
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = 30.0) -> None:
        """Start and wait until it answers; nothing to do if it runs.

        :raises ModelServerError: it cannot start, or does not answer in time; nothing is left running.
        """
        if self.alive():
            return
        port = self._port = self._port or free_port()
        if not becomes_free(port, 1.0):
            raise ModelServerError(f"port {port} of {HOST} is taken by another program; choose another port")
        with tempfile.TemporaryFile() as output:
            self._process = child.spawn(self._command(port), output)
            try:
                self._await_answer(port, timeout_s, output)
            except BaseException:
                self.kill()
                raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """SIGTERM, by SIGKILL after `timeout_s` seconds; nothing to do if it is down."""
        if self._process is not None:
            child.stop(self._process, timeout_s)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self, port: int) -> list[str]:
        command = [sys.executable, "-P", "-m", "prism_embedded.model_server", "--port", str(port)]
        for model in self._models:
            command += ["--model", model]
        for setting in fields(self._behaviour):
            value = getattr(self._behaviour, setting.name)
            if value != setting.default:
                option = _option(setting.name)
                command += [option] if value is True else [f"{option}={value}"]
        return command

    def _await_answer(self, port: int, timeout_s: float, output: IO[bytes]) -> None:
        deadline = self._clock() + timeout_s
        while not _answers(port):
            if not self.alive() or self._clock() > deadline:
                output.seek(0)
                said = output.read().decode("utf-8", "replace").strip().splitlines()
                what = "did not answer in time" if self.alive() else "died at its start"
                raise ModelServerError(f"the embedded model server {what}: {said[-1] if said else 'no word'}")
            time.sleep(_POLL_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/prism/stats")  # answers even when the server plays "down"
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """`prism-embedded-model-server`: the server in the foreground; SIGTERM and Ctrl-C end it with 0."""
    options = _parser().parse_args(arguments)
    settings = {setting.name: getattr(options, setting.name) for setting in fields(Behaviour)}
    try:
        app = ModelApp(Behaviour(**settings), [MODEL, *options.model])
        return asyncio.run(_serve(app, options.host, options.port))
    except (EmbeddedError, OSError) as error:
        sys.stderr.write(f"prism-embedded-model-server: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prism-embedded-model-server",
        description="Speaks Ollama's HTTP API and answers by rules. Prints `ready URL` on stdout.",
    )
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default: {HOST})")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--model", action="append", default=[], help=f"one more name besides {MODEL}")
    for setting in fields(Behaviour):
        option, text = _option(setting.name), _HELP[setting.name]
        if isinstance(setting.default, bool):
            parser.add_argument(option, action="store_true", help=text)
        else:
            parser.add_argument(option, type=type(setting.default), default=setting.default, help=text)
    return parser


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


async def _serve(app: ModelApp, host: str, port: int) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    # A client that goes away cancels its handler, so hanging and queued calls free their slots.
    runner = web.AppRunner(app.application(), access_log=None, handler_cancellation=True)
    await runner.setup()
    port = port or free_port()
    await web.TCPSite(runner, host, port, backlog=1024).start()
    sys.stdout.write(f"ready http://{host}:{port}\n")
    sys.stdout.flush()
    await ended.wait()
    return 0  # no clean-up: a call that hangs on purpose must not delay the end


if __name__ == "__main__":
    sys.exit(main())
