"""What a retry sends: every file that waits to be published, written so that it is read as it was."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prism.messages import MessageSource, RunFile, RunRecord, RunState
from prism.runs.job import parse_job
from prism_cli.retry import _job, _request, in_full, is_published, newest_of_family
from prism_cli.submission import examine
from prism_ingestor.checking import table_format

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
