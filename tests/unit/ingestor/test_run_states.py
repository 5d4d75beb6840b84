"""What becomes of a run, above all of one that is cancelled before pass 1 is over."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prism.messages import (
    CommandName,
    FileProgress,
    FileReason,
    MergeState,
    ModelProgress,
    Progress,
    RunFile,
    RunRecord,
    RunState,
    Topics,
    UriSource,
)
from prism.runs.table import RunsTable
from prism_ingestor.checking import Checked, Checker
from prism_ingestor.feeder import Feeder
from prism_ingestor.ledger import Ledger
from prism_ingestor.run_states import RunStates
from prism_ingestor.sources import PlainFile, SourceChanged, Sources
from tests.unit.ingestor.world import FakeProducer

CSV = b"Message\none\ntwo\nthree\n"
CHECKED = {"columns": ["Message"], "rows": 3, "batches": 3}


class Office:
    """Everything that a run's state hangs on, with a producer that acknowledges when it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        self.spool.mkdir()
        self.producer = FakeProducer()
        producer: Any = self.producer
        view: Any = SimpleNamespace(runs=RunsTable(), progress={}, live_workers=list)
        self.view = view
        self.ledger = Ledger(producer, Topics(), "me")
        sources = Sources(self.spool, folder, 1 << 20, lambda _partition, _offset: CSV)
        self.checker = Checker(sources, folder, folder / "scratch")
        self.feeder = Feeder(producer, Topics(), self.ledger, view, 0, lambda: 0.0, self._changed)
        self.states = RunStates(
            self.ledger, self.feeder, self.checker, sources, view, lambda: 0.0, self._hear
        )
        self.take_over(1)

    def _hear(self, progress: Progress) -> None:
        self.states.progressed(progress)

    def _changed(self, run_id: str, error: SourceChanged) -> None:
        self.states.source_changed(run_id, error)

    def take_over(self, epoch: int) -> None:
        """Begin as an active ingestor does, with what `prism.runs` says."""
        self.read_runs()
        runs = [one for one in self.view.runs.runs.values() if not one.state.ended]
        self.ledger.take_over(epoch, runs, self.view.runs.cursors)
        self.feeder.take_over(2, {}, {})
        self.checker.drop_all()

    def read_runs(self) -> None:
        """Let what was written come round."""
        self.view.runs = self.producer.table()

    def accept(self, run_id: str = "r") -> RunRecord:
        file = RunFile(label="l", source=UriSource(uri="file:///x"))
        job = {"model": {"batch_size": "1"}}
        record = RunRecord(run_id=run_id, epoch=0, state=RunState.ACCEPTED, files=[file], job=job)
        written = self.ledger.write(record)
        self.checker.submit(written)
        return written

    def spooled(self, run_id: str = "r") -> Path:
        folder = self.spool / run_id
        folder.mkdir(exist_ok=True)
        path = folder / "l.csv"
        path.write_bytes(CSV)
        return path

    def checked(self, run_id: str = "r", reason: FileReason | None = None) -> None:
        """Pass 1 is through with a run."""
        file = RunFile(label="l", source=UriSource(uri="file:///x"), **CHECKED)
        plains = () if reason else (PlainFile(self.spooled(run_id), "", len(CSV)),)
        self.checker.done.put(Checked(run_id, (file,), {"system_prompt": "x"}, plains, reason))
        self.states.start_checked()

    def run(self, run_id: str = "r") -> None:
        self.accept(run_id)
        self.checked(run_id)
        self.producer.flush()

    def command(self, command: CommandName, run_id: str = "r") -> bool:
        record = self.states.known(run_id)
        assert record is not None
        return self.states.obey(record, command)

    def state(self, run_id: str = "r") -> RunState:
        return self.producer.table().runs[run_id].state

    def batches(self) -> list[str]:
        return [one["key"] for one in self.producer.sent if one["topic"].endswith("batches")]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_run_is_fed_once_its_start_is_acknowledged(office: Office) -> None:
    office.accept()
    office.checked()
    assert (office.state(), office.feeder.feeds) == (RunState.RUNNING, {})
    office.producer.flush()
    office.feeder.turn()
    assert office.batches() == ["r/l/0", "r/l/1", "r/l/2"]


# Cancelled before pass 1 is over


def test_a_run_that_is_being_checked_is_cancelled_at_once(office: Office) -> None:
    office.accept()
    office.spooled()
    assert office.command(CommandName.CANCEL)
    assert office.state() is RunState.CANCELLED
    assert office.producer.table().runs["r"].reason == "cancelled"
    assert "r" not in office.producer.table().cursors  # no batch was fed, and so says a missing cursor
    assert list(office.spool.iterdir()) == []
    office.checker.start()  # nothing is left to be done
    office.accept("other")
    assert office.checker.done.get(timeout=10).run_id == "other"
    office.checker.close()


