"""`prism`: reads the command line, runs the command, turns every end into an exit code and one line."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prism_cli.arguments import MODULES, parser
from prism_cli.exits import BAD_INPUT, BROKER_AWAY, FAILED, INTERNAL, INTERRUPTED, CommandFailed

# What the extra `fleet` brings: an image has none of it.
_OF_A_FLEET = ("jgo", "aiohttp", "vaderSentiment")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Raises SystemExit for a wrong command line and for `--help`."""
    _open_what_is_closed()
    options = parser().parse_args(arguments)
    try:
        code = int(importlib.import_module(MODULES[options.command]).run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our stdout has gone, as `| head` does; the interpreter must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get("PRISM_DEBUG"):
            traceback.print_exc()
        return _failure(error)


def _open_what_is_closed() -> None:
    """Let a command work whose stdout or stderr was closed, as by `>&-`: what it says goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _failure(error: Exception) -> int:
    if isinstance(error, CommandFailed):
        _say(str(error))
        return error.code
    if isinstance(error, ModuleNotFoundError) and error.name in _OF_A_FLEET:
        _say(
            f"this would start a broker or a model server, which this installation cannot ({error.name} is "
            "missing); name those that run (BOOTSTRAP_SERVER, OLLAMA_HOST), or install prism-cli[fleet]"
        )
        return FAILED
    from prism.annotation.prompt_file import PromptRefused
    from prism.kafka.errors import BrokerAway, BrokerFatal
    from prism.runs.catalogue import CatalogueRefused
    from prism.runs.job import JobRefused
    from prism.runs.project_settings import SettingsRefused
    from prism_embedded.errors import EmbeddedError

    if isinstance(error, BrokerAway | BrokerFatal | EmbeddedError):
        _say(str(error))
        return BROKER_AWAY
    if isinstance(error, JobRefused | PromptRefused | CatalogueRefused | SettingsRefused):
        _say(str(error))
        return BAD_INPUT
    _say(
        f"internal error: {type(error).__name__}: {error} at {_place(error)}; "
        "run with PRISM_DEBUG=1 for details"
    )
    return INTERNAL


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}"
        if frames
        else "an unknown place"
    )


def _say(text: str) -> None:
    one_line = " ".join(text.split())
    with suppress(OSError):
        sys.stderr.write(f"prism: {''.join(one if one.isprintable() else '·' for one in one_line)}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
