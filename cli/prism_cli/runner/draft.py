"""The job file that the choices make: written into the project, so that `prism run` can repeat the run."""

import os
from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from prism.runs.job import read_job_text
from prism.runs.job_text import render_job
from prism.tables import file_digest
from prism_cli.console import printable
from prism_cli.exits import BAD_INPUT, CommandFailed
from prism_cli.job_spec import JobSpec, spec_of
from prism_cli.runner.choices import Choices
from prism_cli.runner.inspection import Inspection
from prism_cli.runner.projects import Project
from prism_cli.runner.prompts import text_of
from prism_merger.volume import NameTaken, claim, replace_file, write_temporary

_COPY_BYTES = 1 << 20


def fields(project: Project, choices: Choices, inspection: Inspection) -> dict[str, Any]:
    """Return the job that the choices make."""
    assert choices.rows is not None
    assert choices.model is not None
    job: dict[str, Any] = {
        "project": {"name": project.id, "version": project.settings().interactive_version},
        "model": {"name": choices.model.name, "batch_size": choices.batch_size},
        "input_queue": [{"path": _from(project, input_of(project, choices)), "label": choices.rows.label}],
        "output": {
            "directory": project.outputs.as_posix(),
            "naming_pattern": "{run_id}_{label}",
            "checkpoints": {"directory": (project.folder / "checkpoints").as_posix()},
        },
        "prompts": {"config_file": _from(project, prompt_of(project, choices))},
        "monitoring": {
            "status_dir": (project.folder / "status").as_posix(),
            "logs_dir": project.logs.as_posix(),
        },
        "table": inspection.table,
    }
    if not choices.rows.all:
        taken = [{"start": choices.rows.first, "end": choices.rows.last}]
        job["parallelization"] = {"split_strategy": "manual", "manual_ranges": taken}
    return job


def input_of(project: Project, choices: Choices) -> Path:
    """Return where the input will lie: as chosen, or its copy in the project."""
    assert choices.input is not None
    if not choices.copy or choices.input.resolve().is_relative_to(project.inputs.resolve()):
        return choices.input
    usual = project.inputs / project.settings().input_filename
    free = not os.path.lexists(usual) and usual.suffix.lower() == choices.input.suffix.lower()
    return usual if free else project.inputs / choices.input.name


def prompt_of(project: Project, choices: Choices) -> Path:
    """Return where the prompt file will lie."""
    assert choices.prompt is not None
    if choices.prompt.path is not None:
        return choices.prompt.path
    names = (project.prompt, *(project.folder / f"prompt_{number}.json" for number in range(2, 1000)))
    return next(
        path for path in names if not os.path.lexists(path) or _is_same(path, choices.prompt.proposed)
    )


def _is_same(path: Path, proposed: dict[str, Any] | None) -> bool:
    try:
        return proposed is not None and path.read_bytes() == text_of(proposed).encode()
    except OSError:
        return False


def spec(project: Project, choices: Choices, inspection: Inspection, options: Namespace) -> JobSpec:
    """Return the job as a run takes it, before anything is written. Raises CommandFailed (3), JobRefused."""
    assert choices.prompt is not None
    assert choices.input is not None
    made = _as_text(fields(project, choices, inspection))
    # The copy is not there yet; what it will be is.
    made["input_queue"][0]["path"] = _from(project, choices.input)
    return spec_of(project.job, made, options, choices.prompt.proposed)


def _as_text(value: Any) -> Any:
    """Return a job's values as its file gives them: every scalar is text."""
    if isinstance(value, dict):
        return {key: _as_text(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return str(value)


def write(project: Project, choices: Choices, inspection: Inspection, now: datetime) -> Path:
    """Write prompt and job into the project, and the copy of the input; return the job's path.

    The job comes last: it names the others. Raises CommandFailed (3) for what cannot be written.
    """
    assert choices.prompt is not None
    assert choices.input is not None
    assert choices.rows is not None
    job = fields(project, choices, inspection)
    heading = (
        f"Made by `prism runner` on {now:%Y-%m-%d %H:%M}, from the folder that has {project.folder.parent}/.",
        f"Again: prism run {project.job.as_posix()}",
        f"The label tells the rows: {choices.rows.label}. Commented out: the default, or an example.",
    )
    try:
        text = render_job(job, heading)
        read_job_text(text, project.job.name)
        _copy(choices.input, input_of(project, choices))
        if choices.prompt.proposed is not None:
            replace_file(prompt_of(project, choices), [text_of(choices.prompt.proposed).encode()])
        replace_file(project.job, [text.encode()])
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise CommandFailed(BAD_INPUT, what, printable(str(error.filename or project.folder))) from None
    return project.job


def _copy(source: Path, target: Path) -> None:
    """Copy a file; what is there under that name already must be the same."""
    if source.resolve() == target.resolve():
        return
    if os.path.lexists(target):
        if target.is_file() and file_digest(target) == file_digest(source):
            return
        raise _taken(target)
    temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
    try:
        write_temporary(temporary, _blocks(source))
        claim(temporary, target)
    except NameTaken:
        raise _taken(target) from None
    finally:
        temporary.unlink(missing_ok=True)


def _taken(target: Path) -> CommandFailed:
    what, next = "another file has this name", "rename one of them, or use the file where it lies"
    return CommandFailed(BAD_INPUT, what, printable(str(target)), next)


def _blocks(source: Path) -> Iterator[bytes]:
    with source.open("rb") as stream:
        while block := stream.read(_COPY_BYTES):
            yield block


def _from(project: Project, path: Path) -> str:
    """Return a path as the job file says it: relative to its own folder, so that all can be moved at once.

    What lies elsewhere on the disk is not moved with it.
    """
    found = path.resolve()
    if not found.is_relative_to(Path.cwd().resolve()):
        return str(found)
    return os.path.relpath(found, project.folder.resolve())
