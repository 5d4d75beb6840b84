"""Every end of a command is an exit code and one line, never a traceback."""

import subprocess
import sys
from argparse import Namespace
from types import ModuleType

import pytest

from prism.annotation.prompt_file import PromptRefused
from prism.kafka.errors import BrokerAway
from prism.runs.catalogue import CatalogueRefused
from prism.runs.job import JobRefused
from prism.runs.project_settings import SettingsRefused
from prism_cli import arguments
from prism_cli.__main__ import main
from prism_cli.exits import CommandFailed
from prism_embedded.errors import EmbeddedError

ENDS = [
    (CommandFailed(5, "no model", "there", "pull it"), 5, "prism: no model (there); pull it"),
    (BrokerAway("no broker"), 4, "prism: no broker"),
    (EmbeddedError("port taken"), 4, "prism: port taken"),
    (JobRefused("feedback.yaml: bad"), 3, "prism: feedback.yaml: bad"),
    (PromptRefused("prompt file: bad"), 3, "prism: prompt file: bad"),
    (CatalogueRefused("models.json: bad"), 3, "prism: models.json: bad"),
    (SettingsRefused("settings.json: bad"), 3, "prism: settings.json: bad"),
    (KeyboardInterrupt(), 130, "prism: interrupted"),
    (
        ModuleNotFoundError("none", name="aiohttp"),
        1,
        "prism: this would start a broker or a model server, which this installation cannot (aiohttp is "
        "missing); name those that run (BOOTSTRAP_SERVER, OLLAMA_HOST), or install prism-cli[fleet]",
    ),
    (CommandFailed(3, "a\nb\x1b[31m\u202ec"), 3, "prism: a b·[31m·c"),
]


@pytest.mark.parametrize(("error", "code", "line"), ENDS)
def test_an_error_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _command_that_raises(error, monkeypatch)
    assert main(["status"]) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_a_bug_names_its_place_and_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRISM_DEBUG", raising=False)
    _command_that_raises(TypeError("odd"), monkeypatch)
    assert main(["status"]) == 70
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("prism: internal error: TypeError: odd at cli/test_main.py:")
    assert "PRISM_DEBUG=1" in told


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRISM_DEBUG", "1")
    _command_that_raises(TypeError("odd"), monkeypatch)
    assert main(["status"]) == 70
    assert "Traceback" in capsys.readouterr().err


def _command_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_command_that_raises")

    def run(options: Namespace) -> int:
        raise error

    module.__dict__["run"] = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(arguments.MODULES, "status", module.__name__)


def test_closed_outputs_stop_no_command() -> None:
    """As in a shell by `>&- 2>&-`."""
    script = f"exec {sys.executable} -m prism_cli summary no-such-run >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], check=False, timeout=60).returncode == 3
    script = f"exec {sys.executable} -m prism_cli models --model-server embedded >&-"
    done = subprocess.run(["sh", "-c", script], check=False, timeout=60, stderr=subprocess.PIPE, text=True)
    assert "internal error" not in done.stderr
