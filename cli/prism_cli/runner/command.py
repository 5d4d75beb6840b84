"""`prism runner`: the questions on a terminal, or their answers from flags; then the run, as of `prism run`.

Every flag is an answer that is typed as soon as its question comes, by the screen or without one, so both
ways check the same.
"""

import os
import re
import sys
from argparse import Namespace

from prism.messages import RunState
from prism_cli import connection as connections
from prism_cli import running
from prism_cli.board import RunView
from prism_cli.connection import Connection
from prism_cli.console import count, interactive, messages, printable, say, write_json, write_line
from prism_cli.exits import BAD_INPUT, INTERRUPTED, USAGE, CommandFailed
from prism_cli.job_spec import read_spec
from prism_cli.model_choice import EMBEDDED_MODEL
from prism_cli.runner import deliveries, projects, prompts, texts
from prism_cli.runner.choices import PROPOSED, Choices, Step, Wrong
from prism_cli.runner.deliveries import Delivery, Leavings
from prism_cli.runner.projects import Project
from prism_cli.runner.surroundings import Surroundings
from prism_cli.runner.wizard import Wizard
from prism_cli.watching import say_end

_PAIR = re.compile(r"[0-9]+\s*-\s*[0-9]+")


def run(options: Namespace) -> int:
    """Ask what is not said yet, write the job, run it, tell where its files are."""
    world = Surroundings(options, connections.environment())
    told = _told(options)
    asks = _can_ask(options)
    _assert_project(options)
    if not asks:
        _assert_complete(told)
    wizard = Wizard(world, Choices(copy=options.copy), told, confirm=asks and not options.yes)
    if asks and not (options.yes and not _missing(told)):
        if not _asked(wizard, world):
            say("nothing was started")
            return INTERRUPTED
    else:
        _answer(wizard, world)
    return _run(wizard, world, options)


# What flags say


def _told(options: Namespace) -> dict[Step, str]:
    """Return what the flags answer. Raises CommandFailed (2)."""
    if (
        options.rows is not None
        and options.rows.strip().lower() != "all"
        and not _PAIR.fullmatch(options.rows)
    ):
        what = f"--rows {printable(options.rows, 40)} is neither all nor a range"
        raise CommandFailed(USAGE, what, next="say 1-100 for the first hundred, 7-7 for row 7")
    model = options.model or (EMBEDDED_MODEL if options.model_server == "embedded" else None)
    found = {
        Step.PROJECT: options.project,
        Step.INPUT: options.input,
        Step.PROMPT: options.prompt,
        Step.MODEL: model,
        Step.BATCH_SIZE: options.batch_size,
        Step.ROWS: options.rows,
    }
    return {step: text for step, text in found.items() if text is not None}


def _can_ask(options: Namespace) -> bool:
    """Return whether somebody is there who can be asked."""
    return not options.json and sys.stdin.isatty() and interactive(messages())


def _assert_project(options: Namespace) -> None:
    """Raise CommandFailed (3) for a project that is not there and is not to be made."""
    name = options.project
    if name is None or (projects.FOLDER / name).is_dir() or options.create:
        return
    there = ", ".join(printable(one, 30) for one in projects.listed()[:5]) or "none"
    what = f"no project {printable(name, 60)} (there: {there})"
    raise CommandFailed(BAD_INPUT, what, f"{projects.FOLDER}/", "--create makes it")


def _missing(told: dict[Step, str]) -> list[Step]:
    """Return what neither flags nor the project's own files answer."""
    found: list[Step] = [step for step in Step if step is not Step.CONFIRM and step not in told]
    if Step.PROJECT in told:
        project = Project(told[Step.PROJECT])
        here = {
            Step.INPUT: (project.inputs / project.settings().input_filename).is_file(),
            Step.PROMPT: prompts.own(project) is not None,
        }
        found = [step for step in found if not here.get(step)]
    return found


def _assert_complete(told: dict[Step, str]) -> None:
    """Raise CommandFailed (2) if something is missing that nobody can be asked for."""
    missing = _missing(told)
    if not missing:
        return
    flags = ", ".join(one.flag for one in missing)
    also = f"; or --prompt {PROPOSED}" if missing == [Step.PROMPT] else ""
    what = f"{flags} missing, and there is no terminal to ask on"
    raise CommandFailed(USAGE, what, next=f"see prism runner --help{also}")


# Answering


def _answer(wizard: Wizard, world: Surroundings) -> None:
    """Answer every question from flags and the project's own files. Raises CommandFailed (3)."""
    while not wizard.done:
        step = wizard.step
        try:
            _answer_one(wizard, world, step)
        except Wrong as error:
            raise CommandFailed(BAD_INPUT, printable(str(error), 600), step.flag, "correct it") from None


def _answer_one(wizard: Wizard, world: Surroundings, step: Step) -> None:
    if step is Step.CONFIRM:
        wizard.start()
        return
    text = wizard.told.pop(step, None)
    if step is Step.INPUT:
        path = wizard.typed_table(text or str(world.usual_input(wizard.project)))
        seen = world.inspect(wizard.project, path)
        wizard.know_table(seen)
        for line in texts.trouble_texts(seen):
            say(f"prism: {printable(str(path))}: {line}")
        text = str(path)
    elif step is Step.PROMPT and text is None:
        text = str(prompts.own(wizard.project) or "")
    wizard.type(text or "")


def _asked(wizard: Wizard, world: Surroundings) -> bool:
    """Ask on the terminal; return whether a run is to be started."""
    # Textual takes a third of a second to import: nobody without a terminal should pay for it.
    from prism_cli.runner.screen import Runner

    app = Runner(wizard, world)
    started = app.run(mouse=False)
    if app.caught is not None:
        os.kill(os.getpid(), app.caught)
    if app.crash is not None:
        raise app.crash
    return bool(started)


# Running


def _run(wizard: Wizard, world: Surroundings, options: Namespace) -> int:
    project = wizard.project
    given = world.run_options(project, wizard.choices)
    left: list[tuple[Leavings, RunView]] = []

    def tell(connection: Connection, view: RunView, _: Namespace) -> int:
        left.append((Leavings.of(connection, view, project), view))
        return say_end(view)

    try:
        # The fleet may be gone after this: what it left is brought to its places then, and is whole.
        return running.run_spec(read_spec(project.job, given), given, tell)
    except KeyboardInterrupt:
        say(printable(f"its files will be in {project.outputs}/ and {project.logs}/"))
        raise
    finally:
        if left:
            _tell(project, *left[-1], options)


def _tell(project: Project, left: Leavings, view: RunView, options: Namespace) -> None:
    if view.state is RunState.REFUSED:
        found: list[Delivery] = []
    else:
        found = deliveries.deliver(project, left, project.settings().log_settings)
    if options.json:
        files = {one.name: one.path for one in found}
        write_json({**view.as_json(), "project": project.name, "job": str(project.job), "files": files})
        return
    for one in found:
        if one.name == deliveries.RESULTS and one.path is not None and not sys.stdout.isatty():
            write_line(one.path)
    for one in found:
        why = f" ({one.why})" if one.path and one.why else ""
        say(f"{one.name:<10} {printable(one.path or one.why)}{why}")
    say(f"{'again':<10} prism run {printable(str(project.job))}   ({count(view.rows_done)} rows)")
