"""The runner's screens, from the first question to the last, at 80×24 and 200×50; and its keys."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot

from prism_cli.exits import CommandFailed
from prism_cli.runner.choices import Choices, Step
from prism_cli.runner.outlook import Tell
from prism_cli.runner.screen import Runner
from prism_cli.runner.wizard import Wizard
from tests.unit.cli.runner_world import AWAY, BROKEN, EMBEDDED, FakeWorld

SIZES = ((80, 24), (200, 50))
Act = Callable[["Seat"], Awaitable[None]]


class Seat:
    """Somebody before the screen."""

    def __init__(self, app: Runner, pilot: Pilot[bool], wizard: Wizard, world: FakeWorld) -> None:
        self.app = app
        self.wizard = wizard
        self.world = world
        self._pilot = pilot
        self.seen: list[str] = []

    def at(self, step: Step) -> bool:
        return self.wizard.step is step

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self._pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*text)

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait until threads have brought something about."""
        async with asyncio.timeout(20):
            while not met():
                await self._pilot.pause(0.01)
        await self._pilot.pause()

    def text(self) -> str:
        lines = ["".join(one.text for one in line) for line in _lines(self.app)]
        text = "\n".join(lines)
        self.seen.append(text)
        return text

    async def go_to(self, step: Step) -> None:
        """Answer with what is proposed, up to a step."""
        while self.wizard.step is not step:
            before = self.wizard.step
            if before is Step.INPUT:
                await self.until(lambda: len(self.world.inspected) > 0)
            if before is Step.MODEL:
                await self.until(lambda: self.wizard.models is not None)
            await self.press("enter")
            await self.until(lambda before=before: self.wizard.step is not before)  # type: ignore[misc]


def _lines(app: Runner) -> Any:
    from textual._context import visible_screen_stack

    # As `App._display` does: a box needs the screen behind it.
    visible_screen_stack.set([*app._background_screens])
    console = app.console
    return console.render_lines(
        app.screen._compositor, console.options.update_dimensions(*app.size), pad=True
    )


def sit(
    act: Act,
    size: tuple[int, int] = SIZES[0],
    world: FakeWorld | None = None,
    told: dict[Step, str] | None = None,
) -> tuple[Seat, bool | None]:
    """Do something before the screen; return the seat, and whether a run is to be started."""
    world = world or FakeWorld()
    wizard = Wizard(world, told=told)
    app = Runner(wizard, world)

    async def run() -> tuple[Seat, bool | None]:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            seat = Seat(app, pilot, wizard, world)
            await act(seat)
            await pilot.pause()
        return seat, app.return_value

    return asyncio.run(run())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_from_the_first_question_to_the_last(size: tuple[int, int]) -> None:
    async def act(seat: Seat) -> None:
        assert "Which project is it for?" in seat.text()
        assert "my/bad" in seat.text()
        await seat.press("end", "enter")
        await seat.type("a b")
        assert "✗ letters, digits" in seat.text()
        await seat.press(*["backspace"] * 2)
        await seat.type("survey")
        assert "Enter makes projects/asurvey" in seat.text()
        await seat.press("enter")
        await seat.until(lambda: "500 rows" in seat.text())
        assert "line 7: has 3 cells" in seat.text()
        await seat.press("enter")
        assert "Topic  A, B" in seat.text()
        await seat.press("enter")
        await seat.until(lambda: seat.wizard.models is not None)
        assert "❯ llama3.2" in seat.text()
        await seat.press("enter")
        assert "Balanced" in seat.text()
        await seat.press("end", "down")
        await seat.type("7")
        assert "7 rows a call" in seat.text()
        await seat.press("enter")
        assert "❯ all 500" in seat.text()
        await seat.type("1-95")
        assert "rows 1 to 95: 95 of 500" in seat.text()
        await seat.press("enter")
        await seat.until(lambda: "about 2 min 10 s" in seat.text())
        for told in ("asurvey", "data/good.csv", "p.json", "llama3.2", "1 to 95", "projects/asurvey"):
            assert told in seat.text()
        await seat.press("enter")

    seat, started = sit(act, size)
    assert started is True
    (choices,) = seat.world.written
    assert (choices.project, choices.batch_size, choices.rows and choices.rows.label) == (
        "asurvey",
        7,
        "r1-95",
    )
    for text in seat.seen:
        lines = text.splitlines()
        assert len(lines) == size[1]
        assert all(one.isprintable() for line in lines for one in line), "nobody's bytes reach the terminal"
        assert lines[0].startswith(" PRISM runner")
        assert lines[-1].strip().startswith("Enter")
        assert lines[-1].rstrip().endswith("leave")
        assert "[bold red]x[/bold red]" in text or "bold red" not in text, "mark-up of others is text"
    assert {one for one in Step for text in seat.seen if f"● {one.value}" in text.splitlines()[1]} == set(
        Step
    )