@pytest.mark.parametrize("reason", [None, FileReason.MISSING_COLUMN])
def test_what_pass_1_says_late_changes_nothing(office: Office, reason: FileReason | None) -> None:
    office.accept()
    office.command(CommandName.CANCEL)
    office.checked(reason=reason)
    office.producer.flush()
    assert (office.state(), office.feeder.feeds) == (RunState.CANCELLED, {})
    assert list(office.spool.iterdir()) == []


def test_a_run_that_is_cancelled_before_its_start_is_acknowledged_is_not_fed(office: Office) -> None:
    office.accept()
    office.checked()
    office.command(CommandName.CANCEL)
    office.producer.flush()
    assert (office.state(), office.feeder.feeds) == (RunState.CANCELLED, {})
    assert not office.feeder.turn()


def test_a_stand_by_cancels_what_the_last_one_was_checking(office: Office) -> None:
    office.accept()
    office.take_over(2)
    office.checker.submit(office.ledger.runs["r"])
    assert office.command(CommandName.CANCEL)
    office.checked()
    assert office.state() is RunState.CANCELLED
    assert office.producer.table().runs["r"].epoch == 2


def test_a_stand_by_finds_a_cancelled_run_ended(office: Office) -> None:
    """The command was not committed: it is carried out again, and changes nothing."""
    office.accept()
    office.command(CommandName.CANCEL)
    office.take_over(2)
    assert office.ledger.runs == {}
    assert office.command(CommandName.CANCEL)
    office.checked()
    record = office.producer.table().runs["r"]
    assert (record.state, record.epoch) == (RunState.CANCELLED, 1)


def test_a_pause_waits_for_pass_1(office: Office) -> None:
    office.accept()
    assert not office.command(CommandName.PAUSE)
    assert not office.command(CommandName.RESUME)
    assert office.state() is RunState.ACCEPTED
    office.checked()
    assert office.command(CommandName.PAUSE)
    office.producer.flush()
    assert office.state() is RunState.PAUSED
    assert not office.feeder.turn()
    office.command(CommandName.RESUME)
    assert office.feeder.turn()


@pytest.mark.parametrize("command", list(CommandName))
def test_no_command_wakes_an_ended_run(office: Office, command: CommandName) -> None:
    """`prism.runs` is read with a delay: as long as that it still shows the run as it was."""
    office.run()
    office.read_runs()
    office.command(CommandName.CANCEL)
    count = len(office.producer.sent)
    assert office.command(command)
    assert len(office.producer.sent) == count


# Ends


def progress(merged: int, state: MergeState = MergeState.MERGING, failed: int = 0) -> Progress:
    files = {"l": FileProgress(merged_through=merged)}
    return Progress(run_id="r", state=state, files=files, rows_ok=merged - failed, rows_failed=failed)


def test_a_cancelled_run_leaves_a_cursor_of_what_was_fed_and_no_source(office: Office) -> None:
    office.run()
    office.feeder.turn()
    office.command(CommandName.CANCEL)
    assert office.producer.table().cursors["r"].files["l"].next.sequence == 3
    assert [one["key"] for one in office.producer.sent[-2:]] == ["r/cursor", "r"]
    assert list(office.spool.iterdir()) == []


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (progress(3, MergeState.PUBLISHED), RunState.COMPLETED),
        (progress(3, MergeState.PUBLISHED, failed=1), RunState.COMPLETED_WITH_FAILURES),
        (progress(3, MergeState.WITHHELD), RunState.COMPLETED_WITH_FAILURES),
    ],
    ids=["all", "some", "withheld"],
)
def test_a_run_ends_with_its_publication(office: Office, last: Progress, state: RunState) -> None:
    office.run()
    office.feeder.turn()
    office.states.progressed(progress(2))
    assert office.state() is RunState.RUNNING
    office.states.progressed(progress(3))
    assert office.state() is RunState.MERGING
    office.states.progressed(last)
    assert office.state() is state
    office.states.progressed(progress(3))
    assert office.state() is state


def test_progress_that_came_before_the_feed_is_heard(office: Office) -> None:
    office.accept()
    office.checked()
    office.view.progress["r"] = progress(3, MergeState.PUBLISHED)
    office.producer.flush()
    assert office.state() is RunState.COMPLETED


def test_a_source_that_changes_while_it_is_fed_fails_its_run_alone(office: Office) -> None:
    office.run("bad")
    office.run("good")
    feed = office.feeder.feeds["bad"].files[0]
    feed.plain = PlainFile(feed.plain.path, "", 0, stamp=(0, 0, 0))
    office.feeder.turn()
    assert office.state("bad") is RunState.FAILED
    assert office.batches() == ["good/l/0", "good/l/1", "good/l/2"]


# Feeding


def test_the_load_of_an_ended_run_is_forgotten(office: Office) -> None:
    office.run()
    office.feeder.turn()
    merged = {"l": FileProgress(merged_above=[(1, 1)])}
    office.states.progressed(Progress(run_id="r", files=merged))  # what is left lies in one partition
    office.command(CommandName.CANCEL)
    office.run("next")
    office.feeder.turn()
    places = [one["partition"] for one in office.producer.sent if one["topic"].endswith("batches")]
    assert places[:3] == [0, 1, 0]
    assert places[3:] == [1, 0, 1]


