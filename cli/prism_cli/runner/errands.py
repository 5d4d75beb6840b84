"""What takes time, beside the screen: a table is checked, servers are asked, a sample is asked.

Each runs in a thread of its own and hands what it found to the screen's thread, which alone changes wizard
and errands. What nobody waits for any more ends, or is dropped by the wizard, which knows what it is for.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from prism.annotation.prompt_file import PromptRefused
from prism.runs.catalogue import CatalogueRefused
from prism.runs.job import JobRefused
from prism.runs.project_settings import SettingsRefused
from prism_cli.console import printable
from prism_cli.exits import CommandFailed
from prism_cli.runner.choices import Choices, Step, Wrong
from prism_cli.runner.outlook import Skipped
from prism_cli.runner.wizard import Wizard, World

# What files, servers and people do wrong: it is told in a line, and nothing else comes of it.
REFUSED = (Wrong, CommandFailed, PromptRefused, CatalogueRefused, JobRefused, SettingsRefused)


class Front(Protocol):
    """The screen, as those see it who come back. `post` is for any thread, the others for its own."""

    def post(self, take: Callable[[], None]) -> None: ...
    def arrive(self) -> None: ...
    def renew(self) -> None: ...
    def draw(self) -> None: ...
    def draw_preview(self) -> None: ...
    def say(self, text: str, bad: bool = False) -> None: ...


class Errands:
    """What is under way: `checking` a table; `sampling` for these choices, and what is told of it."""

    def __init__(self, front: Front, wizard: Wizard, world: World) -> None:
        self.checking: Path | None = None
        self.sampling: Choices | None = None
        self.sample_told = ""
        self._front = front
        self._wizard = wizard
        self._world = world
        # What is done as soon as a table was looked at.
        self._then: Callable[[], None] | None = None
        self._asking_models = False
        # Checks read whole files, and look after each other's threads: never two beside one another.
        self._one_at_a_time = threading.Lock()

    # A table

    def check(self, path: Path, then: Callable[[], None] | None) -> None:
        """Look at a table, and at no other before it; then do what is said, if nobody asked for another."""
        self.checking, self._then = path, then
        if then is not None:
            self._front.say("checking every row …")
        self._front.draw_preview()
        project = self._wizard.project

        def look() -> None:
            with self._one_at_a_time:
                if path != self.checking:
                    return
                seen = self._world.inspect(project, path)
            self._front.post(lambda: self._checked(path, lambda: self._wizard.know_table(seen)))

        self._in_thread(look)

    def _checked(self, path: Path, know: Callable[[], None]) -> None:
        know()
        if path != self.checking:
            return
        then, self.checking, self._then = self._then, None, None
        if then is not None:
            self._front.say("")
            then()
        if self._wizard.step is Step.INPUT and not self._wizard.done:
            self._front.renew()

    # The servers

    def ask_models(self) -> None:
        """Ask the servers what they have, unless they are being asked."""
        if self._asking_models:
            return
        self._asking_models = True
        self._front.say("asking the servers …")
        project = self._wizard.project

        def ask() -> None:
            try:
                found = self._world.models(project)
            except REFUSED as error:
                why = told(error)
                self._front.post(lambda: self._models_failed(why))
                return
            self._front.post(lambda: self._models_found(lambda: self._wizard.know_models(found)))

        self._in_thread(ask)

    def _models_found(self, know: Callable[[], None]) -> None:
        know()
        self._asking_models = False
        if self._wizard.step is Step.MODEL:
            self._front.arrive()

    def _models_failed(self, why: str) -> None:
        self._asking_models = False
        if self._wizard.step is Step.MODEL:
            self._front.say(why, bad=True)

    # A sample

    def toggle_sample(self) -> None:
        """Ask a sample, or wait for it no longer."""
        if self.sampling is not None:
            self.skip()
            self.sample_told = "the sample was skipped"
            self._front.draw()
        else:
            self.begin_sample(of_itself=False)

    def begin_sample(self, of_itself: bool) -> None:
        """Ask a sample for what is chosen now. of_itself: nobody has said so; then not for money."""
        wizard = self._wizard
        if wizard.is_foretold or self.sampling is not None or wizard.seen is None:
            return
        if of_itself and wizard.is_priced:
            self.sample_told = "press s to ask a small sample; it costs what its calls cost"
            self._front.draw()
            return
        choices, project, seen = wizard.choices, wizard.project, wizard.seen
        self.sampling = choices
        self.sample_told = "asking a small sample …"

        def tell(text: str) -> None:
            if self.sampling is not choices:
                raise Skipped
            self._front.post(lambda: self._sample_goes(choices, text))

        def ask() -> None:
            try:
                with self._one_at_a_time:
                    tell("asking a small sample")
                    outlook = self._world.foretell(project, choices, seen, tell)
            except Skipped:
                return
            except REFUSED as error:
                why = told(error)
                self._front.post(lambda: self._sample_failed(choices, why))
                return
            self._front.post(lambda: self._sampled(choices, lambda: wizard.know_outlook(outlook, choices)))

        self._in_thread(ask)
        self._front.draw()

    def skip(self) -> None:
        """Wait for no sample any more."""
        self.sampling, self.sample_told = None, ""

    def _sample_goes(self, choices: Choices, text: str) -> None:
        if self.sampling is choices:
            self.sample_told = f"{text} …"
            self._front.draw_preview()

    def _sampled(self, choices: Choices, know: Callable[[], None]) -> None:
        if self.sampling is choices:
            know()
            self._end_sample("")

    def _sample_failed(self, choices: Choices, why: str) -> None:
        if self.sampling is choices:
            self._end_sample(f"no sample: {why}")

    def _end_sample(self, text: str) -> None:
        self.sampling, self.sample_told = None, text
        if self._wizard.step is Step.CONFIRM:
            self._front.renew()

    # Threads

    def _in_thread(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:
                crash = error
                self._front.post(lambda: _raise(crash))

        # Not one of Textual's own: nobody should wait for it when the screen is left.
        threading.Thread(target=guarded, name="runner", daemon=True).start()


def told(error: Exception) -> str:
    """Return an error as the line that is shown of it."""
    return printable(str(error), 400)


def _raise(error: Exception) -> None:
    raise error