def test_what_is_typed_ahead_of_a_slow_screen_goes_where_enter_leads() -> None:
    async def act(seat: Seat) -> None:
        await seat.press("end")
        for key, character in [("enter", "\r"), *((one, one) for one in "survey"), ("enter", "\r")]:
            seat.app.post_message(Key(key, character))
        await seat.until(lambda: seat.at(Step.INPUT))

    seat, _ = sit(act)
    assert seat.wizard.choices.project == "survey"


def test_back_keeps_what_was_entered_and_what_was_only_typed() -> None:
    async def act(seat: Seat) -> None:
        await seat.go_to(Step.ROWS)
        await seat.press("end", "enter")
        await seat.type("1-9999")
        assert "✗ the file has 500 rows" in seat.text()
        await seat.press("enter")
        assert seat.at(Step.ROWS), "what is wrong is not taken"
        await seat.press("escape")
        assert seat.at(Step.BATCH_SIZE)
        await seat.press("b", "b")
        assert seat.at(Step.PROMPT)
        await seat.go_to(Step.ROWS)
        assert "› 1-9999" in seat.text()

    seat, _ = sit(act)
    assert seat.wizard.choices.batch_size == 5


def test_a_refused_table_is_not_taken_and_says_where_and_what_to_do() -> None:
    world = FakeWorld()
    world.files = [BROKEN]

    async def act(seat: Seat) -> None:
        await seat.press("enter")
        await seat.until(lambda: "✗ Two rows have the same RowID" in seat.text())
        await seat.press("enter")
        await seat.until(lambda: seat.text().count("give each its own") == 2)
        assert len(world.inspected) == 2
        assert seat.at(Step.INPUT)

    sit(act, world=world)


def test_models_that_do_not_answer_are_marked_with_the_reason_and_looked_for_again() -> None:
    world = FakeWorld()
    world.models_found = [EMBEDDED, AWAY]

    async def act(seat: Seat) -> None:
        await seat.go_to(Step.MODEL)
        await seat.until(lambda: seat.wizard.models is not None)
        assert "answers by rules" in seat.text()
        await seat.press("end")
        assert "mistral" in seat.text()
        await seat.press("enter")
        assert "✗ nobody answers; start it" in seat.text()
        world.models_found = [AWAY, EMBEDDED, AWAY]
        await seat.press("r")
        await seat.until(lambda: len(seat.wizard.models or ()) == 3)
        assert seat.at(Step.MODEL)

    sit(act, world=world)


def test_the_sample_can_be_skipped_and_a_priced_model_is_asked_only_when_told_to() -> None:
    world = FakeWorld()
    begun, freed = threading.Event(), threading.Event()
    ends: list[BaseException] = []

    def slow(tell: Tell) -> None:
        begun.set()
        freed.wait(20)
        try:
            tell("asking the model: batch 2 of 5")
        except BaseException as error:
            ends.append(error)
            raise

    world.on_foretell = slow

    async def act(seat: Seat) -> None:
        await seat.go_to(Step.CONFIRM)
        await seat.until(begun.is_set)
        assert "skip the sample" in seat.text()
        await seat.press("s")
        assert "the sample was skipped" in seat.text()
        freed.set()
        await seat.until(lambda: bool(ends))
        assert not seat.wizard.is_foretold
        world.on_foretell = lambda _: None
        while not seat.at(Step.MODEL):
            await seat.press("escape")
        await seat.press("home", "down", "down", "enter", "enter", "enter")
        assert seat.at(Step.CONFIRM)
        assert "press s to ask a small sample; it costs" in seat.text()
        asked = world.foretold
        await seat.press("s")
        await seat.until(lambda: world.foretold == asked + 1)
        await seat.until(lambda: "about 101 (100 to 103)" in seat.text())

    sit(act, world=world)


