"""The real Ollama with its tiny random-weight model, for the tests of one module.

    from tests.integration.ollama import Ollama, ollama_server  # noqa: F401

    def test_it(ollama: Ollama) -> None: ...

It is found by PRISM_TEST_OLLAMA_BIN, then ../shared/tools/ollama, then on PATH; the model lies beside
the binary or in ../shared/tools. Without them tests are skipped, in CI they fail.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

TOOLS = Path(__file__).parents[3] / "shared" / "tools"
CONTEXT_TOKENS = 16_384
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Ollama:
    """A running server: `url` like http://127.0.0.1:41234, and the name of its one model."""

    url: str
    model: str
    pid: int


@pytest.fixture(scope="module", name="ollama")
def ollama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    with serve(tmp_path_factory.mktemp("ollama")) as server:
        yield server


@contextmanager
def serve(folder: Path, parallel: int = 1) -> Iterator[Ollama]:
    """Run a server whose models, keys and log lie in `folder`; skip the test where there is no Ollama."""
    binary = _binary()
    environment = os.environ | {
        "HOME": str(folder),
        "OLLAMA_HOST": f"127.0.0.1:{_free_port()}",
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NUM_PARALLEL": str(parallel),
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_CONTEXT_LENGTH": str(CONTEXT_TOKENS),
    }
    with (folder / "ollama.log").open("wb") as log:
        process = subprocess.Popen([binary, "serve"], env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://{environment['OLLAMA_HOST']}"
    try:
        _wait_until_it_answers(url, process, folder / "ollama.log")
        create = [str(binary), "create", "tiny", "-f", "Modelfile"]
        subprocess.run(
            create, cwd=_model_folder(binary), env=environment, check=True, capture_output=True, timeout=120
        )
        yield Ollama(url, "tiny", process.pid)
    finally:
        _stop(process)


def _binary() -> Path:
    named = os.environ.get("PRISM_TEST_OLLAMA_BIN")
    candidates = [named, str(TOOLS / "ollama"), shutil.which("ollama")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK) and _model_folder(Path(candidate)).is_dir():
            return Path(candidate)
    message = f"no ollama with tiny.gguf: not in PRISM_TEST_OLLAMA_BIN ({named}), {TOOLS} or PATH"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _model_folder(binary: Path) -> Path:
    beside = binary.resolve().parent
    return beside if (beside / "tiny.gguf").is_file() else TOOLS


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            requests.get(f"{url}/api/version", timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.05)  # it has no event to await
        else:
            return
    pytest.fail(f"ollama did not start: {log.read_text(errors='replace')[-500:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
