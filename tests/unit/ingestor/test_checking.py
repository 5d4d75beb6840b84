"""Pass 1 in its thread: what is found out, what is refused, and what merely waits."""

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prism.kafka.errors import BrokerAway
from prism.messages import FileReason, MessageSource, RunFile, RunRecord, RunState
from prism.runs.job import Job, parse_job
from prism.service import fault
from prism.tables import Row, TableRefused, check_rows
from prism_ingestor import checking
from prism_ingestor.checking import Checked, Checker, read_prompt
from prism_ingestor.sources import PlainFile, SourceChanged

PROMPT = {"system_prompt": "Classify.", "columns_to_code": ["Mood"]}
CSV = b"RowID,Message\n1,hello\n2,there\n3,you\n"


class Gate:
    """Holds a thread up until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._open.wait(10)

    def await_reached(self) -> None:
        assert self.reached.wait(10)

    def open(self) -> None:
        self._open.set()


class FakeSources:
    """Brings what it is told to, or raises it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outcomes: dict[str, Any] = {}
        self.asked: list[str] = []
        self.forgotten: list[str] = []

    def forget(self, run_id: str) -> None:
        self.forgotten.append(run_id)

    def as_csv(self, run_id: str, file: RunFile, found: PlainFile, *rest: Any) -> PlainFile:
        del run_id, file, rest
        return found

    def bring(self, run_id: str, file: RunFile, between: Callable[[], None]) -> PlainFile:
        del file
        self.asked.append(run_id)
        outcome = self.outcomes.get(run_id, CSV)
        if isinstance(outcome, list):
            outcome = outcome.pop(0) if outcome else CSV
        if isinstance(outcome, Gate):
            outcome.pass_through()
            between()
            outcome = CSV
        if isinstance(outcome, BaseException):
            raise outcome
        path = self.folder / f"{run_id}.csv"
        path.write_bytes(outcome)
        return PlainFile(path, "s" * 64, len(outcome))


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "prompt.json").write_text(json.dumps(PROMPT))
        self.sources = FakeSources(folder)
        self.checker = Checker(self.sources, folder, folder / "scratch")  # type: ignore[arg-type]
        self.checker.start()

    def check(self, run_id: str = "r", **fields: Any) -> None:
        file = RunFile(label="l", source=MessageSource(partition=0, offsets=[0]), **fields.pop("file", {}))
        state = RunState.RUNNING if file.columns else RunState.ACCEPTED
        self.checker.submit(RunRecord(run_id=run_id, epoch=1, state=state, files=[file], **fields))

    def checked(self, run_id: str = "r", **fields: Any) -> Checked:
        self.check(run_id, **fields)
        return self.checker.done.get(timeout=10)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(checking, "RETRY_S", 0.05)
    made = Desk(tmp_path)
    yield made
    made.checker.close()


def await_true(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def test_a_good_file(desk: Desk) -> None:
    found = desk.checked(job={"model": {"batch_size": "2"}})
    assert found.reason is None
    assert found.plains
    assert (found.files[0].rows, found.files[0].batches, found.files[0].bytes) == (3, 2, len(CSV))
    assert found.files[0].columns == ["RowID", "Message"]
    assert found.prompt == PROMPT


def test_a_run_whose_price_cannot_be_read_is_refused_like_one_whose_job_cannot(desk: Desk) -> None:
    found = desk.checked(model_entry={"price": {"prompt": "free", "completion": "0"}})
    assert (found.reason, found.plains) == (FileReason.BAD_JOB, ())
    assert "model_entry: price.prompt" in (found.detail or "")
    assert desk.checked("newer", model_entry={"backend": "vllm"}).reason is None


def test_a_header_without_rows_is_a_run_of_zero_rows(desk: Desk) -> None:
    desk.sources.outcomes["r"] = b"RowID,Message\n"
    found = desk.checked()
    assert (found.reason, found.files[0].rows, found.files[0].batches) == (None, 0, 0)


CONTROLS = b"\x01" * 3_000_000


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    ("content", "reason", "line"),
    [
        (b"", FileReason.EMPTY_FILE, 1),
        (b"A,B\n", FileReason.MISSING_COLUMN, 1),
        (b"Message,Message\n", FileReason.DUPLICATE_COLUMN, 1),
        (b"RowID,Message\n1,a\n1,b\n", FileReason.DUPLICATE_ROW_ID, 3),
        (b"Message\n\xff\n", FileReason.NOT_UTF8, 2),
        (b'Message\n"a\n', FileReason.UNCLOSED_QUOTE, 2),
        (b"Message," + b"\x01" * 200_000 + b"\n", FileReason.TOO_LARGE, 1),
        (b"Message\nfine\n" + CONTROLS + b"\n", FileReason.TOO_LARGE, 3),
        (b"RowID,Message\n" + CONTROLS[:1_400_000] + b",x\n", FileReason.TOO_LARGE, 2),
    ],
    ids=["empty", "column", "twice", "row id", "utf-8", "quote", "wide header", "controls", "long row id"],
)
def test_files_that_are_refused(desk: Desk, content: bytes, reason: FileReason, line: int | None) -> None:
    desk.sources.outcomes["r"] = content
    found = desk.checked()
    assert (found.plains, found.reason, found.line) == ((), reason, line)
    assert found.detail
    assert "\n" not in found.detail


