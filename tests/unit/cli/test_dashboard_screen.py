"""The dashboard as it is drawn, at 80×24 and 200×50, in every state; and its keys."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from prism.messages import CommandName, RunState
from prism_cli import watching
from prism_cli.dashboard.picture import Picture
from prism_cli.dashboard.screen import Dashboard, Panel
from tests.unit.cli import pictures
from tests.unit.cli.views import NOW, worker_view

SMALL, LARGE = (80, 24), (200, 50)
Act = Callable[[Dashboard, "Pilot[None]"], Awaitable[None]]

STATES: dict[str, tuple[Picture, list[str]]] = {
    "running": (pictures.picture(), ["● running", "62 %", "time left", "worker-2", "Product"]),
    "paused": (pictures.picture(RunState.PAUSED), ["‖ paused", "resume"]),
    "dead worker": (
        pictures.picture(workers=pictures.crew(silent=1)),
        ["3 workers, 1 silent", "✗ silent", "42 s"],
    ),
    "stalled": (
        pictures.picture(record_stalled="every worker waits: connection refused"),
        ["· stalled", "connection refused"],
    ),
    "broker away": (pictures.picture(away_s=12.0, unsure=True), ["not answered for 12 s", "unknown"]),
    "done": (pictures.picture(RunState.COMPLETED), ["✓ completed", "took"]),
    "failed": (
        pictures.picture(RunState.FAILED, record_reason="source_changed", record_detail="march.csv changed"),
        ["✗ failed", "march.csv changed"],
    ),
    "not taken up": (Picture("t1", None, NOW), ["sent, not yet taken up"]),
}


class Keys:
    """Stands for the follower: notes what the keys ask for."""

    def __init__(self) -> None:
        self.orders: list[CommandName] = []
        self.left = False

    def start(self) -> None:
        """Follow nothing."""

    def order(self, command: CommandName) -> None:
        self.orders.append(command)

    def leave(self) -> None:
        self.left = True


def drawn(
    picture: Picture, act: Act | None = None, size: tuple[int, int] = SMALL, keys: Keys | None = None
) -> list[str]:
    """Return the lines of the terminal after a picture came, and after something was done."""

    async def draw() -> list[str]:
        app = Dashboard(picture.run_id)
        app.follower = keys or Keys()  # type: ignore[assignment]
        async with app.run_test(size=size) as pilot:
            app.take(picture)
            await pilot.pause()
            if act is not None:
                await act(app, pilot)
            await pilot.pause()
            return _texts(app)

    return asyncio.run(draw())


def _texts(app: Dashboard) -> list[str]:
    return ["".join(one.text for one in line) for line in _lines(app)]


def _lines(app: Dashboard) -> Any:
    from textual._context import visible_screen_stack

    # As `App._display` does: a box needs the screen behind it.
    visible_screen_stack.set([*app._background_screens])
    console = app.console
    return console.render_lines(
        app.screen._compositor, console.options.update_dimensions(*app.size), pad=True
    )


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_every_state_is_right(size: tuple[int, int]) -> None:
    seen: dict[str, list[str]] = {}

    async def go_through(app: Dashboard, pilot: "Pilot[None]") -> None:
        for state, (picture, _) in STATES.items():
            app.take(picture)
            await pilot.pause()
            seen[state] = _texts(app)

    drawn(pictures.picture(), go_through, size)
    for state, (picture, said) in STATES.items():
        lines = seen[state]
        assert len(lines) == size[1]
        assert [one for one in said if one not in "\n".join(lines)] == [], state
        assert picture.run_id in lines[0], state
        assert "leave" in lines[-1], state


def test_no_size_is_fatal() -> None:
    async def shrink(app: Dashboard, pilot: "Pilot[None]") -> None:
        for size in [(132, 30), (60, 15), (20, 6), (1, 1)]:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert len(_texts(app)) == size[1]

    drawn(pictures.picture(workers=pictures.crew(1, 5)), shrink)


def test_no_color_is_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    colours: set[str] = set()

    async def note(app: Dashboard, pilot: "Pilot[None]") -> None:
        styles = [one.style for line in _lines(app) for one in line if one.style]
        colours.update(one.color.name for one in styles if one.color)

    drawn(pictures.picture(workers=pictures.crew(silent=1)), note)
    assert {"red", "green", "cyan"} < {one.removeprefix("ansi_") for one in colours}
    colours.clear()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "✗ silent" in "\n".join(drawn(pictures.picture(workers=pictures.crew(silent=1)), note))
    assert colours == {"default"}


def test_hostile_names_change_nothing_but_their_place() -> None:
    evil = "[red]\x1b[2J名\u202e\x07[/red]"
    picture = pictures.picture(
        labels={evil: {evil: 5, "[bold]x": 1}},
        workers=(worker_view(worker_id=evil, model=evil, last_error=evil),),
        failed_by_reason={evil: 3},
        record_stalled=evil,
    )

    async def look(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press("f")

    for size in (SMALL, LARGE):
        for act in (None, look):
            text = "\n".join(drawn(picture, act, size))
            assert "[red]·[2J名··[/red]" in text
            assert "\x1b" not in text
            assert "\x07" not in text


def test_what_does_not_fit_is_scrolled_and_the_title_says_so() -> None:
    picture = pictures.picture(workers=pictures.crew(working=30), events=pictures.past(60))
    assert "30 workers  ↓" in "\n".join(drawn(picture))

    async def scroll(app: Dashboard, pilot: "Pilot[None]") -> None:
        app.screen.query_one("#workers", Panel).focus()
        await pilot.press("end")
        await pilot.pause()
        await pilot.pause(0.5)

    text = "\n".join(drawn(picture, scroll))
    assert "worker-30" in text
    assert "30 workers  ↑" in text


@pytest.mark.parametrize(("key", "order"), [("p", CommandName.PAUSE), ("r", CommandName.RESUME)])
def test_pause_and_resume_are_asked_for_at_once(key: str, order: CommandName) -> None:
    keys = Keys()

    async def press(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press(key)

    drawn(pictures.picture(), press, keys=keys)
    assert keys.orders == [order]
    drawn(pictures.picture(RunState.COMPLETED), press, keys=keys)
    assert keys.orders == [order], "a run that has ended takes no orders"


@pytest.mark.parametrize(("answer", "orders"), [("y", [CommandName.CANCEL]), ("n", []), ("escape", [])])
def test_a_cancel_is_asked_about_first(answer: str, orders: list[CommandName]) -> None:
    keys = Keys()

    async def press(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press("c")
        assert keys.orders == []
        await pilot.press(answer)

    drawn(pictures.picture(), press, keys=keys)
    assert keys.orders == orders


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_leaving_ends_the_dashboard_not_the_run(key: str) -> None:
    keys = Keys()

    async def press(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press(key)

    drawn(pictures.picture(), press, keys=keys)
    assert keys.left
    assert keys.orders == []


def test_the_boxes_open_and_close() -> None:
    async def look(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press("question_mark")

    text = "\n".join(drawn(pictures.picture(), look))
    assert "this help; Escape closes it" in text
    assert "nothing moves" in text, "the help fits a small terminal"

    async def failures(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press("f")
        app.take(pictures.picture(failed_by_reason={"poison": 1}))
        await pilot.pause()

    text = "\n".join(drawn(pictures.picture(), failures))
    assert "poison" in text, "what fails meanwhile is shown, too"
    assert "failed_ranges.json" in text

    async def close(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.press("f", "escape")

    assert "last error of each worker" not in "\n".join(drawn(pictures.picture(), close))


def test_a_size_that_changes_changes_the_layout() -> None:
    async def grow(app: Dashboard, pilot: "Pilot[None]") -> None:
        await pilot.resize_terminal(*LARGE)
        await pilot.pause()

    text = "\n".join(drawn(pictures.picture(), grow))
    assert "model server" in text


def test_textual_is_imported_for_a_terminal_only() -> None:
    code = "import sys, prism_cli.watching, prism_cli.submission; print('textual' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


def test_without_a_terminal_there_is_no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        closed = False

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "__stdin__", Terminal())
    assert not watching.full_screen(), "stderr is none here"
    monkeypatch.setattr(watching, "interactive", lambda _: True)
    assert watching.full_screen()
    monkeypatch.setattr(sys, "__stdin__", None)
    assert not watching.full_screen()
