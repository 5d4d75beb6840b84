"""What `prism run` does about failed rows: whether it asks, and what it does then."""

import io
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prism.messages import RunState
from prism.runs.catalogue import Catalogue
from prism.runs.job import parse_job
from prism_cli import aftermath
from prism_cli.aftermath import Aftermath
from prism_cli.job_spec import JobSpec


class Terminal(io.StringIO):
    """What a person types, or reads."""

    def isatty(self) -> bool:
        return True


def view(run_id: str, failed: int = 3, published: bool = False) -> Any:
    progress = SimpleNamespace(rows_failed=failed, outputs=["it"] * published, reports=["r"])
    record = SimpleNamespace(parent="", rows=9)
    state = RunState.COMPLETED_WITH_FAILURES if failed else RunState.COMPLETED
    return SimpleNamespace(run_id=run_id, record=record, progress=progress, state=state)


class Person:
    """Somebody at a terminal: `typed` is what they say, `begun` what was done then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
        self.begun: list[str] = []
        self.screen = Terminal()
        monkeypatch.setattr("prism_cli.retry.begin", self._begin)
        monkeypatch.setattr(aftermath, "attend", lambda *_, **__: view("r.r1", failed=0, published=True))
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        monkeypatch.setattr(sys, "stderr", self.screen)

    def _begin(self, *_: Any, publish_only: bool) -> str:
        self.begun.append("publish" if publish_only else "retry")
        return "r.r1"

    def sees_the_end(self, published: bool = False, on_failure: str | None = None, **handling: str) -> int:
        job = parse_job({"error_handling": handling})
        spec = JobSpec(Path("job.yaml"), job, {}, {}, Catalogue(), ())
        nothing = cast(Any, SimpleNamespace(data_dir=Path()))
        options = Namespace(on_failure=on_failure, json=False, timeout=None, plain=True)
        told = Aftermath(
            nothing, nothing, spec, options, lambda _, run, __: 6 if run.progress.rows_failed else 0
        )
        return told.after(view("r", published=published))


@pytest.mark.parametrize(
    ("typed", "begun", "code"),
    [("r\n", ["retry"], 0), ("p\n", ["publish"], 0), ("l\n", [], 6), ("\n", [], 6), ("", [], 6)],
)
def test_a_person_chooses(monkeypatch: pytest.MonkeyPatch, typed: str, begun: list[str], code: int) -> None:
    person = Person(monkeypatch, typed)
    assert person.sees_the_end(prompt_on_failure="yes") == code
    assert person.begun == begun


@pytest.mark.parametrize(("said", "asked"), [("yes", True), ("no", False)])
def test_a_job_says_whether_a_person_is_asked(
    monkeypatch: pytest.MonkeyPatch, said: str, asked: bool
) -> None:
    person = Person(monkeypatch, "r\n")
    assert person.sees_the_end(prompt_on_failure=said) == (0 if asked else 6)
    assert person.begun == (["retry"] if asked else [])
    assert ("[r] retry" in person.screen.getvalue()) is asked


def test_the_flag_asks_whatever_the_job_says(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(monkeypatch, "r\n")
    assert person.sees_the_end(on_failure="ask", prompt_on_failure="no") == 0
    assert person.begun == ["retry"]


def test_what_is_published_cannot_be_published_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(monkeypatch, "what?\np\nr\n")
    assert person.sees_the_end(published=True) == 0
    assert person.begun == ["retry"]
    assert "publish" not in person.screen.getvalue()


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(monkeypatch, "r\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("r\n"))
    assert person.sees_the_end() == 6
    assert person.begun == []


def test_who_leaves_while_reports_are_written_is_told_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(_: float) -> None:
        raise KeyboardInterrupt

    ended = view("r", failed=0, published=True)
    told: list[Any] = []

    def tell(_: object, run: object, __: object) -> int:
        told.append(run)
        return 0

    ended.progress.reports = None
    monkeypatch.setattr(aftermath, "reported", lambda _: False)
    board = cast(Any, SimpleNamespace(poll=pressed, run=lambda _: ended))
    nothing = cast(Any, SimpleNamespace(data_dir=Path()))
    after = Aftermath(nothing, board, cast(Any, None), Namespace(), tell)
    with pytest.raises(KeyboardInterrupt):
        after.after(ended)
    assert told == [ended]
    assert "prism summary r" in capsys.readouterr().err
