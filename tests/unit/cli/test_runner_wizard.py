"""From question to question, without a screen: what an answer does, and what is kept on the way back."""

from pathlib import Path

import pytest

from prism_cli.exits import CommandFailed
from prism_cli.runner import pages
from prism_cli.runner.choices import Choices, Step, Wrong
from prism_cli.runner.outlook import Outlook
from prism_cli.runner.pages import Item
from prism_cli.runner.surroundings import LastTime
from prism_cli.runner.wizard import Wizard
from tests.unit.cli.runner_world import BROKEN, GOOD, REFUSAL, SERVED, FakeWorld, inspection


def item(wizard: Wizard, id: str) -> Item:
    return next(one for one in wizard.page().items if one.id == id)


def at(step: Step, world: FakeWorld | None = None, confirm: bool = True) -> Wizard:
    """Return a wizard that has come to a step."""
    world = world or FakeWorld()
    wizard = Wizard(world, confirm=confirm)
    wizard.know_models(world.models_found)
    typed = {Step.PROJECT: "new", Step.PROMPT: "p.json", Step.MODEL: "llama3.2"}
    typed |= {Step.BATCH_SIZE: "10", Step.ROWS: "1-95"}
    while wizard.step is not step:
        if wizard.step is Step.INPUT:
            wizard.know_table(inspection())
            wizard.choose(item(wizard, str(GOOD)))
        else:
            wizard.type(typed[wizard.step])
    return wizard


def test_from_the_first_question_to_a_written_job() -> None:
    world = FakeWorld()
    wizard = at(Step.CONFIRM, world)
    assert world.created == ["new"]
    assert not world.written
    wizard.choose(item(wizard, pages.START))
    assert wizard.done
    (choices,) = world.written
    assert (choices.project, choices.input, choices.batch_size) == ("new", GOOD, 10)
    assert choices.model == SERVED.pick
    assert choices.rows is not None
    assert choices.rows.label == "r1-95"


def test_with_yes_nothing_is_asked_once_more() -> None:
    world = FakeWorld()
    wizard = at(Step.ROWS, world, confirm=False)
    wizard.choose(item(wizard, "all"))
    assert wizard.done
    assert len(world.written) == 1


def test_back_keeps_everything_and_ends_at_the_first_question() -> None:
    wizard = at(Step.CONFIRM)
    before = wizard.choices
    steps = []
    while wizard.back():
        steps.append(wizard.step)
    assert steps == [Step.ROWS, Step.BATCH_SIZE, Step.MODEL, Step.PROMPT, Step.INPUT, Step.PROJECT]
    assert wizard.choices == before
    page = wizard.page()
    assert page.items[page.selected].id == "new"


@pytest.mark.parametrize(
    ("step", "id"),
    [
        (Step.INPUT, str(GOOD)),
        (Step.PROMPT, "p.json"),
        (Step.MODEL, "0"),
        (Step.BATCH_SIZE, pages.OTHER),
        (Step.ROWS, pages.OTHER),
    ],
)
def test_what_was_chosen_is_chosen_again_on_the_way_back(step: Step, id: str) -> None:
    wizard = at(Step.CONFIRM)
    while wizard.step is not step:
        wizard.back()
    page = wizard.page()
    assert page.items[page.selected].id == id


def test_what_the_last_run_had_is_proposed() -> None:
    world = FakeWorld()
    world.last_time = LastTime(GOOD, Path("p.json"), "prism-embedded", 1, "1-100")
    for step, id in [
        (Step.PROMPT, "p.json"),
        (Step.MODEL, "1"),
        (Step.BATCH_SIZE, "1"),
        (Step.ROWS, "1-100"),
    ]:
        wizard = at(step, world)
        page = wizard.page()
        assert page.items[page.selected].id == id
        assert page.items[page.selected].last


