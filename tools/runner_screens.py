"""Write docs/screens/runner-*.svg: `prism runner` from first to last step, captured from tmux.

`make screens` runs it too (it needs tmux). The models are those of an embedded model server in this process,
under names that people know; what answers is not shown as more than it is: the run's own embedded fleet.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from prism_embedded.model_server import EmbeddedModelServer
from tools.screens import ROOT, SIZES, TARGET, Screen, await_all, terminal

_EXAMPLE = ROOT / "examples" / "feedback"
_MODELS = {
    "available_models": [
        {"id": 1, "name": "llama3.2", "description": "Meta Llama 3.2 - Fast, general purpose"},
        {"id": 2, "name": "mistral", "description": "Mistral 7B - Good for classification"},
    ]
}
# As people send them: a cell too many, nothing said.
_BAD_ROWS = '\n900,"Late, again",one,cell,too,many,here,and,here\n901,,,\n'


def main() -> None:
    """Take the pictures."""
    if shutil.which("tmux") is None:
        sys.exit("tmux is not installed: apt-get install tmux")
    TARGET.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedModelServer(models=["llama3.2"]))
        for width, height in SIZES:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
            furnish(folder)
            screen = stack.enter_context(terminal(folder, width, height))
            screen.type(f"export OLLAMA_HOST={server.url}; clear; prism runner", "Enter")
            go_through(screen)


def furnish(folder: Path) -> None:
    """Put into a folder what somebody may have in it."""
    (folder / "config" / "prompts").mkdir(parents=True)
    (folder / "config" / "models.json").write_text(json.dumps(_MODELS))
    shutil.copy(_EXAMPLE / "feedback_prompt.json", folder / "config" / "prompts" / "default_prompt.json")
    inputs = folder / "projects" / "customer_feedback" / "data" / "inputs"
    inputs.mkdir(parents=True)
    text = (_EXAMPLE / "feedback.csv").read_text().rstrip("\n")
    (inputs / "input.csv").write_text(text + _BAD_ROWS)
    (folder / "projects" / "spring_survey").mkdir()


def go_through(screen: Screen) -> None:
    """Answer every question, with a picture of each."""
    take(screen, "project", lambda text: "Which project" in text)
    screen.type("Enter")
    take(screen, "input", lambda text: "502 rows" in text and "line" in text)
    screen.type("Enter")
    take(screen, "prompt", lambda text: "what it asks" in text)
    screen.type("Enter")
    take(screen, "model", lambda text: "❯ llama3.2" in text)
    screen.type("Enter")
    take(screen, "batch-size", lambda text: "❯   5" in text)
    screen.type("Enter")
    await_all([screen], "rows", lambda text: "Which rows?" in text)
    screen.type("Down", "Down", "End", "Enter", "101-300")
    take(screen, "rows", lambda text: "rows 101 to 300: 200 of 502" in text)
    screen.type("Enter")
    take(screen, "start", lambda text: "failed rows" in text)
    screen.type("q", "y")
    await_all([screen], "left", lambda text: "nothing was started" in text)


def take(screen: Screen, name: str, ready: Callable[[str], bool]) -> None:
    """Wait until the screen is as it should be, then write its picture."""
    await_all([screen], name, ready)
    path = TARGET / f"runner-{name}-{screen.width}x{screen.height}.svg"
    screen.save(path, "prism runner")
    sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
