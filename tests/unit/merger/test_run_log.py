"""A run's log: each event once, no text of a row, no forged line."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prism.messages import Result, ResultRow, RunState
from prism_merger.accounts import Stage
from prism_merger.run_log import EVERY_S, MOST_FAILURES, RunLogs
from prism_merger.scribe import Scribe
from tests.unit.merger.world import PROMPT, World, result, run_record

JOB = {"output": {"checkpoints": {"interval": "50"}}}
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO   |WARNING) ([a-z_]+)( [a-z_0-9]+=.*)?")


@dataclass
class Desk:
    """A merger with run logs, on a folder."""

    folder: Path
    rows: int = 1000
    now: float = 0.0
    monitoring: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.record = run_record(rows=self.rows, job={**JOB, "monitoring": self.monitoring})
        self.world = World(self.folder, [self.record])
        self.scribe = Scribe()
        self.logs = RunLogs(
            self.world.places, self.scribe, self.world.ledger.record, lambda: self.now,
            lambda: 1_800_000_000.0 + self.now,
        )  # fmt: skip
        self.world.listen(self.logs.note)
        self.world.merger._on_failed = self.logs.failed
        self.world.tell()

    def merge(self, *results: Result) -> None:
        self.world.merge(results, results[0].sequence)
        self.world.tell()

    def lines(self) -> list[str]:
        assert self.scribe.settle()
        return (self.folder / "logs" / "r1" / "run_r1.log").read_text().split("\n")[:-1]

    def events(self) -> list[str]:
        found = []
        for line in self.lines():
            match = LINE.fullmatch(line)
            assert match is not None, line
            found.append(match.group(2))
        return found

    def close(self) -> None:
        self.scribe.close()
        self.world.close()


def test_a_job_may_want_no_log(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=20, monitoring={"save_terminal_logs": "no"})
    desk.merge(*(result(desk.record, number) for number in range(2)))
    desk.world.finish()
    desk.world.tell()
    assert desk.scribe.settle()
    assert not (tmp_path / "logs" / "r1" / "run_r1.log").exists()
    assert (tmp_path / "logs" / "r1" / "run_manifest.json").exists()
    desk.close()


def test_what_happens_to_a_run_is_told_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=100)
    assert desk.events() == ["opened", "file", "state"]
    desk.world.tell()
    desk.merge(*(result(desk.record, number) for number in range(6)))
    desk.world.write_parts()
    desk.logs.worker(desk.world.run(), desk.world.ledger.plan("r1"), 2, "w2\n", "failed")
    desk.world.tell()
    desk.world.take_in(desk.record.model_copy(update={"state": RunState.PAUSED, "epoch": 2}))
    desk.world.tell()
    stalled = desk.record.model_copy(update={"stalled": "no worker: start a model worker", "epoch": 3})
    desk.world.take_in(stalled)
    desk.world.tell()
    desk.world.take_in(desk.record.model_copy(update={"epoch": 4}))
    desk.world.teller.blocked = "disk full"
    desk.world.tell()
    desk.world.teller.blocked = None
    desk.world.tell()
    desk.merge(*(result(desk.record, number) for number in range(6, 10)))
    run = desk.world.finish()
    run.stage = Stage.CLOSED  # the broker had to be told once more
    desk.world.tell()
    assert [one for one in desk.events()[3:] if one != "row_failed"] == [
        "first_result", "progress", "worker", "state", "state", "stalled", "moving_again",
        "commits_held", "commits_resumed", "progress", "parts_written", "merged", "parts_written",
        "published", "finished",
    ]  # fmt: skip
    text = "\n".join(desk.lines())
    assert 'stalled reason="no worker: start a model worker"' in text
    assert "progress percent=60 rows=60 of=100 failed=8" in text
    assert "finished status=completed_with_failures ok=86 failed=14" in text
    assert '{"schema_violation":14}' in text
    assert "row_failed file=march row=7 row_id=007 reason=schema_violation" in text
    assert text.count("row_failed") == 14
    assert 'WARNING worker number=2 worker="w2\\n" state=failed' in text
    desk.close()


def test_progress_is_told_every_five_per_cent_or_every_minute(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=1000)
    for number in range(100):
        desk.merge(result(desk.record, number))
    assert desk.events().count("progress") == 20
    desk.close()
    slow = Desk(tmp_path / "slow", rows=100_000)
    for number in range(20):
        slow.merge(result(slow.record, number))
        slow.now += EVERY_S / 4
    assert slow.events().count("progress") == 4
    slow.close()


@pytest.mark.promise(8)
def test_no_row_forges_a_line_or_shows_its_text(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=10)
    evil = '7\n2026-11-21T10:00:00.000Z INFO    finished status=completed\x1b[2J\u2028" x=' + "y" * 500
    rows = [
        ResultRow(row_id=evil, cells=[evil, "SECRET text", "1"], reason="not_json", detail="SECRET detail\n")
        for _ in range(10)
    ]
    desk.merge(result(desk.record, 0).model_copy(update={"rows": rows}))
    assert "finished" not in desk.events()
    text = "\n".join(desk.lines())
    assert "SECRET" not in text
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert max(map(len, desk.lines())) < 400
    desk.close()


def test_many_failures_are_counted_not_listed(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=MOST_FAILURES * 3)
    for number in range(MOST_FAILURES * 3 // 10):
        found = result(desk.record, number)
        rows = [ResultRow(row_id=one.row_id, cells=one.cells, reason="not_json") for one in found.rows]
        desk.merge(found.model_copy(update={"rows": rows}))
    assert desk.events().count("row_failed") == MOST_FAILURES
    assert desk.events().count("more_rows_failed") == 1
    desk.close()


def test_a_merger_started_again_goes_on_with_the_log(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=100)
    desk.merge(*(result(desk.record, number) for number in range(5)))
    before = desk.lines()
    desk.close()
    again = Desk(tmp_path, rows=100)
    assert again.lines()[: len(before)] == before
    assert again.events()[len(before) :] == ["going_on", "state"]
    again.merge(*(result(again.record, number) for number in range(5, 10)))
    again.world.finish()
    found = again.events()
    assert (found.count("opened"), found.count("first_result"), found.count("finished")) == (1, 1, 1)
    again.close()


def test_a_withheld_output_is_told_with_its_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path, rows=100)
    desk.merge(result(desk.record, 0))
    cancelled = desk.record.model_copy(update={"state": RunState.CANCELLED, "epoch": 2, "prompt": PROMPT})
    desk.world.take_in(cancelled)
    desk.world.finish(silent_s=60)
    assert desk.events()[-2:] == ["withheld", "finished"]
    assert 'withheld reason="the run was cancelled"' in desk.lines()[-2]
    assert "finished status=cancelled ok=9 failed=91" in desk.lines()[-1]
    desk.close()