def test_a_long_row_of_plain_text_travels(desk: Desk) -> None:
    desk.sources.outcomes["r"] = b"Message\n" + b"x" * 7_000_000 + b"\n"
    found = desk.checked()
    assert (found.reason, found.files[0].rows) == (None, 1)


def test_jobs_and_prompts_that_cannot_be_used(desk: Desk) -> None:
    assert desk.checked(job={"model": []}).reason is FileReason.BAD_JOB
    assert desk.checked(job={"prompts": {"config_file": "none.json"}}).reason is FileReason.BAD_PROMPT
    assert desk.sources.asked == []


def test_a_run_that_was_fed_keeps_its_prompt_and_counts(desk: Desk) -> None:
    (desk.folder / "prompt.json").unlink()
    found = desk.checked(prompt=PROMPT, file={"columns": ["Message"], "rows": 99, "batches": 7})
    assert (found.reason, found.files[0].rows, found.files[0].batches, found.prompt) == (None, 99, 7, PROMPT)


def test_a_changed_source_says_so(desk: Desk) -> None:
    desk.sources.outcomes["r"] = SourceChanged(FileReason.SOURCE_GONE, "gone")
    found = desk.checked(file={"columns": ["Message"]}, prompt=PROMPT)
    assert (found.plains, found.reason, found.detail) == ((), FileReason.SOURCE_GONE, "gone")


@pytest.mark.promise(9)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), BrokerAway("no broker")])
def test_a_source_that_cannot_be_read_now_waits_and_holds_up_no_other(desk: Desk, error: Exception) -> None:
    desk.sources.outcomes["slow"] = [error] * 3
    desk.check("slow")
    await_true(lambda: "slow" in desk.checker.postponed, "it is said why it waits")
    assert str(error) in desk.checker.postponed["slow"]
    desk.check("other")
    runs = [desk.checker.done.get(timeout=10).run_id for _ in range(2)]
    assert runs == ["other", "slow"]
    assert desk.checker.postponed == {}


@pytest.mark.parametrize("reason", [FileReason.NO_SPACE, FileReason.GZIP_BOMB])
def test_a_full_disk_fails_no_run_that_was_accepted(desk: Desk, reason: FileReason) -> None:
    desk.sources.outcomes["r"] = [TableRefused(reason, "no room")]
    assert desk.checked(file={"columns": ["Message"]}, prompt=PROMPT).plains
    desk.sources.outcomes["new"] = TableRefused(reason, "no room")
    assert desk.checked("new").reason is reason


# Runs that are dropped


def next_checked(desk: Desk) -> str:
    return desk.checker.done.get(timeout=10).run_id


def test_a_run_that_waits_for_its_turn_is_dropped(desk: Desk) -> None:
    gate = desk.sources.outcomes["first"] = Gate()
    for run_id in ("first", "dropped", "last"):
        desk.check(run_id)
    gate.await_reached()
    desk.checker.drop("dropped")
    gate.open()
    assert [next_checked(desk), next_checked(desk)] == ["first", "last"]
    assert desk.sources.asked == ["first", "last"]


def test_a_source_that_is_being_brought_is_dropped_and_cleaned_up(desk: Desk) -> None:
    gate = desk.sources.outcomes["r"] = Gate()
    desk.check()
    gate.await_reached()
    desk.checker.drop("r")
    gate.open()
    await_true(lambda: desk.sources.forgotten == ["r"], "it is cleaned up")
    assert not (desk.folder / "r.csv").exists()
    assert desk.checked("other").run_id == "other"
    assert desk.checker.done.empty()


