"""`prism init`: a job file and a prompt file for a table, from the table's own columns.

Both are checked as a run checks them before the first is written. Each appears whole, under a name that was
free, unless --force says that what is there may go.
"""

import json
import os
import shlex
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prism.annotation.prompt_file import PromptFile
from prism.runs.job import MAX_JOB_BYTES, read_job_text
from prism.runs.job_text import render_job
from prism.runs.naming import clean_label
from prism.tables import TableRefused
from prism_cli.console import count, output, printable, say, table, write_json
from prism_cli.exits import BAD_INPUT, DONE, CommandFailed
from prism_cli.peek import Sample, peek
from prism_cli.proposal import Proposal, Wishes, project_name, propose, said_delimiter
from prism_merger.volume import NameTaken, claim, replace_file, write_temporary

JOB_FILE = "job_config.yaml"


@dataclass(frozen=True, slots=True)
class Written:
    """What was looked at, what was proposed, and where it was written."""

    source: Path
    sample: Sample
    proposal: Proposal
    job: Path
    prompt: Path

    def as_json(self) -> dict[str, object]:
        """Return what `--json` prints."""
        sample, found = self.sample, self.proposal
        return {
            "job": str(self.job),
            "prompt": str(self.prompt),
            "project": found.project,
            "input": str(self.source),
            "format": sample.kind,
            "delimiter": sample.delimiter if sample.kind in ("csv", "tsv") else None,
            "columns": list(sample.columns),
            "rows_seen": len(sample.rows) + sample.left_out,
            "whole": sample.whole,
            "message": found.message,
            "row_id": found.row_id,
            "title": found.title,
            "sentiment": found.sentiment,
            "image_column": found.image,
            "columns_to_code": found.prompt["columns_to_code"],
            "labels": {name: list(labels) for name, labels in found.labels.items()},
            "notes": list(found.notes),
            "next": _command(self.job),
        }


def run(options: Namespace) -> int:
    """Look at a table, write a job and a prompt file for it, tell what was found and what comes next."""
    sample = _look(options.file)
    folder = options.output or Path()
    proposal = propose(sample, _wishes(options, folder))
    written = Written(
        options.file, sample, proposal, folder / JOB_FILE, folder / proposal.job["prompts"]["config_file"]
    )
    # The job comes last: it names the other.
    files = {written.prompt: _prompt_text(proposal), written.job: _job_text(options.file, proposal)}
    _write(files, options.force)
    if options.json:
        write_json(written.as_json())
    else:
        _tell(written)
    return DONE


def _look(path: Path) -> Sample:
    try:
        return peek(path)
    except TableRefused as error:
        raise CommandFailed(BAD_INPUT, printable(str(error)), printable(str(path))) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise CommandFailed(BAD_INPUT, what, printable(str(path)), "check its rights") from None


def _wishes(options: Namespace, folder: Path) -> Wishes:
    path = _from(options.file, folder)
    try:
        path.encode()
    except UnicodeEncodeError:
        where = printable(path.encode(errors="replace").decode())
        raise CommandFailed(BAD_INPUT, "the file's name is not UTF-8", where, "rename it") from None
    stem = options.file.name.removesuffix(options.file.suffix)
    return Wishes(
        project=options.project or project_name(stem),
        path=path,
        label=clean_label(stem),
        model=options.model,
        columns=tuple(options.columns or ()),
    )


def _from(path: Path, folder: Path) -> str:
    """Return a path as a job file in a folder says it: relative, so that both can be moved together."""
    return os.path.relpath(path.resolve(), folder.resolve())


def _job_text(source: Path, proposal: Proposal) -> str:
    heading = (
        f"Made by `prism init` for {printable(source.name, 80)}. What is commented out is the default, or an",
        "example. docs/jobs.md has every key.",
    )
    text = render_job(proposal.job, heading)
    if len(text.encode()) > MAX_JOB_BYTES:
        what = "the names of its columns are too long for a job file"
        raise CommandFailed(BAD_INPUT, what, printable(str(source)), "shorten them")
    read_job_text(text, JOB_FILE)
    return text


def _prompt_text(proposal: Proposal) -> str:
    entries = (f"  {_json(key)}: {_entry(value)}" for key, value in proposal.prompt.items())
    text = "{\n" + ",\n".join(entries) + "\n}\n"
    PromptFile.parse(text)
    return text


def _entry(value: object) -> str:
    """Return a value of the prompt file as people write it: a list in one line, a mapping in several."""
    if not isinstance(value, dict) or not value:
        return _json(value)
    inner = (f"    {_json(key)}: {_json(one)}" for key, one in value.items())
    return "{\n" + ",\n".join(inner) + "\n  }"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write(files: Mapping[Path, str], force: bool) -> None:
    """Write all files, or none if one of the names is taken. Raises CommandFailed (3)."""
    there = [path for path in files if os.path.lexists(path)]
    if there and not force:
        raise _taken(*there)
    for path, text in files.items():
        try:
            _write_one(path, text.encode(), force)
        except NameTaken:
            raise _taken(path) from None
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise CommandFailed(BAD_INPUT, what, printable(str(path)), "choose another --output") from None


def _write_one(path: Path, content: bytes, force: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if force:
        replace_file(path, [content])
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write_temporary(temporary, [content])
    try:
        claim(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _taken(*paths: Path) -> CommandFailed:
    return CommandFailed(
        BAD_INPUT,
        "there already, so nothing was written",
        printable(", ".join(map(str, paths))),
        "--force replaces it, --output DIR writes elsewhere",
    )


def _tell(written: Written) -> None:
    sample, found = written.sample, written.proposal
    rows = count(len(sample.rows) + sample.left_out)
    seen = f"{rows} rows" if sample.whole else f"the first {rows} rows"
    say(printable(f"{written.source}: {said_delimiter(sample)}; {len(sample.columns)} columns, {seen} seen"))
    output().print(table([("", "left"), ("found", "fold"), ("", "fold")], _found(found, sample.whole)))
    for note in found.notes:
        say(f"note: {printable(note, 300)}")
    say(f"wrote {printable(str(written.job))} and {printable(str(written.prompt))}")
    say("edit:  the instructions and the labels in the prompt file; the model in the job file")
    command = printable(_command(written.job))
    say(f"next:  {command} --dry-run   (what it takes), then  {command}")


def _found(found: Proposal, whole: bool) -> list[tuple[str, str, str]]:
    key = "its values name the rows" if whole else "its first values differ; all must"
    rows = [
        ("message", found.message, "what the model reads"),
        ("row id", found.row_id or "none", key if found.row_id else "rows are numbered"),
        ("title", found.title, "shown with the message"),
        ("sentiment", found.sentiment, "a guess, validated by the model"),
        ("photo", found.image, "image_column of the prompt file"),
    ]
    coded = found.prompt["columns_to_code"]
    labels = [(f"→ {name}", ", ".join(found.labels.get(name, ())) or "free text", "") for name in coded]
    told = [(what, printable(name, 60), why) for what, name, why in rows if name is not None]
    return told + [(printable(name, 40), printable(text, 200), why) for name, text, why in labels]


def _command(job: Path) -> str:
    return f"prism run {shlex.quote(str(job))}"