def test_q_asks_once_something_was_answered_and_starts_nothing() -> None:
    async def stay_then_leave(seat: Seat) -> None:
        await seat.go_to(Step.ROWS)
        await seat.press("q")
        assert "no run is lost" in seat.text()
        await seat.press("n")
        assert seat.at(Step.ROWS)
        await seat.press("ctrl+c", "y")

    seat, started = sit(stay_then_leave)
    assert started is False
    assert not seat.world.written

    async def leave(seat: Seat) -> None:
        await seat.press("q")

    seat, started = sit(leave)
    assert started is False
    assert seat.wizard.choices == Choices()


def test_help_opens_and_closes_and_q_may_be_typed_into_a_name() -> None:
    async def act(seat: Seat) -> None:
        await seat.press("question_mark")
        assert "Esc, b" in seat.text()
        await seat.press("escape", "end", "enter")
        await seat.type("qb")
        assert "Enter makes projects/qb" in seat.text()
        await seat.press("up")
        await seat.press("down", "down")
        assert "projects/qb" in seat.text() or "› qb" in seat.text()

    sit(act)


def test_what_threads_find_while_help_is_open_is_there_when_it_is_closed() -> None:
    world = FakeWorld()
    freed = threading.Event()

    def slow(tell: Tell) -> None:
        freed.wait(20)

    world.on_foretell = slow

    async def act(seat: Seat) -> None:
        await seat.go_to(Step.CONFIRM)
        await seat.press("question_mark")
        freed.set()
        await seat.until(lambda: seat.wizard.is_foretold)
        assert "Esc, b" in seat.text()
        await seat.press("escape")
        assert "about 2 min 10 s" in seat.text()

    sit(act, world=world)


def test_flags_answer_their_questions_and_wrong_ones_stay_questions() -> None:
    told = {Step.PROJECT: "demo", Step.INPUT: "nowhere.csv", Step.BATCH_SIZE: "3", Step.ROWS: "1-20"}

    async def act(seat: Seat) -> None:
        assert seat.at(Step.INPUT)
        assert "✗ there is no such file" in seat.text()
        await seat.press("enter")
        await seat.go_to(Step.MODEL)
        await seat.until(lambda: seat.wizard.models is not None)
        await seat.press("enter")
        assert seat.at(Step.CONFIRM)
        assert "1 to 20, 20 of 500" in seat.text()

    sit(act, told=told)


def test_what_cannot_be_written_is_said_and_nothing_is_started() -> None:
    world = FakeWorld()
    world.refuse_to_write = CommandFailed(3, "cannot be written: No space left on device", "job.yaml")

    async def act(seat: Seat) -> None:
        await seat.go_to(Step.CONFIRM)
        await seat.press("home", "enter")
        assert "✗ cannot be written: No space left on device" in seat.text()
        await seat.press("q", "y")

    _, started = sit(act, world=world)
    assert started is False


def test_a_crash_of_a_thread_ends_the_screen_with_the_error() -> None:
    world = FakeWorld()

    def broken(tell: Tell) -> None:
        raise ZeroDivisionError("oh")

    world.on_foretell = broken

    async def act(seat: Seat) -> None:
        await seat.go_to(Step.CONFIRM)
        await seat.until(lambda: seat.app.crash is not None)

    with pytest.raises(ZeroDivisionError):
        sit(act, world=world)


def test_other_commands_do_not_import_textual() -> None:
    code = "import sys, prism_cli.runner.command; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