@pytest.mark.promise(9)
def test_rows_that_are_being_counted_are_dropped_and_leave_no_scratch(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, counted = Gate(), []

    def slowly(*arguments: Any) -> Iterator[Row]:
        for row in check_rows(*arguments):
            gate.pass_through()
            counted.append(row.row_id)
            yield row

    monkeypatch.setattr(checking, "check_rows", slowly)
    desk.check(job={"model": {"batch_size": "1"}})
    gate.await_reached()
    assert list((desk.folder / "scratch").iterdir())
    desk.checker.drop("r")
    gate.open()
    await_true(lambda: desk.sources.forgotten == ["r"], "it is cleaned up")
    await_true(lambda: not list((desk.folder / "scratch").iterdir()), "no scratch is left")
    assert counted == ["1", "2"]  # a batch is complete when the next one begins
    assert desk.checker.done.empty()


def test_a_run_that_is_dropped_in_the_last_moment_does_not_come_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(fault, "point", lambda _name: gate.pass_through())
    desk.check()
    gate.await_reached()
    desk.checker.drop("r")
    gate.open()
    assert desk.checked("other").run_id == "other"
    assert desk.sources.forgotten == ["r"]


def test_a_source_that_cannot_be_read_now_is_dropped_while_it_waits(desk: Desk) -> None:
    desk.sources.outcomes["r"] = [OSError(errno.ENOSPC, "full")]
    desk.check()
    await_true(lambda: "r" in desk.checker.postponed, "it waits")
    desk.checker.drop("r")
    assert desk.checker.postponed == {}
    await_true(lambda: desk.sources.forgotten == ["r"], "it is cleaned up")
    assert desk.checker.done.empty()


def test_a_source_that_breaks_because_it_was_dropped_waits_for_nothing(desk: Desk) -> None:
    """Whoever drops a run removes its folder, and what is at work there fails."""
    gate = Gate()

    def vanish(*arguments: Any) -> Iterator[Row]:
        gate.pass_through()
        raise FileNotFoundError
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "check_rows", vanish)
        desk.check()
        gate.await_reached()
        desk.checker.drop("r")
        gate.open()
        await_true(lambda: desk.sources.forgotten == ["r"], "it is cleaned up")
    assert desk.checker.postponed == {}
    assert desk.checker.done.empty()


def test_a_run_that_is_asked_for_again_comes_out_once(desk: Desk) -> None:
    gate = desk.sources.outcomes["r"] = Gate()
    desk.check()
    gate.await_reached()
    desk.sources.outcomes["r"] = CSV
    desk.check()
    gate.open()
    assert next_checked(desk) == "r"
    assert desk.checked("other").run_id == "other"
    assert desk.checker.done.empty()


def test_a_stand_by_wants_nothing_that_it_had_asked_for(desk: Desk) -> None:
    desk.check("out")
    await_true(lambda: not desk.checker.done.empty(), "one is out")
    gate = desk.sources.outcomes["at work"] = Gate()
    desk.check("at work")
    desk.check("waiting")
    gate.await_reached()
    desk.checker.drop_all()
    gate.open()
    assert desk.checked("new").run_id == "new"
    assert desk.sources.asked == ["out", "at work", "new"]


# Prompts


def job(config_file: str) -> Job:
    return parse_job({"prompts": {"config_file": config_file}})


def test_a_prompt_is_kept_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(
        '\ufeff{"system_prompt": "x", "columns_to_code": ["A"], '
        '"validation_rules": {"valid_a": [1.10, "y"]}, "new": 1}'
    )
    assert read_prompt(tmp_path, job("p.json"))["validation_rules"] == {"valid_a": ["1.10", "y"]}


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"a": "\\ud800"}', "\xff", '{"system_prompt": ""}', " " * 1_000_001,
     "NaN", json.dumps(PROMPT | {"x": 1})[:-1] + ', "x": 2}', json.dumps(PROMPT)[:-1] + ', "x": "\\ud800"}'],
    ids=range(11),
)  # fmt: skip
def test_prompts_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text, encoding="latin-1")
    with pytest.raises(TableRefused) as refused:
        read_prompt(tmp_path, job("p.json"))
    assert refused.value.reason is FileReason.BAD_PROMPT
    assert "\n" not in refused.value.detail


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    "name", ["../secret.json", "/etc/passwd", "link.json", "ring.json", "a\0b", ".", "x" * 300]
)
def test_a_prompt_lies_in_the_jobs_folder(tmp_path: Path, name: str) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (tmp_path / "secret.json").write_text(json.dumps(PROMPT))
    (jobs / "link.json").symlink_to(tmp_path / "secret.json")
    (jobs / "ring.json").symlink_to(jobs / "ring.json")
    with pytest.raises(TableRefused) as refused:
        read_prompt(jobs, job(name))
    assert refused.value.reason is FileReason.BAD_PROMPT