@pytest.mark.promise(6)
def test_a_run_of_an_earlier_ingestor_is_fed_on_where_it_stopped(office: Office) -> None:
    office.run()
    office.feeder.turn()
    office.producer.flush()
    office.feeder.write_cursors()
    office.take_over(2)
    count = len(office.producer.sent)
    office.checked()
    assert office.feeder.feeds["r"].recovering
    assert len(office.producer.sent) == count  # it is `running` already
    assert not office.feeder.turn()
    office.states.progressed(progress(1))
    assert office.feeder.feeds["r"].unmerged == 2
    assert not office.feeder.turn()


def test_runs_have_turns_and_share_the_window(office: Office) -> None:
    for run_id in ("a", "b"):
        office.run(run_id)
    office.feeder.turn()
    assert sorted(office.batches()) == [f"{run_id}/l/{n}" for run_id in ("a", "b") for n in range(3)]
    assert not office.feeder.turn()


def test_a_model_that_changes_in_the_middle_fails_its_run(office: Office) -> None:
    office.run()
    office.states.progressed(Progress(run_id="r", model_digests=["sha256:a"]))
    assert office.state() is RunState.RUNNING
    office.states.progressed(Progress(run_id="r", model_digests=["sha256:a", "sha256:b"]))
    office.producer.flush()
    record = office.producer.table().runs["r"]
    assert (record.state, record.reason) == (RunState.FAILED, "model_changed")


def test_of_several_models_each_has_a_digest_of_its_own(office: Office) -> None:
    office.run()
    digests = ["sha256:a", "sha256:b"]
    shares = {"x": ModelProgress(digests=digests[:1]), "y": ModelProgress(digests=digests[1:])}
    office.states.progressed(Progress(run_id="r", model_digests=digests, models=shares))
    assert office.state() is RunState.RUNNING
    shares["y"] = ModelProgress(digests=["sha256:b", "sha256:c"])
    office.states.progressed(Progress(run_id="r", model_digests=[*digests, "sha256:c"], models=shares))
    office.producer.flush()
    record = office.producer.table().runs["r"]
    assert (record.state, record.reason) == (RunState.FAILED, "model_changed")
    assert "sha256:b, sha256:c" in (record.detail or "")


@pytest.mark.promise(9)
def test_a_model_that_is_away_leaves_the_others_their_credit(office: Office) -> None:
    rows = 100
    plain = office.spool / "many.csv"
    plain.write_text("Message\n" + "".join(f"text {number}\n" for number in range(rows)))
    job = {"model": {"names": ["a", "dead"], "batch_size": "1"}}
    asked = RunRecord(run_id="r", epoch=0, state=RunState.ACCEPTED, job=job)
    servers = {name: {"name": name, "base_url": [f"http://{name}"]} for name in ("a", "dead")}
    record = office.ledger.write(asked.model_copy(update={"model_entries": servers}))
    source = UriSource(uri="file:///x")
    found = {"columns": ["Message"], "rows": rows, "batches": rows, "origin": "l", "source": source}
    files = tuple(RunFile(label=f"l.{one}", model=one, **found) for one in ("a", "dead"))
    plains = (PlainFile(plain, "", 0),) * 2
    office.checker.done.put(Checked(record.run_id, files, {"system_prompt": "x"}, plains))
    office.states.start_checked()
    office.producer.flush()
    merged = 0
    while office.feeder.turn():
        assert office.feeder.feeds["r"].unmerged <= 64
        merged = sum(one.startswith("r/l.a/") for one in office.batches())
        answered = {"l.a": FileProgress(merged_through=merged, rows_ok=merged)}
        office.states.progressed(Progress(run_id="r", files=answered, rows_ok=merged))
    assert merged == rows
    assert sum(one.startswith("r/l.dead/") for one in office.batches()) == 64


def test_a_run_whose_budget_is_reached_is_fed_no_more_and_says_so(office: Office) -> None:
    file = RunFile(label="l", source=UriSource(uri="file:///x"))
    job = {"model": {"batch_size": "1"}, "budget": {"tokens": "150"}}
    record = RunRecord(run_id="r", epoch=0, state=RunState.ACCEPTED, files=[file], job=job)
    office.checker.submit(office.ledger.write(record))
    office.checked()
    office.producer.flush()
    feed = office.feeder.feeds["r"]
    office.feeder._feed_one(feed, 64)
    merged = {"l": FileProgress(merged_through=1, rows_ok=1)}
    office.states.progressed(Progress(run_id="r", files=merged, rows_ok=1, calls=1, prompt_tokens=100))
    assert not office.feeder.turn()
    assert feed.out_of_budget is not None
    assert "100 of 150 tokens" in feed.out_of_budget
