"""The prompt files that a project can take: its own, those of this folder, or one that is proposed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism.annotation.prompt_file import PromptFile, PromptRefused
from prism_cli.console import printable
from prism_cli.job_spec import MAX_PROMPT_BYTES
from prism_cli.runner.choices import PromptPick, Wrong
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.projects import Project

_SHARED = (Path("config") / "prompts", Path("prompts"))
_DEFAULT = _SHARED[0] / "default_prompt.json"
_MOST = 200


@dataclass(frozen=True, slots=True)
class PromptView:
    """A prompt file as it is shown. problem: why it cannot be taken; own: it is the project's."""

    pick: PromptPick
    name: str
    columns: tuple[str, ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()
    instructions: str = ""
    problem: str = ""
    own: bool = False


def found(project: Project, inspection: Inspection | None) -> list[PromptView]:
    """Return what can be taken: the project's own first, a proposal last, or first where nothing is there."""
    views = [view(path, own=path.is_relative_to(project.folder)) for path in _paths(project)]
    proposed = proposal(inspection)
    if proposed is None:
        return views
    return [*views, proposed] if any(not one.problem for one in views) else [proposed, *views]


def own(project: Project) -> Path | None:
    """Return the project's own prompt file."""
    return next((path for path in _paths(project) if path.is_relative_to(project.folder)), None)


def _paths(project: Project) -> Iterator[Path]:
    seen: set[Path] = set()
    mine = [project.prompt, *_json_in(project.folder / "prompts"), *_json_in(project.folder / "config")]
    shared = [_DEFAULT, *(one for folder in _SHARED for one in _json_in(folder))]
    for path in (*mine, *shared):
        if path.is_file() and path not in seen and len(seen) < _MOST:
            seen.add(path)
            yield path


def _json_in(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.glob("*.json") if not one.name.startswith("."))
    except OSError:
        return []


def view(path: Path, own: bool = False) -> PromptView:
    """Return a prompt file as it is shown."""
    pick, name = PromptPick(path), printable(str(path))
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_PROMPT_BYTES + 1)
        if len(text) > MAX_PROMPT_BYTES:
            return PromptView(pick, name, problem=f"more than {MAX_PROMPT_BYTES} bytes", own=own)
        return _seen(pick, name, PromptFile.parse(text), own)
    except OSError as error:
        problem = (
            "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        return PromptView(pick, name, problem=problem, own=own)
    except PromptRefused as error:
        return PromptView(pick, name, problem=printable(str(error), 300), own=own)


def proposal(inspection: Inspection | None) -> PromptView | None:
    """Return the prompt that the table's own columns suggest."""
    if inspection is None or inspection.proposal is None:
        return None
    fields = dict(inspection.proposal.prompt)
    return _seen(
        PromptPick(None, fields), "a new one, proposed from the table", PromptFile.parse(fields), True
    )


def _seen(pick: PromptPick, name: str, file: PromptFile, own: bool) -> PromptView:
    labels = tuple(file.labels(column) or () for column in file.columns_to_code)
    return PromptView(pick, name, file.columns_to_code, labels, file.system_prompt, own=own)


def named(text: str) -> PromptPick:
    """Return the prompt file of a path that was typed. Raises Wrong."""
    if not text.strip():
        raise Wrong("type the path of a prompt file")
    found = view(Path(text.strip()).expanduser())
    if found.problem:
        raise Wrong(f"{found.name}: {found.problem}")
    return found.pick


def text_of(fields: dict[str, Any]) -> str:
    """Return a proposed prompt as a file's text. Raises PromptRefused."""
    text = json.dumps(fields, ensure_ascii=False, indent=2) + "\n"
    PromptFile.parse(text)
    return text
