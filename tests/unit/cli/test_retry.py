"""What a retry sends: every file that waits to be published, written so that it is read as it was."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Message

from prism.kafka.clients import KafkaSettings
from prism.kafka.records import Record
from prism.kafka.table import Handler
from prism.messages import MessageSource, RunFile, RunRecord, RunState, Topics
from prism.runs.job import parse_job
from prism_cli import retry
from prism_cli.exits import BAD_INPUT, BROKER_AWAY, CommandFailed
from prism_cli.retry import _job, _request, in_full, is_published, newest_of_family, whole_record
from prism_cli.submission import examine
from prism_ingestor.checking import table_format
from tests.unit.cli.views import nowhere

SOURCE = MessageSource(partition=0, offsets=[0])


def record_of(job: dict[str, Any], **delimiters: str) -> RunRecord:
    files = [
        RunFile(
            label=label, source=SOURCE, sha256="a" * 64, columns=["RowID", "Message"], delimiter=one, rows=5
        )
        for label, one in delimiters.items()
    ]
    return RunRecord(
        run_id="r", epoch=1, state=RunState.COMPLETED_WITH_FAILURES, job=job, files=files,
        results_partition=0, created_at="",
    )  # fmt: skip


def test_files_without_failed_rows_go_with_their_header_alone(tmp_path: Path) -> None:
    record = record_of({}, a=",", b=",")
    first = in_full(record, [], tmp_path)[0]
    found = in_full(record, [first], tmp_path)
    assert found[0] is first
    assert found[1].label == "b"
    assert found[1].source.path.read_bytes() == b"RowID,Message\n"
    assert examine(found[1].source.path).sha256 == found[1].source.sha256


@pytest.mark.parametrize("job", [{}, {"table": {"delimiter": ";"}}, {"table": {"format": "tsv"}}])
def test_rows_are_read_again_as_they_are_written(tmp_path: Path, job: dict[str, Any]) -> None:
    theirs = {"a": "\t"} if "format" in str(job) else {"a": ";"} if job else {"a": ",", "b": "\t"}
    record = record_of(job, **theirs)
    request = _request(record, "r", in_full(record, [], tmp_path), False)
    again = parse_job(_job(job, False))
    for known, asked in zip(record.files, request.files, strict=True):
        file = RunFile(label=asked.label, filename=asked.filename, source=SOURCE)
        assert table_format(again, {}, file).delimiter == known.delimiter


def test_the_renamed_columns_of_the_input_are_not_looked_for_again() -> None:
    job = {"table": {"columns": {"Message": "text"}, "required_columns": ["Message"]}}
    table = parse_job(_job(job, False)).table
    assert (table.columns, table.required_columns) == ({}, ["Message"])
    assert parse_job(job).table.columns == {"Message": "text"}


def test_a_run_that_was_published_as_it_is_can_still_be_retried() -> None:
    def view(run_id: str, parent: str, rows: int, outputs: list[str]) -> Any:
        return SimpleNamespace(
            run_id=run_id, record=SimpleNamespace(parent=parent, rows=rows), ended=True,
            state=RunState.COMPLETED if not rows else RunState.COMPLETED_WITH_FAILURES,
            progress=SimpleNamespace(outputs=outputs),
        )  # fmt: skip

    runs = [view("r", "", 9, []), view("r.r1", "r", 2, []), view("r.r2", "r", 0, ["r.csv"])]
    board: Any = SimpleNamespace(runs=lambda: runs, run=lambda _: runs[0])
    assert newest_of_family(board, "r").run_id == "r.r1"
    assert is_published(board, "r")
    assert not is_published(board, "r.r1")


class Runs:
    """A reader of a runs topic that holds the given records; `ends`: whether its end is ever reached."""

    def __init__(self, values: Iterable[RunRecord], ends: bool = True) -> None:
        self._values = list(values)
        self._ends = ends
        self.closed = False

    def __call__(self, _settings: KafkaSettings, handlers: Mapping[str, Handler]) -> "Runs":
        self._handler = handlers[Topics().runs]
        return self

    @property
    def caught_up(self) -> bool:
        return self._ends and not self._values

    def poll(self, _timeout_s: float) -> int:
        for one in self._values:
            topic, value = Topics().runs, one.to_bytes()
            self._handler(Record(topic, 0, 0, one.run_id, value, 0, cast(Message, None)))
        self._values = []
        return 0

    def close(self) -> None:
        self.closed = True


def with_prompt(text: str, epoch: int, run_id: str = "r") -> RunRecord:
    return record_of({}).model_copy(update={"run_id": run_id, "epoch": epoch, "prompt": {"system": text}})


def test_the_record_that_counts_is_found_with_its_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [with_prompt("new", 2), with_prompt("stale", 1), with_prompt("other", 3, "r2")]
    monkeypatch.setattr(retry, "TableReader", Runs(written))
    assert whole_record(nowhere(tmp_path), "r").prompt == {"system": "new"}


def test_a_run_without_its_prompt_cannot_be_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "TableReader", Runs([record_of({})]))
    with pytest.raises(CommandFailed, match="no prompt any more") as caught:
        whole_record(nowhere(tmp_path), "r")
    assert caught.value.code == BAD_INPUT


def test_a_retry_does_not_wait_for_ever_for_a_broker_that_went_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Runs([with_prompt("new", 1)], ends=False)
    monkeypatch.setattr(retry, "TableReader", reader)
    with pytest.raises(CommandFailed, match="the broker did not send its tables") as caught:
        whole_record(nowhere(tmp_path), "r", timeout_s=0.01)
    assert caught.value.code == BROKER_AWAY
    assert reader.closed