def test_a_refused_table_stays_a_question_with_the_reason_until_it_is_mended() -> None:
    world = FakeWorld()
    wizard = at(Step.INPUT, world)
    broken = item(wizard, str(BROKEN))
    assert wizard.needs(broken) == BROKEN
    wizard.know_table(world.inspect(wizard.project, BROKEN))
    with pytest.raises(Wrong, match="line 5, column 1"):
        wizard.choose(broken)
    assert wizard.step is Step.INPUT
    assert item(wizard, str(BROKEN)).about == f"✗ {REFUSAL}"
    assert wizard.needs(broken) == BROKEN, "it is looked at again"
    wizard.know_table(inspection(BROKEN))
    wizard.choose(broken)
    assert wizard.choices.input == BROKEN


def test_a_table_that_has_changed_is_looked_at_again() -> None:
    world = FakeWorld()
    wizard = at(Step.INPUT, world)
    wizard.know_table(inspection())
    assert wizard.needs(item(wizard, str(GOOD))) is None
    world.changed += 1
    assert wizard.needs(item(wizard, str(GOOD))) == GOOD
    with pytest.raises(Wrong, match="looked at"):
        wizard.choose(item(wizard, str(GOOD)))


def test_a_table_without_rows_is_refused() -> None:
    wizard = at(Step.INPUT)
    wizard.know_table(inspection(rows=0))
    with pytest.raises(Wrong, match="no rows"):
        wizard.choose(item(wizard, str(GOOD)))


def test_the_usual_input_that_is_not_there_says_so() -> None:
    wizard = at(Step.INPUT)
    usual = wizard.page().items[0]
    assert usual.name == "projects/new/data/inputs/input.csv"
    with pytest.raises(Wrong, match="put it there"):
        wizard.choose(usual)


def test_folders_are_looked_through_and_left() -> None:
    wizard = at(Step.INPUT)
    wizard.choose(item(wizard, pages.BROWSE))
    wizard.choose(item(wizard, "deep"))
    inner = item(wizard, "deep/inner.csv")
    assert wizard.needs(inner) == Path("deep/inner.csv")
    assert inner.about == "12.3 kB"
    assert wizard.back()
    assert wizard.step is Step.INPUT
    assert wizard.page().items[-1].id == pages.OTHER


def test_models_that_cannot_answer_are_refused_with_the_reason() -> None:
    wizard = at(Step.MODEL)
    with pytest.raises(Wrong, match="nobody answers; start it"):
        wizard.choose(wizard.page().items[3])
    assert wizard.step is Step.MODEL


def test_a_project_that_is_there_may_be_typed_whatever_its_name() -> None:
    world = FakeWorld()
    world.there.append(("My survey 2", ""))
    wizard = Wizard(world)
    with pytest.raises(Wrong, match="rename it"):
        wizard.type("my/bad")
    wizard.type("My survey 2")
    assert wizard.choices.project == "My survey 2"


def test_what_is_typed_is_told_or_refused_before_it_is_taken() -> None:
    assert at(Step.PROJECT).check("demo") == "projects/demo is there: Enter takes it"
    assert at(Step.PROJECT).check("next") == "Enter makes projects/next"
    assert at(Step.BATCH_SIZE).check("20").startswith("20 rows a call; more than 15")
    assert at(Step.ROWS).check("101-200") == "rows 101 to 200: 100 of 500"
    for step in (Step.PROJECT, Step.INPUT, Step.PROMPT, Step.BATCH_SIZE, Step.ROWS):
        with pytest.raises(Wrong):
            at(step).check("../nowhere")


def test_an_outlook_holds_for_what_it_was_made_for() -> None:
    wizard = at(Step.CONFIRM)
    wizard.know_outlook(Outlook(()), wizard.choices)
    assert wizard.is_foretold
    wizard.back()
    wizard.type("1-10")
    assert not wizard.is_foretold
    assert [one.id for one in wizard.page().items] == [pages.START, pages.SAMPLE]


def test_a_job_that_cannot_be_written_starts_nothing() -> None:
    world = FakeWorld()
    world.refuse_to_write = CommandFailed(3, "disk full")
    wizard = at(Step.CONFIRM, world)
    with pytest.raises(CommandFailed):
        wizard.choose(item(wizard, pages.START))
    assert not wizard.done
    assert wizard.choices != Choices()
